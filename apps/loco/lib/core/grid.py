"""The working grid: where a study of any orientation, spacing and size is seen by the network, and the way back.

Volumes are turned to RAS axes (slice: the thick axis last), resampled so that the field of view stays exactly the same, and
every result returns to the native voxel grid by the inverse steps. Pictures are only scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from lib.core.spec import DataSpec


@dataclass(frozen=True)
class Grid:
    """How one study was brought to the working grid.

    `axes[i]` is the native axis that became working axis i, `flips[i]` says whether it was reversed.
    """

    native_shape: tuple[int, ...]
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    working_shape: tuple[int, ...]
    spacing: tuple[float, ...]
    """mm per working axis; pixels (1.0) for pictures without physical size."""


def working_grid(shape: tuple[int, ...], affine: np.ndarray | None, data: DataSpec) -> Grid:
    """Plan the working grid of a study of spatial `shape` (2 or 3 numbers) with voxel-to-RAS `affine` (4 x 4, mm)."""
    if data.kind == "frame":
        return _frame_grid(shape, data.size)
    if len(shape) == 2:
        shape = (*shape, 1)
    affine = np.eye(4) if affine is None else affine
    orientation = nib.orientations.io_orientation(affine).astype(float)
    axes = [int(np.flatnonzero(orientation[:, 0] == ras)[0]) for ras in range(3)]
    native_spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if data.kind == "slice":
        axes = _thick_axis_last(axes, shape, native_spacing)
    flips = tuple(bool(orientation[a, 1] < 0) for a in axes)
    extent = [shape[a] * float(native_spacing[a]) for a in axes]
    target = [*data.spacing[:2], float(native_spacing[axes[2]])] if data.kind == "slice" else list(data.spacing)
    working = tuple(max(1, round(e / t)) for e, t in zip(extent, target, strict=True))
    if data.kind == "slice" and max(working[:2]) > data.size:
        scale = data.size / max(working[:2])
        working = (max(1, round(working[0] * scale)), max(1, round(working[1] * scale)), working[2])
    spacing = tuple(e / n for e, n in zip(extent, working, strict=True))
    return Grid(tuple(shape), tuple(axes), flips, working, spacing)


def to_working(array: Tensor, grid: Grid, nearest: bool) -> Tensor:
    """Bring `C X Y [Z]` (native) to the working grid `C *working_shape`; `nearest` for label maps keeps their values."""
    array = array.reshape(array.shape[0], *grid.native_shape)
    spare = [i for i in range(len(grid.native_shape)) if i not in grid.axes]
    for axis in reversed(spare):
        array = array.select(axis + 1, 0)
    order = [a - sum(s < a for s in spare) for a in grid.axes]
    array = array.permute(0, *(o + 1 for o in order))
    array = array.flip([i + 1 for i, f in enumerate(grid.flips) if f])
    return _resample(array, grid.working_shape, nearest)


def to_native(array: Tensor, grid: Grid, nearest: bool) -> Tensor:
    """Inverse of `to_working`: `C *working_shape` to `C *native_shape`."""
    spare = [i for i in range(len(grid.native_shape)) if i not in grid.axes]
    size = tuple(grid.native_shape[a] for a in grid.axes)
    array = _resample(array, size, nearest)
    array = array.flip([i + 1 for i, f in enumerate(grid.flips) if f])
    array = array.permute(0, *(int(i) + 1 for i in np.argsort(grid.axes)))
    for axis in spare:
        array = array.unsqueeze(axis + 1)
    return array.contiguous()


def _frame_grid(shape: tuple[int, ...], size: int) -> Grid:
    axes = (0, 1) if len(shape) == 2 else tuple(sorted(sorted(range(3), key=lambda a: (-shape[a], a))[:2]))
    plane = tuple(shape[a] for a in axes)
    scale = min(1.0, size / max(plane))
    working = tuple(max(1, round(n * scale)) for n in plane)
    return Grid(tuple(shape), axes, (False, False), working, (1.0, 1.0))


def _thick_axis_last(axes: list[int], shape: tuple[int, ...], spacing: np.ndarray) -> list[int]:
    """Put the through-plane axis last: the largest spacing, or the fewest voxels when the spacings are alike."""
    alike = float(max(spacing)) < 1.5 * float(min(spacing))
    thick = min(range(3), key=lambda a: (shape[a], -a)) if alike else int(np.argmax(spacing))
    return [a for a in axes if a != thick] + [thick]


def _resample(array: Tensor, size: tuple[int, ...], nearest: bool) -> Tensor:
    if tuple(array.shape[1:]) == tuple(size):
        return array.contiguous()
    if nearest:
        return F.interpolate(array[None].float(), size=size, mode="nearest-exact")[0].to(array.dtype)
    array = array.float()
    if len(size) == 3 and array.shape[3] == size[2]:
        slices = array.permute(3, 0, 1, 2)
        return _plane(slices, size[:2]).permute(1, 2, 3, 0).contiguous()
    if len(size) == 2:
        return _plane(array[None], size)[0]
    return F.interpolate(array[None], size=size, mode="trilinear")[0]


def _plane(batch: Tensor, size: tuple[int, ...]) -> Tensor:
    shrinks = size[0] < batch.shape[2] or size[1] < batch.shape[3]
    return F.interpolate(batch, size=tuple(size), mode="bilinear", antialias=shrinks)
