"""Frames of a DICOM SEG: where each lies, and how it is drawn onto the planes of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from lib.core.images import CaseError
from lib.server.series import Grid, Plane, group_of, planes_of

_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
_PARALLEL = 1e-3


@dataclass(frozen=True)
class SegFrame:
    """One frame of a SEG: where it lies, what it refers to, and its mask, rows x columns."""

    plane: Plane
    sources: tuple[tuple[str, int], ...]
    """Instance and frame (0: the only one)."""
    mask: np.ndarray


def frames_by_segment(seg: Dataset, name: str) -> dict[int, list[SegFrame]]:
    """Frames by segment number."""
    if "PixelData" not in seg or int(seg.get("NumberOfFrames") or 1) < 1:
        return {}
    try:
        pixels = seg.pixel_array.reshape(-1, int(seg.Rows), int(seg.Columns))
    except Exception as e:
        raise CaseError(name, f"expected pixels, but they cannot be read ({e}); store it again uncompressed") from e
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    own = seg.get("PerFrameFunctionalGroupsSequence") or []
    alone = _only_source(seg)
    result: dict[int, list[SegFrame]] = {}
    for index, (plane, values) in enumerate(zip(planes_of([seg]), pixels, strict=True)):
        groups = own[index] if index < len(own) else Dataset()
        sources = _sources(groups, shared) or alone
        for number, mask in _masks(seg, groups, shared, values):
            result.setdefault(number, []).append(SegFrame(plane, sources, mask))
    return result


def _masks(seg: Dataset, own: Dataset, shared: Dataset, values: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Segment numbers of one frame and their masks."""
    if str(seg.get("SOPClassUID", "")) == _LABELMAP or str(seg.get("SegmentationType", "")) == "LABELMAP":
        return [(int(v), values == v) for v in np.unique(values) if v] or [(0, np.zeros(values.shape, bool))]
    item = group_of(own, shared, "SegmentIdentificationSequence")
    number = int(item.ReferencedSegmentNumber) if item is not None else 1
    half = float(seg.get("MaximumFractionalValue") or 255) / 2 if seg.get("SegmentationType") == "FRACTIONAL" else 0
    return [(number, values > half)]


def _sources(own: Dataset, shared: Dataset) -> tuple[tuple[str, int], ...]:
    derivation = group_of(own, shared, "DerivationImageSequence") or Dataset()
    found = []
    for source in derivation.get("SourceImageSequence") or []:
        frames = source.get("ReferencedFrameNumber") or 0
        for frame in [frames] if isinstance(frames, (int, str)) else frames:
            found.append((str(source.ReferencedSOPInstanceUID), int(frame)))
    return tuple(found)


def _only_source(seg: Dataset) -> tuple[tuple[str, int], ...]:
    """The one instance that a SEG was drawn on, for writers that name it for the whole and not for each frame."""
    series = seg.get("ReferencedSeriesSequence") or []
    instances = [str(i.ReferencedSOPInstanceUID) for s in series for i in s.get("ReferencedInstanceSequence") or []]
    return ((instances[0], 0),) if len(instances) == 1 else ()


def by_geometry(frames: list[SegFrame]) -> list[list[SegFrame]]:
    """Frames that lie parallel, in one list each; those without a position each alone."""
    groups: list[list[SegFrame]] = []
    for frame in frames:
        if frame.plane.placed:
            for group in groups:
                if group[0].plane.placed and _parallel(group[0].plane, frame.plane):
                    group.append(frame)
                    break
            else:
                groups.append([frame])
        else:
            groups.append([frame])
    return groups


def place(frames: list[SegFrame], grid: Grid, drawn: np.ndarray, name: str) -> bool:
    """Draw parallel frames (or one without position) onto `drawn` X Y Z. Returns whether any concerns this grid."""
    if not (grid.planes[0].placed and frames[0].plane.placed):
        return _place_by_reference(frames, grid, drawn, name)
    targets = [_same_plane(f.plane, grid) for f in frames]
    if all(t is not None for t in targets):
        for frame, z in zip(frames, targets, strict=True):
            drawn[:, :, z] |= frame.mask.T
        return True
    _resample(frames, grid, drawn)
    return True


