"""Unsure regions, and sure boxes to put in their place (CAD, after ABD). Maps are `H W`, boxes pairs of slices."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

Box = tuple[slice, slice]
_COARSE = 4
"""Components are looked for at a quarter of the resolution."""


def unsure_box(confidence: Tensor, threshold: float, cap: float, smallest: int = 16) -> Box | None:
    """Box around the largest connected region below the threshold, cut to a cap around its least confident point.

    Args:
        confidence: `H W` in [0, 1].
        threshold: below it a pixel is unsure.
        cap: longest side as a share of the image's.
        smallest: regions of fewer pixels are left alone.
    """
    height, width = confidence.shape
    coarse = F.avg_pool2d(confidence[None, None], _COARSE, ceil_mode=True)[0, 0].cpu().numpy()
    pieces, count = ndimage.label(coarse < threshold, np.ones((3, 3)))
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    if sizes.max() * _COARSE**2 < smallest:
        return None
    region = pieces == sizes.argmax() + 1
    worst = np.unravel_index(np.where(region, coarse, np.inf).argmin(), coarse.shape)
    box = []
    for axis, full in enumerate((height, width)):
        extent = np.flatnonzero(region.any(axis=1 - axis)) * _COARSE
        start, stop = int(extent[0]), min(int(extent[-1]) + _COARSE, full)
        limit = max(1, int(cap * full))
        if stop - start > limit:
            start = int(np.clip(worst[axis] * _COARSE - limit // 2, start, stop - limit))
            stop = start + limit
        box.append(slice(start, stop))
    return box[0], box[1]


def donor_box(probs: Tensor, target: Tensor, size: tuple[int, int], stride: int = 8, candidates: int = 4) -> Box:
    """Among the most confident boxes of a size the one whose classes are most like those of the region it replaces.

    Args:
        probs: `K H W` of the donor.
        target: mean class distribution `K` of the region.
        size: of the box.
        stride: of the grid of boxes.
        candidates: how many of the most confident are compared, by the Kullback-Leibler divergence.
    """
    stride = min(stride, *size)
    confidence = F.avg_pool2d(probs.amax(dim=0)[None, None], size, stride)[0, 0]
    classes = F.avg_pool2d(probs[None], size, stride)[0].flatten(1).clamp(min=1e-8)
    best = confidence.flatten().topk(min(candidates, confidence.numel())).indices
    target = target.clamp(min=1e-8)
    divergence = (target[:, None] * (target[:, None].log() - classes[:, best].log())).sum(dim=0)
    chosen = int(best[divergence.argmin()])
    row, column = divmod(chosen, confidence.shape[1])
    return slice(row * stride, row * stride + size[0]), slice(column * stride, column * stride + size[1])


def mean_classes(probs: Tensor, box: Box) -> Tensor:
    """Mean class distribution `K` of `K H W` in a box."""
    return probs[:, box[0], box[1]].mean(dim=(1, 2))


def escalated(start: float, end: float, progress: float) -> float:
    """Linear from `start` to `end` over the run.

    >>> escalated(0.6, 1.0, 0.5)
    0.8
    """
    return float(torch.lerp(torch.tensor(start), torch.tensor(end), min(max(progress, 0.0), 1.0)))
