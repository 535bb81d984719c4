"""UniMatch V1 in both recipes; the FixMatch and V2 steps as far as they are made of the same losses and mixtures."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, check_average, exact, gradient, tensor, value
from torch import Tensor

from lib.core.cutmix import cutmix_masks
from lib.core.losses import confident_cross_entropy, cross_entropy, dice_loss, supervised_loss
from lib.core.methods.unimatch import mix
from lib.core.pseudo import confident_label, hard_label
from lib.core.spec import IGNORE


def _gradients(case: Arrays, loss: Tensor, logits: dict[str, Tensor]) -> Errors:
    grads = torch.autograd.grad(loss, list(logits.values()))
    return {f"grad_{k}": gradient(g, case[f"grad_{k}"]) for k, g in zip(logits, grads, strict=True)}


def _logits(case: Arrays, *names: str) -> dict[str, Tensor]:
    return {n: tensor(case, f"logits_{n}", grad=True) for n in names}


def _mixed_in_batch(case: Arrays, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Label, confidence and ignore map with the box of image B-1-i."""
    confidence, label = torch.softmax(tensor(case, "teacher_logits"), dim=1).max(dim=1)
    return tuple(mix(t, t.flip(0), box) for t in (label, confidence, tensor(case, "ignore")))


def _fixmatch_term(case: Arrays, logits: Tensor, view: str, box: str) -> tuple[Tensor, Errors]:
    label, confidence, ignore = _mixed_in_batch(case, tensor(case, box).bool())
    errors = {
        f"pseudo_mixed{view}": exact(label, case[f"pseudo_mixed{view}"]),
        f"conf_mixed{view}": value(confidence, case[f"conf_mixed{view}"]),
        f"ignore_mixed{view}": exact(ignore, case[f"ignore_mixed{view}"]),
    }
    return confident_cross_entropy(logits, label, confidence >= float(case["tau"]), ignore), errors


def check_fixmatch(case: Arrays) -> Errors:
    """One step of FixMatch."""
    logits = _logits(case, "x", "s")
    loss_l = cross_entropy(logits["x"], tensor(case, "y"))
    loss_u, errors = _fixmatch_term(case, logits["s"], "", "box")
    loss = 0.5 * (loss_l + loss_u)
    errors |= {n: value(t, case[n]) for n, t in (("L_l", loss_l), ("L_u", loss_u), ("loss", loss))}
    return errors | _gradients(case, loss, logits)


def check_v2(case: Arrays) -> Errors:
    """One step of UniMatch V2: two strong views like FixMatch's one."""
    logits = _logits(case, "x", "s1", "s2")
    loss_x = cross_entropy(logits["x"], tensor(case, "y"))
    (loss_1, errors), (loss_2, more) = (_fixmatch_term(case, logits[f"s{n}"], str(n), f"box{n}") for n in (1, 2))
    loss = 0.5 * (loss_x + 0.5 * (loss_1 + loss_2))
    terms = {"L_x": loss_x, "L_s1": loss_1, "L_s2": loss_2, "loss": loss}
    return errors | more | {n: value(t, case[n]) for n, t in terms.items()} | _gradients(case, loss, logits)


