"""CPS, the form of SSL4MIS, and the paper's cross term over all images."""

from __future__ import annotations

import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, exact, gradient, tensor, value

from lib.core.losses import supervised_loss
from lib.core.methods.cps import cross_supervision
from lib.core.pseudo import hard_label
from lib.core.schedules import sigmoid_rampup


def check_step(case: Arrays) -> Errors:
    """One step of both networks."""
    first, second = (tensor(case, f"logits_{n}", grad=True) for n in (1, 2))
    labelled, weight = int(case["labelled"]), float(case["w"])
    nothing = torch.zeros(first.shape[0], *first.shape[2:], dtype=torch.uint8)
    sup = [supervised_loss(z[:labelled], tensor(case, "y")) for z in (first, second)]
    cross = cross_supervision(first[labelled:], second[labelled:], nothing[labelled:])
    everywhere = cross_supervision(first, second, nothing)
    loss = sum(sup) + weight * sum(cross)
    errors = {"w": value(0.1 * sigmoid_rampup(int(case["iteration"]) // 150, 200), case["w"])}
    for n, z in ((1, first), (2, second)):
        errors[f"pseudo_{n}"] = exact(hard_label(z[labelled:], nothing[labelled:]), case[f"pseudo_{n}"])
        errors[f"sup_{n}"] = value(sup[n - 1], case[f"sup_{n}"])
        errors[f"cps_{n}"] = value(cross[n - 1], case[f"cps_{n}"])
        errors[f"cps_{n}_all_images_spec"] = value(everywhere[n - 1], case[f"cps_{n}_all_images_spec"])
        errors[f"loss_{n}"] = value(sup[n - 1] + weight * cross[n - 1], case[f"loss_{n}"])
    for n, grad in zip((1, 2), torch.autograd.grad(loss, (first, second)), strict=True):
        errors[f"grad_{n}"] = gradient(grad, case[f"grad_{n}"])
    return errors | {"loss": value(loss, case["loss"])}


def check_ramp(case: Arrays) -> Errors:
    """Weight over the iterations."""
    weights = [0.1 * sigmoid_rampup(int(t) // 150, int(case["length"])) for t in case["iteration"]]
    return {"w": value(weights, case["w"])}


CHECKERS: dict[str, Check] = {"cps/step_": check_step, "cps/ramp": check_ramp}
