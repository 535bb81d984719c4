"""UA-MT, the form of SSL4MIS; of the authors' own 3D script what is not its supervised loss."""

from __future__ import annotations

import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, check_average, exact, gradient, tensor, value
from torch import Tensor

from lib.core.losses import supervised_loss
from lib.core.methods.ua_mt import certain_mse, entropy, threshold
from lib.core.schedules import sigmoid_rampup


def _consistency(case: Arrays, logits: Tensor, classes: int) -> tuple[float, Tensor, Tensor]:
    """Threshold, mask and consistency with ln `classes` as the largest entropy."""
    labelled = int(case["labelled"])
    mean = torch.softmax(tensor(case, "mc_logits"), dim=2).mean(0)
    limit = threshold(int(case["iteration"]), int(case["T"]), 0.75, classes)
    certain = entropy(mean) < limit
    target = torch.softmax(tensor(case, "teacher_logits"), dim=1)
    return limit, certain, certain_mse(torch.softmax(logits[labelled:], dim=1), target, certain, classes)


def check_step(case: Arrays) -> Errors:
    """One step: both scales of the uncertainty, the loss, and both gradients."""
    logits = tensor(case, "logits", grad=True)
    labelled, classes = int(case["labelled"]), case["logits"].shape[1]
    sup = supervised_loss(logits[:labelled], tensor(case, "y"))
    errors = {"sup": value(sup, case["sup"])}
    for form, scale in (("published", 2), ("spec", classes)):
        limit, certain, consistency = _consistency(case, logits, scale)
        errors[f"threshold_{form}"] = value(limit, case[f"threshold_{form}"])
        errors[f"mask_{form}"] = exact(certain, case[f"mask_{form}"])
        errors[f"consistency_{form}"] = value(consistency, case[f"consistency_{form}"])
    _, _, consistency = _consistency(case, logits, 2)
    loss = sup + float(case["w"]) * consistency
    errors["loss_published"] = value(loss, case["loss_published"])
    for name, term in (("consistency", consistency), ("loss", loss)):
        (grad,) = torch.autograd.grad(term, logits, retain_graph=True)
        errors[f"grad_{name}_published"] = gradient(grad, case[f"grad_{name}_published"])
    return errors


def check_original(case: Arrays) -> Errors:
    """The authors' 3D step: threshold, mask and consistency."""
    limit, certain, consistency = _consistency(case, tensor(case, "logits"), 2)
    return {
        "threshold": value(limit, case["threshold"]),
        "mask": exact(certain, case["mask"]),
        "consistency": value(consistency, case["consistency"]),
    }


def check_ramp(case: Arrays) -> Errors:
    """Weight and threshold over the iterations."""
    steps = [int(t) for t in case["iteration"]]
    errors = {
        f"w_length{n}": value([0.1 * sigmoid_rampup(t // 150, n) for t in steps], case[f"w_length{n}"])
        for n in (40, 200)
    }
    return errors | {
        f"H_T{n}": value([threshold(t, n, 0.75, 2) for t in steps], case[f"H_T{n}"]) for n in (6000, 30000)
    }


def check_ema(case: Arrays) -> Errors:
    """The teacher's weights after the warm updates."""
    return {
        f"t = {t}": check_average(
            case, (f"t{t}_student_", f"t{t}_before_", f"t{t}_after_"), t, warm=True, buffers=False
        )
        for t in (0, 1, 5, 98, 99, 1000)
    }


CHECKERS: dict[str, Check] = {
    "uamt/step_": check_step,
    "uamt/step_original": check_original,
    "uamt/ramp": check_ramp,
    "uamt/ema": check_ema,
}
LEFT_OUT = {
    "uamt/step_original_3d.npz: sup, loss": "the authors' Dice takes the foreground only; all methods share SSL4MIS's loss",
    "uamt/ema.npz: buffers": "the published teacher normalises by its own passes; ours follows the student's statistics",
}