def _place_by_reference(frames: list[SegFrame], grid: Grid, drawn: np.ndarray, name: str) -> bool:
    where = {(p.sop, p.frame): z for z, p in enumerate(grid.planes)}
    where |= {(p.sop, 1): z for z, p in enumerate(grid.planes) if p.frame == 0}
    addressed = False
    for frame in frames:
        for z in {where[s] for s in frame.sources if s in where}:
            expected = grid.shape[:2]
            if frame.mask.T.shape != expected:
                raise CaseError(name, f"expected {expected[0]} x {expected[1]} pixels like its image, but got "
                                      f"{frame.mask.shape[1]} x {frame.mask.shape[0]}; draw it on the image itself")  # fmt: skip
            drawn[:, :, z] |= frame.mask.T
            addressed = True
        if not frame.sources and frame.mask.any():
            raise CaseError(
                name, "expected frames with a position or a reference to their image, but got neither; store it again"
            )
    return addressed


def _parallel(a: Plane, b: Plane) -> bool:
    return bool(np.abs(np.subtract(a.axes, b.axes)).max() < _PARALLEL and np.allclose(a.spacing, b.spacing, rtol=1e-3))


def _same_plane(plane: Plane, grid: Grid) -> int | None:
    """Index of the grid's plane whose pixels are those of `plane`, or None."""
    first = grid.planes[0]
    if (plane.rows, plane.columns) != (first.rows, first.columns) or not _parallel(plane, first):
        return None
    distances = np.linalg.norm(np.subtract([p.origin for p in grid.planes], plane.origin), axis=1)
    nearest = int(distances.argmin())
    tolerance = 0.1 * min(*first.spacing, _gap([p.height() for p in grid.planes], first.thickness))
    return nearest if distances[nearest] <= tolerance else None


def _gap(heights: list[float], alone: float) -> float:
    """Smallest distance of neighbouring planes in mm; `alone` when there is one plane."""
    different = np.diff(np.unique(np.round(heights, 3)))
    return float(different.min()) if different.size else alone


def _resample(frames: list[SegFrame], grid: Grid, drawn: np.ndarray) -> None:
    """Nearest neighbour: a voxel is drawn when the SEG's pixel that its centre falls into is."""
    first = frames[0].plane
    order = sorted(frames, key=lambda f: f.plane.height())
    heights = np.array([f.plane.height() for f in order])
    reach = max(_gap(list(heights), first.thickness), first.thickness) / 2 + 1e-6
    row_axis, column_axis, normal = np.array(first.axes[:3]), np.array(first.axes[3:]), first.normal()
    x, y = np.meshgrid(np.arange(grid.shape[0]), np.arange(grid.shape[1]), indexing="ij")
    for z, plane in enumerate(grid.planes):
        points = (
            np.array(plane.origin)
            + x[..., None] * np.multiply(plane.axes[:3], plane.spacing[1])
            + y[..., None] * np.multiply(plane.axes[3:], plane.spacing[0])
        )
        along = points @ normal
        nearest = np.abs(along[..., None] - heights).argmin(axis=-1)
        inside = np.abs(along - heights[nearest]) <= reach
        for index in np.unique(nearest[inside]):
            frame = order[index]
            offset = points - np.array(frame.plane.origin)
            column = np.rint(offset @ row_axis / frame.plane.spacing[1]).astype(int)
            row = np.rint(offset @ column_axis / frame.plane.spacing[0]).astype(int)
            valid = inside & (nearest == index)
            valid &= (row >= 0) & (row < frame.mask.shape[0]) & (column >= 0) & (column < frame.mask.shape[1])
            drawn[:, :, z][valid] |= frame.mask[row[valid], column[valid]]
