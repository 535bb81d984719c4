"""Contrast of pixels with the class means of pairs of images (LPC, arXiv 2112.09645), 2D and 3D."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.losses import in_float32
from lib.core.spec import IGNORE
from lib.core.spec_methods import LPCSpec

_NEAR = 5
"""Background within so many pixels of the projection around the object: 20 pixels of the image at stride 4."""


def contrast_classes(classes: int) -> list[int]:
    """The classes that are compared: all but the background, which only joins a single class of object (ours).

    >>> contrast_classes(4), contrast_classes(2)
    ([1, 2, 3], [0, 1])
    """
    return list(range(1, classes)) if classes > 2 else [0, 1]


@in_float32
def pair_sums(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, classes: int, spec: LPCSpec, generator: torch.Generator
) -> Tensor:
    """Undivided loss of each pair, (n), with anchors drawn at random, with replacement.

    Args:
        z1: projections of the first images, `n P h w [d]`, of any length.
        z2: those of the second images.
        y1: labels of the first images, `n h w [d]`, 255 ignored.
        y2: labels of the second images.
        classes: number of classes with the background.
        spec: temperature and number of anchors.
        generator: source of the anchors.
    """
    compared = contrast_classes(classes)
    sides = []
    for z, y in ((z1, y1), (z2, y2)):
        z, y = z.flatten(2), (y if classes > 2 else near_object(y)).flatten(1)
        masks = torch.stack([y == c for c in compared], 1)
        weight = masks.float() + torch.finfo(torch.float32).tiny * ~masks.any(-1, keepdim=True)
        index = torch.multinomial(weight.flatten(0, 1), spec.anchors, replacement=True, generator=generator)
        index = index.view(len(z), 1, -1).expand(-1, z.shape[1], -1)
        anchors = z.gather(2, index).unflatten(2, (len(compared), spec.anchors)).permute(0, 2, 3, 1)
        sides.append((anchors, *class_means(z, masks)))
    return anchored_sums(*sides, temperature=spec.temperature)


def class_means(z: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean vector of each class in each image, `n K P`, and whether the class is there, bool `n K`.

    `z`: `n P N`; `masks`: bool `n K N`.
    """
    counts = masks.sum(-1)
    return masks.to(z.dtype) @ z.mT / counts.clamp(min=1).unsqueeze(-1), counts > 0


Side = tuple[Tensor, Tensor, Tensor]
"""Of the first or second images of n pairs: anchors `n K A P`, means `n K P`, and which classes are there, bool `n K`."""


def anchored_sums(first: Side, second: Side, *, temperature: float) -> Tensor:
    """Sum over classes, anchors and images of the four terms of each pair, (n).

    A class that one of the images lacks gives no term; the other image's mean of it stays in the denominators.
    """
    means = F.normalize(torch.cat([first[1], second[1]], 1), dim=-1)
    there = torch.cat([first[2], second[2]], 1)
    shared = first[2] & second[2]
    count = shared.shape[1]
    total = torch.zeros(len(means), device=means.device)
    for anchors, _, _ in (first, second):
        s = torch.einsum("nkap,nmp->nkam", F.normalize(anchors, dim=-1), means) / temperature
        denominator = s.masked_fill(~there[:, None, None], -1e30).logsumexp(-1)
        own = torch.arange(count, device=s.device)
        numerator = s[:, own, :, own] + s[:, own, :, own + count]
        terms = 2 * denominator - numerator.movedim(0, 1)
        total = total + (terms * shared.unsqueeze(-1)).sum((1, 2))
    return total


def joined(sums: Tensor, divisor: int, division: Literal["mean", "cumulative"]) -> Tensor:
    """Mean of sum / divisor over the pairs with a class in common; the sum of any other pair is 0.

    The released code divides again at each pair (`cumulative`), a mistake.

    >>> joined(torch.tensor([6.0, 12.0]), 6, "mean"), joined(torch.tensor([6.0, 12.0]), 6, "cumulative")
    (tensor(1.5000), tensor(1.0833))
    """
    if division == "mean":
        return sums.sum() / (sums > 0).sum().clamp(min=1) / divisor
    total = sums.new_zeros(())
    for pair in sums:
        total = (total + pair) / divisor
    return total / len(sums)


def near_object(label: Tensor) -> Tensor:
    """255 on background further than 5 pixels from the object; an image without object keeps all of it."""
    pool = F.max_pool2d if label.ndim == 3 else F.max_pool3d
    near = pool((label == 1).float().unsqueeze(1), 2 * _NEAR + 1, stride=1, padding=_NEAR).squeeze(1) > 0
    empty = ~near.flatten(1).any(1).view(-1, *[1] * (label.ndim - 1))
    return label.masked_fill((label == 0) & ~(near | empty), IGNORE)
