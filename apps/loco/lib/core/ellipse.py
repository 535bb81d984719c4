"""Ellipses of pseudo-labels (ERSR, arXiv 2508.19815). Coordinates are (x, y) = (column, row)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lib.core.grid import to_working, working_grid
from lib.core.images import CaseError, class_indices, read_label
from lib.core.spec import DataSpec

_STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""The eight neighbours, clockwise on a screen, as (dx, dy)."""


@dataclass(frozen=True)
class Ellipse:
    """`centre` (x, y), full `axes` (shorter, longer) in pixels, `angle` of the shorter one from x towards y, in radians."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    angle: float

    def level(self, height: int, width: int) -> np.ndarray:
        """`rho = (2u/d1)^2 + (2v/d2)^2` per pixel, float64 `H W`: at most 1 inside."""
        x, y = np.meshgrid(np.arange(width) - self.centre[0], np.arange(height) - self.centre[1])
        u, v = x * np.cos(self.angle) + y * np.sin(self.angle), y * np.cos(self.angle) - x * np.sin(self.angle)
        return (2 * u / self.axes[0]) ** 2 + (2 * v / self.axes[1]) ** 2


def ellipse_of(prob: np.ndarray, threshold: float) -> Ellipse | None:
    """Least-squares ellipse of the outer contour of the largest piece above the threshold.

    None with fewer than 5 corners, and where what was fitted is no object of the image (a crescent or a few pixels): its centre
    lies outside, or it is longer than the image's diagonal.

    Args:
        prob: `H W` in [0, 1], cut to 8 bits as in the published code.
        threshold: of the probability.
    """
    pieces, count = ndimage.label(np.floor(255 * prob) > round(255 * threshold), np.ones((3, 3)))
    if count == 0:
        return None
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1
    points = corners(outer_contour(pieces == largest))
    found = fit_ellipse(points) if len(points) >= 5 else None
    return found if found is not None and _lies_in(found, *prob.shape) else None


def likeness(mask: np.ndarray) -> float:
    """Intersection over union of a bool mask `H W` and the ellipse of its largest piece; 0 without one."""
    ellipse = ellipse_of(mask.astype(np.float32), 0.5)
    if ellipse is None:
        return 0.0
    inside = ellipse.level(*mask.shape) <= 1
    return float((inside & mask).sum() / (inside | mask).sum())


def likenesses(paths: Iterable[str], data: DataSpec) -> list[float]:
    """`likeness` of the object of each label file, on the working grid; of a volume in the middle one of its slices.

    Empty labels are left out, and those that cannot be read, of which the training tells.
    """
    found = []
    for path in paths:
        try:
            label = read_label(path)
            values = class_indices(label.array, 2, path)
        except CaseError:
            continue
        grid = working_grid(tuple(values.shape[1:]), label.affine, data)
        mask = to_working(values, grid, nearest=True)[0].numpy() == 1
        planes = [m for m in (np.moveaxis(mask, 2, 0) if mask.ndim == 3 else [mask]) if m.any()]
        found += [likeness(m) for m in planes[len(planes) // 2 :][:1]]
    return found


def _lies_in(ellipse: Ellipse, height: int, width: int) -> bool:
    (x, y), longest = ellipse.centre, ellipse.axes[1]
    return 0 <= x < width and 0 <= y < height and longest <= np.hypot(height, width)


def outer_contour(mask: np.ndarray) -> np.ndarray:
    """Border pixels of one connected piece, `N 2` (x, y), in order around it (Moore's neighbour tracing)."""
    rows, columns = np.nonzero(mask)
    start = (int(columns[0]), int(rows[0]))
    padded = np.pad(mask, 1)

    def following(here: tuple[int, int], came: int) -> tuple[tuple[int, int], int] | None:
        for turn in range(8):
            step = (came + 6 + turn) % 8  # first the neighbour after the one that was looked at last
            x, y = here[0] + _STEPS[step][0], here[1] + _STEPS[step][1]
            if padded[y + 1, x + 1]:
                return (x, y), step
        return None

    found = following(start, 0)
    if found is None:
        return np.array([start])
    path, first = [start], found
    while True:
        path.append(found[0])
        found = following(*found)
        if path[-1] == start and found == first:
            return np.array(path[:-1])


def corners(path: np.ndarray) -> np.ndarray:
    """Points of a closed path at which its direction changes."""
    arriving = path - np.roll(path, 1, axis=0)
    leaving = np.roll(path, -1, axis=0) - path
    return path[(arriving != leaving).any(axis=1)]


def fit_ellipse(points: np.ndarray) -> Ellipse:
    """Least-squares ellipse of at least 5 points `N 2`: a general conic gives the centre, then one around it the axes."""
    scale = 100.0  # of the right side; the published solver scales alike, which matters for its rounding only
    shift = points.mean(axis=0)
    x, y = (points - shift).astype(np.float64).T
    a, b, c, d, e = np.linalg.lstsq(np.stack([-x * x, -y * y, -x * y, x, y], 1), np.full(len(x), scale), rcond=None)[0]
    cx, cy = np.linalg.lstsq(np.array([[2 * a, c], [c, 2 * b]]), np.array([d, e]), rcond=None)[0]
    x, y = x - cx, y - cy
    a, b, c = np.linalg.lstsq(np.stack([x * x, y * y, x * y], 1), np.ones(len(x)), rcond=None)[0]
    angle = -0.5 * np.arctan2(c, b - a)
    spread = c / np.sin(-2 * angle) if abs(c) > 1e-8 else b - a
    first, second = (2 * np.sqrt(2 / max(abs(a + b + sign * spread), 1e-12)) for sign in (-1, 1))
    if first > second:
        first, second, angle = second, first, angle + np.pi / 2
    return Ellipse((float(cx + shift[0]), float(cy + shift[1])), (float(first), float(second)), float(angle))


def refined(prob: np.ndarray, level: np.ndarray, threshold: float) -> np.ndarray:
    """`max(P, min(1, threshold + (1 - rho)^2))` inside the ellipse, `P exp(-0.5 (rho - 1))` outside it."""
    inside = np.maximum(prob, np.minimum(1, threshold + (1 - level) ** 2))
    return np.where(level <= 1, inside, prob * np.exp(-0.5 * (level - 1)))
