"""What can be said of an image before there is a model: what it looks like, and how much contrast it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_THUMBNAIL = 16
_GRID = 16
_DARK = 0.05
"""Black corners, masks and air are outside the field of view."""


@dataclass(frozen=True)
class Appearance:
    """`embedding` float32 of unit length for coverage; `contrast` and `gradient` in [0, 1], high = strong contrast."""

    embedding: np.ndarray
    contrast: float
    gradient: float


def appearance(image: Tensor) -> Appearance:
    """Describe a working image `C H W [D]` in [0, 1] by a small thumbnail, its intensity and its gradient histogram.

    Contrast is the median over a 16 x 16 grid of local RMS contrast (std / mean) inside the field of view, gradient the 90th
    percentile of its size there; a flat image gives 0 and 0. Of a volume the middle slice is described. Source:
    active-learning specification 6.7.
    """
    plane = image if image.ndim == 3 else image[..., image.shape[-1] // 2]
    grey = plane.mean(dim=0, keepdim=True)
    thumbnail = F.interpolate(plane[None], size=(_THUMBNAIL, _THUMBNAIL), mode="bilinear", antialias=True)[0].flatten()
    gradient = torch.cat([grey.diff(dim=1).abs().flatten(), grey.diff(dim=2).abs().flatten()])
    parts = [
        thumbnail - thumbnail.mean(),
        torch.histc(grey, bins=16, min=0, max=1) / grey.numel(),
        torch.histc(gradient, bins=16, min=0, max=0.5) / max(1, gradient.numel()),
    ]
    vector = torch.cat([F.normalize(p, dim=0) for p in parts])
    embedding = F.normalize(vector, dim=0).numpy().astype(np.float32)
    return Appearance(embedding, _local_contrast(grey), _steepness(grey))


def _local_contrast(grey: Tensor) -> float:
    """Median of std / mean over the cells of the field of view, clipped to [0, 1]; `1 H W`."""
    size = (_GRID, _GRID)
    mean = F.adaptive_avg_pool2d(grey[None], size)
    variance = (F.adaptive_avg_pool2d(grey[None] ** 2, size) - mean**2).clamp(min=0)
    inside = mean > _DARK
    if not bool(inside.any()):
        return 0.0
    return float((variance.sqrt() / mean.clamp(min=1e-6))[inside].median().clamp(0, 1))


def _steepness(grey: Tensor) -> float:
    """90th percentile of the length of the gradient in the field of view, clipped to [0, 1]; `1 H W`."""
    plane = grey[0].numpy()
    down, right = np.diff(plane, axis=0)[:, :-1], np.diff(plane, axis=1)[:-1]
    lit = plane > _DARK
    length = np.hypot(down, right)[lit[:-1, :-1] & lit[1:, :-1] & lit[:-1, 1:]]
    return float(np.clip(np.percentile(length, 90), 0, 1)) if length.size else 0.0
