"""CutMix boxes: rectangles (2D) or cuboids (3D) in which one image is pasted into another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def cutmix_masks(
    count: int,
    shape: tuple[int, ...],
    probability: float,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 0.4),
) -> Tensor:
    """One box per image, as LoCo and UniMatch draw them.

    With `probability` an image gets a box of U(0.02, 0.4) of the crop's area and aspect ratio U(0.3, 1/0.3), redrawn until
    it fits. In 3D the third side has the box's mean relative length.

    Args:
        count: number of images B.
        shape: H W [D] of the crop.
        probability: of an image having a box.
        rng: source of randomness.
        area: smallest and largest share of the crop.

    Returns:
        Bool `B H W [D]`, True inside the box.
    """
    masks = torch.zeros((count, *shape), dtype=torch.bool)
    for mask in masks:
        if rng.random() < probability:
            mask[_box(shape, rng, area)] = True
    return masks


def _box(shape: tuple[int, ...], rng: np.random.Generator, area: tuple[float, float]) -> tuple[slice, ...]:
    while True:
        share, ratio = rng.uniform(*area), rng.uniform(0.3, 1 / 0.3)
        plane = share if len(shape) == 2 else share ** (2 / 3)
        sides = [np.sqrt(plane / ratio), np.sqrt(plane * ratio)]
        if len(shape) == 3:
            sides.append(np.sqrt(plane))
        lengths = [int(s * np.sqrt(shape[0] * shape[1])) if i < 2 else int(s * shape[2]) for i, s in enumerate(sides)]
        if all(0 < n <= full for n, full in zip(lengths, shape, strict=True)):
            corner = [int(rng.integers(0, full - n + 1)) for n, full in zip(lengths, shape, strict=True)]
            return tuple(slice(c, c + n) for c, n in zip(corner, lengths, strict=True))
