"""Which images cannot be judged: blurred, over-exposed, or showing next to nothing (active-learning specification 6.5).

A model is unsure of such images whatever is in them, so a strategy that asks for what is uncertain would serve them first.
They are kept out of the ranking and come when nothing else is left. What an image measures depends on the modality, so it is
compared with the others of its pool.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.core.pool import Pool

STRATUM = "quality"
"""Terms are stored as `quality/sharpness`, `quality/saturated` and `quality/lit`."""
_SATURATED = 0.98
_HALF = 0.5
_DARK = 0.05
_LEAST_IMAGES = 20
"""In a smaller pool nothing is unusual."""
_MOST = 0.2
"""What more than this part of a pool shows is how these images look, and no defect."""
_TIMES, _DEVIATIONS = 4.0, 5.0


def quality_terms(image: Tensor, field: Tensor) -> dict[str, float]:
    """How well an image can be judged, whatever it shows.

    Args:
        image: working image `C H W [D]` in [0, 1].
        field: field of view, bool `H W [D]`, from `field_of_view`.

    Returns:
        `sharpness`: variance of the Laplacian over the mean squared gradient, both within slices and inside the field of
        view: the mean squared spatial frequency, which blur lowers and contrast leaves as it is; 0 where all is one value.
        `saturated`: share of the field of view at the highest intensity. `lit`: share of the image that is inside the field
        of view and not black.
    """
    grey = image.float().mean(dim=0)
    inside = field.bool()
    terms = {
        f"{STRATUM}/saturated": float((grey >= _SATURATED)[inside].float().mean()) if bool(inside.any()) else 0.0,
        f"{STRATUM}/lit": float((inside & (grey > _DARK)).float().mean()),
    }
    down, right = grey[1:, :-1] - grey[:-1, :-1], grey[:-1, 1:] - grey[:-1, :-1]
    pairs = inside[1:, :-1] & inside[:-1, 1:] & inside[:-1, :-1]
    core, around = grey[1:-1, 1:-1], (grey[2:, 1:-1], grey[:-2, 1:-1], grey[1:-1, 2:], grey[1:-1, :-2])
    crosses = inside[1:-1, 1:-1] & inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
    slope, curve = (down**2 + right**2)[pairs], (sum(around) - 4 * core)[crosses]
    steep = float(slope.mean()) if slope.numel() else 0.0
    known = steep > torch.finfo(torch.float32).tiny and curve.numel() > 1
    return terms | {f"{STRATUM}/sharpness": float(curve.var()) / steep if known else 0.0}


def unfit(pool: Pool) -> dict[int, str]:
    """Places of the images that can hardly be judged, each with what is wrong; the same for all strategies.

    Blurred: a sharpness at least 4 times below the median and 5 robust deviations (1.4826 MAD, of the logarithm) from it.
    Over-exposed: more than half of the field of view is at the highest intensity. Next to nothing to see: less than a quarter
    of the median is lit. A defect that more than a fifth of the pool has, and any in a pool of less than 20 images, is none.
    """
    columns = pool.stratum(STRATUM)
    rules = {
        "saturated": (_mostly, "over-exposed"),
        "lit": (_few, "next to nothing to see"),
        "sharpness": (_far_below, "blurred"),
    }
    found: dict[int, str] = {}
    for name, (rule, what) in rules.items():
        column = columns.get(name, np.zeros(0))
        known = np.flatnonzero(np.isfinite(column))
        if len(known) < _LEAST_IMAGES:
            continue
        wrong = known[rule(column[known].astype(np.float64))]
        if len(wrong) <= _MOST * len(known):
            found |= {int(i): what for i in wrong if int(i) not in found}
    return found


def _far_below(sharpness: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(sharpness, 1e-12))
    depth = np.median(logs) - logs
    deviation = 1.4826 * np.median(np.abs(depth))
    return (depth >= np.log(_TIMES)) & (depth >= _DEVIATIONS * deviation)


def _mostly(saturated: np.ndarray) -> np.ndarray:
    return saturated > _HALF


def _few(lit: np.ndarray) -> np.ndarray:
    return lit < np.median(lit) / 4
