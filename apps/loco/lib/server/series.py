"""Which DICOM series are images, and where each of their pixels lies: planes, grids and cases from headers alone.

Positions are in the patient's frame of DICOM (LPS, mm); affines are voxel-to-RAS in mm, as everywhere in this app. Arrays are
`X Y Z`: X = column, Y = row, Z = plane in the order of the normal, which is the order in which viewers stack a series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset

NOT_IMAGES = frozenset({
    "SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "FID", "DOC", "RWV", "SMR", "AU", "ECG", "EPS",
    "HD", "ANN", "M3D", "PLAN", "TEXTUREMAP", "ASMT", "STAIN", "RESP", "OAM", "LEN", "KER", "VA", "SRF", "IOL", "OPV", "SM",
})  # fmt: skip
"""Modalities that hold what was derived from images, or no image that can be segmented as one (SM: slides of gigapixels)."""

VOLUME_MODALITIES = frozenset(("CT", "MR", "PT", "NM"))
"""A single plane of these with a position is a volume of one slice; of others it is a picture."""

_PARALLEL = 1e-3
_SAME_PLACE_MM = 1e-2


@dataclass(frozen=True)
class Plane:
    """One frame of one instance. `frame` counts from 1 in instances of several frames and is 0 in others."""

    sop: str
    sop_class: str
    frame: int
    rows: int
    columns: int
    origin: tuple[float, float, float] | None = None
    """Centre of the first pixel, LPS in mm; None without geometry."""
    axes: tuple[float, ...] | None = None
    """Direction along a row, then along a column: six cosines."""
    spacing: tuple[float, float] | None = None
    """mm between rows, between columns."""
    thickness: float = 1.0

    @property
    def placed(self) -> bool:
        """Whether it is known where the plane lies in space."""
        return self.origin is not None and self.axes is not None and self.spacing is not None

    def normal(self) -> np.ndarray:
        """Unit vector in whose direction planes are counted."""
        return np.cross(self.axes[:3], self.axes[3:])

    def height(self) -> float:
        """Place along the normal in mm."""
        return float(np.dot(self.origin, self.normal()))


@dataclass(frozen=True)
class Grid:
    """Voxels of one case: planes of the same size, in the order of Z."""

    planes: tuple[Plane, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """X Y Z."""
        return self.planes[0].columns, self.planes[0].rows, len(self.planes)

    def affine(self) -> np.ndarray | None:
        """4 x 4 voxel-to-RAS; None when the planes have no position. Uneven gaps count with their mean."""
        first, last = self.planes[0], self.planes[-1]
        if not first.placed:
            return None
        gap = (last.height() - first.height()) / (len(self.planes) - 1) if len(self.planes) > 1 else first.thickness
        lps = np.eye(4)
        lps[:3, 0] = np.multiply(first.axes[:3], first.spacing[1])
        lps[:3, 1] = np.multiply(first.axes[3:], first.spacing[0])
        lps[:3, 2] = first.normal() * gap
        lps[:3, 3] = first.origin
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


@dataclass(frozen=True)
class CaseOfSeries:
    """One case: a volume with the id of its series, or a picture with the id of its instance (and `_frame`)."""

    id: str
    series: str
    grid: Grid
    picture: bool


def planes_of(headers: Iterable[Dataset]) -> list[Plane]:
    """All frames of all instances that have pixels, in the order given."""
    return [plane for header in headers if "Rows" in header and "Columns" in header for plane in _frames(header)]


def cases_of(series: str, headers: Sequence[Dataset]) -> tuple[list[CaseOfSeries], str]:
    """Cases of one series, and why there are none (empty when there are some).

    Planes at different places are one volume. Planes without a place, or all at the same one (a film), are pictures.
    """
    modality = str(headers[0].get("Modality", "")) if headers else ""
    if modality in NOT_IMAGES:
        return [], f"{modality} holds no images to segment"
    if any("LOCALIZER" in _values(h, "ImageType") for h in headers):
        return [], "it is a localizer"
    planes = planes_of(headers)
    if not planes:
        return [], "none of its instances has pixels"
    if all(p.placed for p in planes) and (len(planes) > 1 or modality in VOLUME_MODALITIES):
        ordered = sorted(planes, key=Plane.height)
        if why := _why_no_volume(ordered):
            return [], why
        if len(ordered) == 1 or ordered[-1].height() - ordered[0].height() > _SAME_PLACE_MM:
            return [CaseOfSeries(series, series, Grid(tuple(ordered)), picture=False)], ""
    pictures = [replace(p, origin=None) for p in planes]  # frames of a film are told apart by reference, not by place
    return [CaseOfSeries(_picture_id(p), series, Grid((p,)), picture=True) for p in pictures], ""


def _picture_id(plane: Plane) -> str:
    return f"{plane.sop}_{plane.frame}" if plane.frame else plane.sop


def _why_no_volume(ordered: Sequence[Plane]) -> str:
    """Why placed planes, sorted along the normal, are neither one volume nor a film; empty when they are."""
    first = ordered[0]
    if any(np.abs(np.subtract(p.axes, first.axes)).max() > _PARALLEL for p in ordered):
        return "its planes are not parallel"
    if any((p.rows, p.columns) != (first.rows, first.columns) for p in ordered):
        return "its planes differ in size"
    gaps = np.diff([p.height() for p in ordered])
    together = int((gaps <= _SAME_PLACE_MM).sum())
    if 0 < together < len(gaps):
        return f"{together + 1} or more of its planes share a place: several volumes in one series; split it"
    return ""


def _frames(header: Dataset) -> list[Plane]:
    count = int(header.get("NumberOfFrames") or 1)
    shared = _first(header, "SharedFunctionalGroupsSequence")
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    several = count > 1
    return [
        _plane(header, index + 1 if several else 0, own[index] if index < len(own) else Dataset(), shared)
        for index in range(count)
    ]


def _plane(header: Dataset, frame: int, own: Dataset, shared: Dataset) -> Plane:
    measures = group_of(own, shared, "PixelMeasuresSequence") or header
    origin = _numbers(group_of(own, shared, "PlanePositionSequence") or header, "ImagePositionPatient", 3)
    axes = _numbers(group_of(own, shared, "PlaneOrientationSequence") or header, "ImageOrientationPatient", 6)
    thickness = _numbers(measures, "SliceThickness", 1) or _numbers(measures, "SpacingBetweenSlices", 1)
    return Plane(
        sop=str(header.SOPInstanceUID),
        sop_class=str(header.get("SOPClassUID", "")),
        frame=frame,
        rows=int(header.Rows),
        columns=int(header.Columns),
        origin=origin,
        axes=axes,
        spacing=_numbers(measures, "PixelSpacing", 2),
        thickness=thickness[0] if thickness and thickness[0] > 0 else 1.0,
    )


def group_of(own: Dataset, shared: Dataset, keyword: str) -> Dataset | None:
    """A functional group's item: the frame's own, else the one that all frames share, else None."""
    item = _first(own, keyword) or _first(shared, keyword)
    return item or None


def _first(dataset: Dataset, keyword: str) -> Dataset:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else Dataset()


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    numbers = tuple(float(v) for v in (value if count > 1 else [value]))
    return numbers if len(numbers) == count else None


def _values(header: Dataset, keyword: str) -> list[str]:
    value = header.get(keyword) or []
    return [value] if isinstance(value, str) else [str(v) for v in value]
