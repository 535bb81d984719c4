"""M3HL in the form for ACDC, and the feature terms of the form for LA."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.bcp import check_pseudo_label
from benchmarks.golden_checks.common import Arrays, Check, Errors, check_average, exact, gradient, tensor, value
from torch import Tensor

from lib.core.copypaste import block_masks, paste, region_losses
from lib.core.methods.m3hl import feature_losses
from lib.core.pseudo import hard_label, largest_components

UNSUP = 0.5


def check_mask(case: Arrays) -> Errors:
    """The form of our masks: as many pixels stay in each image."""
    rng, errors = np.random.default_rng(0), {}
    for side in (64, 32, 128):
        recorded = case[f"mask_2d_side{side}"]
        ours = block_masks(len(recorded), recorded.shape[1:], 256 // side, float(case[f"ratio_2d_side{side}"]), rng)
        errors[f"2d side {side}"] = exact(ours.flatten(1).sum(1), recorded.reshape(len(recorded), -1).sum(1))
    recorded = case["mask_3d_spec"]
    ours = block_masks(len(recorded), recorded.shape[1:], 4, 0.5, rng)
    return errors | {"3d spec": exact(ours.flatten(1).sum(1), recorded.reshape(len(recorded), -1).sum(1))}


def check_mix_loss(case: Arrays) -> Errors:
    """The loss of one mixture, either way round."""
    logits, mask = tensor(case, "logits", grad=True), tensor(case, "mask").bool()
    inside, outside = region_losses(logits, tensor(case, "y_mask1"), tensor(case, "y_mask0"), mask)
    errors = {}
    for n, loss in {
        "labelled_in_mask": inside + UNSUP * outside,
        "unlabelled_in_mask": UNSUP * inside + outside,
    }.items():
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        errors |= {f"loss_{n}": value(loss, case[f"loss_{n}"]), f"grad_{n}": gradient(grad, case[f"grad_{n}"])}
    return errors


def _features(case: Arrays, students: tuple[str, str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """L_low, L_high and the student's features."""
    found = {
        f"{d}_{n}": tensor(case, f"{d}_{n}", grad=n in students)
        for d in ("high", "low")
        for n in (*students, "ua", "ub")
    }
    valid = torch.ones(len(case["mask"]), *case["mask"].shape[1:], dtype=torch.bool)
    sides = [[(found[f"high_{n}"], found[f"low_{n}"], valid) for n in names] for names in (students, ("ua", "ub"))]
    low, high = feature_losses(*sides)
    return low, high, {k: v for k, v in found.items() if v.requires_grad}


def check_step(case: Arrays) -> Errors:
    """A whole step: mixtures, labels, both feature terms, the total and its gradients."""
    mask = tensor(case, "mask").bool()
    images = {n: tensor(case, f"x_{n}") for n in ("la", "lb", "ua", "ub")}
    nothing = torch.zeros(mask.shape, dtype=torch.uint8)
    pseudo = {n: hard_label(tensor(case, f"teacher_{n}"), nothing) for n in ("ua", "ub")}
    pseudo = {n: largest_components(p, case["teacher_ua"].shape[1]) for n, p in pseudo.items()}
    out, into = tensor(case, "logits_out", grad=True), tensor(case, "logits_in", grad=True)
    out_u, out_l = region_losses(out, pseudo["ua"], tensor(case, "y_la"), mask)
    in_l, in_u = region_losses(into, tensor(case, "y_lb"), pseudo["ub"], mask)
    low, high, features = _features(case, ("out", "in"))
    loss = out_l + in_l + float(case["lambda_u"]) * (out_u + in_u) + 0.5 * (low + high)
    grads = torch.autograd.grad(loss, [out, into, *features.values()])
    names = ["logits_out", "logits_in", *features]
    return {
        "x_out": exact(paste(images["ua"], images["la"], mask), case["x_out"]),
        "x_in": exact(paste(images["lb"], images["ub"], mask), case["x_in"]),
        **{f"pseudo_{n}": exact(p, case[f"pseudo_{n}"]) for n, p in pseudo.items()},
        "loss_low": value(low, case["loss_low"]),
        "loss_high": value(high, case["loss_high"]),
        "loss": value(loss, case["loss"]),
        **{f"grad_{n}": gradient(g, case[f"grad_{n}"]) for n, g in zip(names, grads, strict=True)},
    }


def check_step_3d(case: Arrays) -> Errors:
    """Of the form for LA: the labels and both feature terms."""
    low, high, _ = _features(case, ("l", "u"))
    return {"loss_low": value(low, case["loss_low"]), "loss_high": value(high, case["loss_high"])}


def check_ema(case: Arrays) -> Errors:
    """One update without warm-up; weights and buffers in 2D."""
    names = ("student_", "teacher_before_", "teacher_after_")
    return {
        d: check_average(case, tuple(f"{d}_{n}" for n in names), 0, warm=False, buffers=d == "2d") for d in ("2d", "3d")
    }


CHECKERS: dict[str, Check] = {
    "m3hl/mask": check_mask,
    "m3hl/mix_loss_2d": check_mix_loss,
    "m3hl/pseudo_label": check_pseudo_label,
    "m3hl/step_2d": check_step,
    "m3hl/step_3d": check_step_3d,
    "m3hl/ema": check_ema,
}
_LA = "the form for LA has the plain Dice per sample and the labelled part in the mask of both mixtures"
LEFT_OUT = {
    "m3hl/mix_loss_3d": _LA,
    "m3hl/step_3d.npz: mixtures, segmentation loss, total": _LA,
    "m3hl/mask.npz: mask_3d_published": "all ones by mistake, so that nothing is mixed",
}
