"""SPCL: pair losses, weights, both contrasts, projector, schedule and meta-labels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, exact, gradient, tensor, value
from torch import nn

from lib.core.methods.spcl import Projector
from lib.core.selfpaced import gamma_at, pair_losses, pair_weights, partition, self_paced
from lib.core.spec_methods import SPCLSpec

HALF = 1e-3
"""Weights are recorded in half precision."""


def check_contrast(case: Arrays) -> Errors:
    """Plain and self-paced contrast in all recorded settings."""
    same, spec = tensor(case, "meta_label"), SPCLSpec(temperature=float(case["temperature"]))
    views = [tensor(case, f"z{n}", grad=True) for n in (1, 2)]
    z = torch.cat(views)
    losses, positive = pair_losses(z, same, spec.temperature)
    off = ~np.eye(len(z), dtype=bool)
    plain, _ = self_paced(z, same, math.inf, spec)
    errors = {
        "l_ij": value(losses.detach().numpy()[off], case["l_ij"][off]),
        "positive": exact(positive, case["positive"]),
        "loss_plain": value(plain, case["loss_plain"]),
    }
    for n, grad in zip((1, 2), torch.autograd.grad(plain, views, retain_graph=True), strict=True):
        errors[f"grad_z{n}_plain"] = gradient(grad, case[f"grad_z{n}_plain"])
    for run, (mode, gamma, correct) in enumerate(zip(case["mode"], case["gamma"], case["correct_grad"], strict=True)):
        setting = replace(spec, mode=str(mode), correct_gradient=bool(correct))
        loss, mean_weight = self_paced(z, same, float(gamma), setting)
        weight = pair_weights(losses, positive, float(gamma), setting.mode)
        name = f"{mode} {float(gamma):g}{' corrected' if correct else ''}"
        errors[f"loss {name}"] = value(loss, case["loss"][run])
        errors[f"mean weight {name}"] = value(mean_weight, case["mean_weight"][run])
        errors[f"weight {name}"] = (float(np.abs(weight.numpy() - case["weight"][run]).max()), HALF)
        for n, grad in zip((1, 2), torch.autograd.grad(loss, views, retain_graph=True), strict=True):
            errors[f"grad_z{n} {name}"] = gradient(grad, case[f"grad_z{n}"][run])
    return errors


def check_projector(case: Arrays) -> Errors:
    """Pooling, projector and loss, with gradients down to the feature."""
    projector = Projector(case["w1"].shape[1], case["w1"].shape[0])
    projector.second = nn.Linear(case["w2"].shape[1], case["w2"].shape[0])
    for layer, n in ((projector.first, 1), (projector.second, 2)):
        layer.weight.data, layer.bias.data = tensor(case, f"w{n}"), tensor(case, f"b{n}")
    feature = tensor(case, "feature", grad=True)
    z = projector(feature)
    spec = SPCLSpec(temperature=float(case["temperature"]))
    loss, _ = self_paced(z, tensor(case, "meta_label"), float(case["gamma"]), spec)
    grads = torch.autograd.grad(loss, (feature, projector.first.weight, projector.second.weight))
    errors = {"z": value(z, case["z"]), "loss": value(loss, case["loss"])}
    return errors | {
        n: gradient(g, case[n]) for n, g in zip(("grad_feature", "grad_w1", "grad_w2"), grads, strict=True)
    }


def check_gamma(case: Arrays) -> Errors:
    """The schedule, epoch by epoch."""
    errors = {}
    for run, (g0, g1, power, epochs) in enumerate(
        zip(*(case[k] for k in ("g0", "g1", "power", "epochs")), strict=True)
    ):
        ours = [gamma_at((float(g0), float(g1)), e / int(epochs), float(power)) for e in range(int(epochs))]
        errors[f"{g0:g} to {g1:g}, run {run}"] = value(ours, case["gamma"][run][: int(epochs)])
    return errors


def check_meta_labels(case: Arrays) -> Errors:
    """The part of the volume by each rule."""
    rules = {"acdc": 3, "promise12": 8, "mmwhs": 8, "msd_prostate": 4}
    places = list(zip(case["slice_index"].tolist(), case["n_slices"].tolist(), strict=True))
    return {
        n: exact(np.array([partition(i, count, parts) for i, count in places]), case[n]) for n, parts in rules.items()
    }


CHECKERS: dict[str, Check] = {
    "spcl/contrast_": check_contrast,
    "spcl/projector": check_projector,
    "spcl/gamma": check_gamma,
    "spcl/meta_labels": check_meta_labels,
}
LEFT_OUT = {"spcl/meta_labels.npz: batch_cycle_label": "the phase of a heart beat is not known for a study"}
