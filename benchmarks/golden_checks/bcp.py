"""BCP in the form for ACDC; the form for LA differs in the Dice and in which side of the mask is labelled."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, check_average, exact, gradient, tensor, value

from lib.core.copypaste import hole_mask, paste, region_losses
from lib.core.pseudo import hard_label, largest_components

UNSUP = 0.5


def check_mask(case: Arrays) -> Errors:
    """The form of our mask: as many pixels in the hole."""
    rng = np.random.default_rng(0)
    sizes = {
        "mask_32": ((32, 32), int(case["hole_side_32"]) ** 2),
        "mask_256": ((256, 256), int(case["hole_side_256"]) ** 2),
        "mask_3d": (case["mask_3d"].shape, int(np.prod(case["hole_sides_3d"]))),
    }
    return {n: exact((~hole_mask(shape, 2 / 3, rng)).sum(), np.asarray(hole)) for n, (shape, hole) in sizes.items()}


def check_pseudo_label(case: Arrays) -> Errors:
    """The teacher's labels, and what stays of them."""
    errors = {}
    for dims in ("2d", "3d"):
        logits = tensor(case, f"teacher_logits_{dims}")
        label = hard_label(logits, torch.zeros(len(logits), *logits.shape[2:], dtype=torch.uint8))
        errors[f"argmax_{dims}"] = exact(label, case[f"argmax_{dims}"])
        errors[f"pseudo_{dims}"] = exact(largest_components(label, logits.shape[1]), case[f"pseudo_{dims}"])
    return errors


def check_mix_loss(case: Arrays) -> Errors:
    """The region loss with each weighting."""
    logits, mask = tensor(case, "logits", grad=True), tensor(case, "mask").bool()
    inside, outside = region_losses(logits, tensor(case, "y_mask1"), tensor(case, "y_mask0"), mask)
    losses = {
        "labelled_inside_mask": inside + UNSUP * outside,
        "unlabelled_inside_mask": UNSUP * inside + outside,
        "both_labelled": inside + outside,
    }
    errors = {f"loss_{n}": value(loss, case[f"loss_{n}"]) for n, loss in losses.items()}
    for n, loss in losses.items():
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        errors[f"grad_{n}"] = gradient(grad, case[f"grad_{n}"])
    return errors


def check_pretraining(case: Arrays) -> Errors:
    """A step of stage 1."""
    logits, mask = tensor(case, "logits", grad=True), tensor(case, "mask").bool()
    loss = sum(region_losses(logits, tensor(case, "y_la"), tensor(case, "y_lb"), mask))
    (grad,) = torch.autograd.grad(loss, logits)
    mixed = paste(tensor(case, "x_la"), tensor(case, "x_lb"), mask)
    return {"x": exact(mixed, case["x"]), "loss": value(loss, case["loss"]), "grad": gradient(grad, case["grad"])}


def check_step(case: Arrays) -> Errors:
    """A step of stage 2."""
    mask = tensor(case, "mask").bool()
    images = {n: tensor(case, f"x_{n}") for n in ("la", "lb", "ua", "ub")}
    nothing = torch.zeros(1, *mask.shape, dtype=torch.uint8)
    pseudo = {n: hard_label(tensor(case, f"teacher_{n}"), nothing) for n in ("ua", "ub")}
    pseudo = {n: largest_components(p, case["teacher_ua"].shape[1]) for n, p in pseudo.items()}
    out, into = tensor(case, "logits_out", grad=True), tensor(case, "logits_in", grad=True)
    out_u, out_l = region_losses(out, pseudo["ua"], tensor(case, "y_la"), mask)
    in_l, in_u = region_losses(into, tensor(case, "y_lb"), pseudo["ub"], mask)
    loss = out_l + in_l + float(case["lambda_u"]) * (out_u + in_u)
    grad_out, grad_in = torch.autograd.grad(loss, (out, into))
    return {
        "x_out": exact(paste(images["ua"], images["la"], mask), case["x_out"]),
        "x_in": exact(paste(images["lb"], images["ub"], mask), case["x_in"]),
        **{f"pseudo_{n}": exact(p, case[f"pseudo_{n}"]) for n, p in pseudo.items()},
        "loss": value(loss, case["loss"]),
        "grad_out": gradient(grad_out, case["grad_out"]),
        "grad_in": gradient(grad_in, case["grad_in"]),
    }


def check_ema(case: Arrays) -> Errors:
    """Two updates of the teacher, from the first step with the full decay; weights and buffers."""
    names = ("student_", "teacher_before_", "teacher_after_")
    return {
        f"{dims} {step}": check_average(
            case, tuple(f"{dims}_{step}_{n}" for n in names), step, warm=False, buffers=dims == "2d"
        )
        for dims in ("2d", "3d")
        for step in (0, 1)
    }


CHECKERS: dict[str, Check] = {
    "bcp/mask": check_mask,
    "bcp/pseudo_label": check_pseudo_label,
    "bcp/mix_loss_2d": check_mix_loss,
    "bcp/pretrain_2d": check_pretraining,
    "bcp/step_2d": check_step,
    "bcp/ema": check_ema,
}
_LA = "the form for LA has the plain Dice per sample; ours takes the squared one of ACDC in 2D and 3D"
LEFT_OUT = {
    "bcp/mix_loss_3d": _LA,
    "bcp/pretrain_3d": f"{_LA}, and the loss of the mixed label over the whole image; ours is by region",
    "bcp/step_3d": f"{_LA}, and the labelled part inside the mask first",
    "bcp/ema.npz: 3d buffers": "in the form for LA the teacher's statistics stay its own; ours follow the student's",
}
