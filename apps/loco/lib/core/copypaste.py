"""Bidirectional copy-paste: two images exchange a region, and a loss looks at each region with its own weight."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.core.losses import PixelLoss, cross_entropy, dice_loss
from lib.core.spec import IGNORE


def hole_mask(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> Tensor:
    """Bool `H W [D]`, False in one box of `floor(share * side)` pixels along each side, at a random place (BCP)."""
    mask = torch.ones(shape, dtype=torch.bool)
    sides = [int(n * share) for n in shape]
    corner = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, sides, strict=True)]
    mask[tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))] = False
    return mask


def block_masks(count: int, shape: tuple[int, ...], side: int, ratio: float, rng: np.random.Generator) -> Tensor:
    """Bool `B H W [D]`: the image in `side` blocks along each axis, of which floor(ratio * blocks) are False (M3HL).

    Each image has a choice of its own.
    """
    blocks = side ** len(shape)
    grids = torch.ones((count, blocks), dtype=torch.bool)
    for grid in grids:
        grid[torch.from_numpy(rng.permutation(blocks)[: int(ratio * blocks)])] = False
    masks = grids.view(count, *[side] * len(shape))
    for axis, n in enumerate(shape, start=1):
        masks = masks.index_select(axis, torch.arange(n) * side // n)
    return masks


def halves(count: int) -> tuple[Tensor, Tensor]:
    """Positions of the first and of the second half of a batch; of an odd one both hold the middle image.

    >>> halves(4), halves(1)
    ((tensor([0, 1]), tensor([2, 3])), (tensor([0]), tensor([0])))
    """
    half = (count + 1) // 2
    return torch.arange(half), torch.arange(count - half, count)


def cycled(positions: Tensor, length: int) -> Tensor:
    """`positions`, repeated to `length`."""
    return positions[torch.arange(length) % len(positions)]


def paste(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """`inside` where the mask is True: images `B C H W [D]` with a mask `[B] H W [D]`."""
    return torch.where(mask if mask.ndim == inside.ndim - 2 else mask.unsqueeze(1), inside, outside)


def region_loss(logits: Tensor, label: Tensor) -> Tensor:
    """`0.5 CE + 0.5 DICE` of BCP, whose Dice has eps 1e-10 in 2D: a class that a region lacks should not appear in it."""
    return 0.5 * (cross_entropy(logits, label) + dice_loss(logits, label, 1e-10 if logits.ndim == 4 else 1e-5))


def region_losses(
    logits: Tensor, inside: Tensor, outside: Tensor, mask: Tensor, sup: PixelLoss = region_loss
) -> tuple[Tensor, Tensor]:
    """A loss inside the mask and outside it, each with the means and sums of its region alone.

    Args:
        logits: `B K H W [D]` of the mixture.
        inside: labels `B H W [D]` that hold where `mask` is True, 255 ignored.
        outside: labels that hold elsewhere.
        mask: bool `[B] H W [D]`.
        sup: the loss.

    Returns:
        Two scalars; that of an empty region is 0.
    """
    return (
        sup(logits, inside.masked_fill(~mask, IGNORE)),
        sup(logits, outside.masked_fill(mask, IGNORE)),
    )