def check_v1_acdc(case: Arrays) -> Errors:
    """One step of the recipe for ACDC: Dice over confident pixels; the box comes from another batch."""
    logits, tau = _logits(case, "x", "s1", "s2", "fp"), float(case["tau"])
    weak, partner = tensor(case, "logits_w"), tensor(case, "partner_logits")
    nothing = torch.zeros(weak.shape[0], *weak.shape[2:], dtype=torch.uint8)
    label, other = hard_label(weak, nothing), hard_label(partner, nothing)
    sure, other_sure = confident_label(weak, nothing, tau), confident_label(partner, nothing, tau)
    boxes = {n: tensor(case, f"box{n}").bool() for n in (1, 2)}
    errors = {f"pseudo_mixed{n}": exact(mix(label, other, b), case[f"pseudo_mixed{n}"]) for n, b in boxes.items()}
    image = mix(tensor(case, "img_u_s1"), tensor(case, "img_u_s1_partner"), boxes[1])
    terms = {
        "loss_x": supervised_loss(logits["x"], tensor(case, "y")),
        **{f"L_s{n}": dice_loss(logits[f"s{n}"], mix(sure, other_sure, b)) for n, b in boxes.items()},
        "L_fp": dice_loss(logits["fp"], sure),
    }
    loss = 0.5 * (terms["loss_x"] + 0.25 * terms["L_s1"] + 0.25 * terms["L_s2"] + 0.5 * terms["L_fp"])
    errors |= {"img_mixed1": exact(image, case["img_mixed1"]), "loss": value(loss, case["loss"])}
    return errors | {n: value(t, case[n]) for n, t in terms.items()} | _gradients(case, loss, logits)


def check_v1_natural(case: Arrays) -> Errors:
    """One step of the recipe for natural images: cross-entropy divided by valid pixels."""
    logits, tau = _logits(case, "x", "s1", "s2", "fp"), float(case["tau"])
    pairs = [
        (tensor(case, "logits_w"), tensor(case, "ignore")),
        (tensor(case, "partner_logits"), tensor(case, "ignore_partner")),
    ]
    label, other = (hard_label(*p) for p in pairs)
    sure, other_sure = (confident_label(*p, tau) for p in pairs)

    def term(z: Tensor, target: Tensor, confident: Tensor) -> Tensor:
        return confident_cross_entropy(z, target, confident != IGNORE, target)

    terms = {"L_x": cross_entropy(logits["x"], tensor(case, "y"))}
    for n in (1, 2):
        box = tensor(case, f"box{n}").bool()
        terms[f"L_s{n}"] = term(logits[f"s{n}"], mix(label, other, box), mix(sure, other_sure, box))
    terms["L_fp"] = term(logits["fp"], label, sure)
    loss = 0.5 * (terms["L_x"] + 0.25 * terms["L_s1"] + 0.25 * terms["L_s2"] + 0.5 * terms["L_fp"])
    errors = {n: value(t, case[n]) for n, t in terms.items()} | {"loss": value(loss, case["loss"])}
    return errors | _gradients(case, loss, logits)


def check_box(case: Arrays) -> Errors:
    """Boxes of ours in the recorded ranges: share of those outside, one pixel allowed for rounding."""
    size, outside = int(case["size"]), 0
    masks = cutmix_masks(200, (size, size), 1.0, np.random.default_rng(0))
    for mask in masks.numpy():
        height, width = (int(mask.any(axis).sum()) for axis in (1, 0))
        small = (height + 1) * (width + 1) >= float(case["area_min"]) * size**2
        large = height * width <= float(case["area_max"]) * size**2
        steep = (height + 1) / width >= float(case["aspect_min"]) and height / (width + 1) <= float(case["aspect_max"])
        outside += not (small and large and steep)
    return {"share of boxes outside the ranges": (outside / len(masks), 0.0)}


def check_ema(case: Arrays) -> Errors:
    """The teacher after the warm updates, buffers too."""
    return {
        f"t = {t}": check_average(case, (f"t{t}_student_", f"t{t}_before_", f"t{t}_after_"), t, warm=True, buffers=True)
        for t in (0, 1, 5, 248, 249, 5000)
    }


CHECKERS: dict[str, Check] = {
    "unimatch/fixmatch_step": check_fixmatch,
    "unimatch/v2_step": check_v2,
    "unimatch/v1_acdc": check_v1_acdc,
    "unimatch/v1_natural": check_v1_natural,
    "unimatch/cutmix_box": check_box,
    "unimatch/ema": check_ema,
}
LEFT_OUT = {"unimatch/v2_comp_drop": "complementary dropout belongs to UniMatch V2, which is no method of this app"}
