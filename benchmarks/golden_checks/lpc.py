"""LPC: the contrast with the recorded anchors, both ways of division, and the Dice."""

from __future__ import annotations

import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, gradient, tensor, value

from lib.core.local_contrast import anchored_sums, class_means, joined
from lib.core.losses import image_dice


def check_contrast(case: Arrays) -> Errors:
    """Sums of the pairs, both losses, and the gradients of both."""
    z = [tensor(case, f"z{n}", grad=True) for n in (1, 2)]
    classes, width = range(1, int(case["classes"])), case["z1"].shape[-1]
    sides = []
    for n, vectors in zip((1, 2), z, strict=True):
        masks = torch.stack([tensor(case, f"y{n}").flatten(1) == c for c in classes], 1)
        place = tensor(case, f"anchors{n}").long()
        index = (place[..., 0] * width + place[..., 1]).clamp(min=0).flatten(1)
        flat = vectors.flatten(2)
        anchors = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).unflatten(2, place.shape[1:3])
        sides.append((anchors.permute(0, 2, 3, 1), *class_means(flat, masks)))
    sums = anchored_sums(*sides, temperature=float(case["temperature"]))
    errors = {"pair_sum": value(sums, case["pair_sum"])}
    for form, division in (("spec", "mean"), ("published", "cumulative")):
        loss = joined(sums, int(case["divisor"]), division)
        errors[f"loss_{form}"] = value(loss, case[f"loss_{form}"])
        for n, grad in zip((1, 2), torch.autograd.grad(loss, z, retain_graph=True), strict=True):
            errors[f"grad_z{n}_{form}"] = gradient(grad, case[f"grad_z{n}_{form}"])
    return errors


def check_dice(case: Arrays) -> Errors:
    """The segmentation loss."""
    logits = tensor(case, "logits", grad=True)
    loss = image_dice(logits, tensor(case, "y"))
    (grad,) = torch.autograd.grad(loss, logits)
    return {"loss": value(loss, case["loss"]), "grad": gradient(grad, case["grad_logits"])}


CHECKERS: dict[str, Check] = {
    **{f"lpc/contrast_{n}": check_contrast for n in ("inter", "missing", "same", "ten")},
    "lpc/dice": check_dice,
}
LEFT_OUT = {
    "lpc/contrast_intra": "only the proposed contrast between images is implemented",
    "lpc/pairs": "batches have other sizes here; the pairs are images with their strong view, with each other and across labels",
}
