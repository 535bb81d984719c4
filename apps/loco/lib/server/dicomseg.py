"""DICOM SEG to label map and back, true to geometry: every frame lies where it says, whoever wrote it.

Label maps are `X Y Z` uint8 class indices on a `Grid`; segments are known by their label, never by their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lib.core.images import CaseError
from lib.server.segframes import by_geometry, frames_by_segment, place
from lib.server.segsource import refer_to_planes, stand_in
from lib.server.series import Grid

_SHOWN = 3
_ANATOMY = CodedConcept("123037004", "SCT", "Anatomical Structure")


@dataclass(frozen=True)
class SegReading:
    """What a SEG says of one case."""

    classes: np.ndarray
    """X Y Z uint8."""
    found: dict[str, int]
    """Names drawn and their class index."""
    addressed: bool
    """Whether a frame lies on this case at all; False when it only speaks of other pictures of the series."""


@dataclass(frozen=True)
class SegHeader:
    """Who and what a SEG is."""

    sop: str
    series: str
    study: str
    image_series: str
    """Series that was segmented; empty when the SEG does not say."""
    creator: str
    written: str
    """Date and time of the content, sortable text."""


@dataclass(frozen=True)
class Author:
    """Annotator ("" is anonymous), and the version of the model whose mask they started from, if any."""

    name: str = ""
    model_version: int | None = None


def seg_header(seg: Dataset) -> SegHeader:
    """What there is to know of a SEG without its pixels."""
    referenced = seg.get("ReferencedSeriesSequence") or [Dataset()]
    return SegHeader(
        sop=str(seg.get("SOPInstanceUID", "")),
        series=str(seg.get("SeriesInstanceUID", "")),
        study=str(seg.get("StudyInstanceUID", "")),
        image_series=str(referenced[0].get("SeriesInstanceUID", "")),
        creator=str(seg.get("ContentCreatorName") or seg.get("OperatorsName") or "").strip("^ "),
        written="".join(str(seg.get(k) or d) for k, d in (("ContentDate", "00000000"), ("ContentTime", "000000"))),
    )


def read_seg(seg: Dataset | str | Path, grid: Grid, labels: Mapping[str, int]) -> SegReading:
    """A DICOM SEG on the grid of an image.

    A frame is put on the plane at its position, or, in images without positions, on the plane that it refers to. A SEG on
    another grid in the same space is sampled with the nearest neighbour. Slices that the writer left out are background.

    Args:
        seg: dataset with pixels, or its file.
        grid: planes of the image.
        labels: configured names and class indices.

    Raises:
        CaseError: unknown segment names, overlapping segments, another place or size; the message says what to do.
    """
    seg = seg if isinstance(seg, Dataset) else dcmread(seg)
    name = f"SEG {seg.get('SOPInstanceUID', '')}"
    classes = np.zeros(grid.shape, np.uint8)
    indices = _class_of_segment(seg, labels)
    unknown: set[str] = set()
    addressed = False
    for number, masks in frames_by_segment(seg, name).items():
        drawn = np.zeros(grid.shape, bool)
        for frames in by_geometry(masks):
            addressed |= place(frames, grid, drawn, name)
        if not drawn.any():
            continue
        label, index = indices.get(number, (f"number {number}", None))
        if index is None:
            unknown.add(label)
            continue
        if bool((taken := classes[drawn][classes[drawn] != index]).any()):
            other = next(n for n, i in labels.items() if i == taken[taken > 0][0])
            raise CaseError(
                name,
                f"expected each voxel in one segment, but {other} and {label} overlap in {int((taken > 0).sum())} voxels; "
                "decide for one of them there and store it again",
            )
        classes[drawn] = index
    if unknown:
        raise CaseError(
            name,
            f"expected segments named {', '.join(labels)}, but got {', '.join(sorted(unknown)[:_SHOWN])}; "
            "rename them and store it again",
        )
    found = {label: index for label, index in labels.items() if bool((classes == index).any())}
    return SegReading(classes, found, addressed)


def _class_of_segment(seg: Dataset, labels: Mapping[str, int]) -> dict[int, tuple[str, int | None]]:
    """Segment number to its label and class index (None when that name is not configured)."""
    known = {name.strip().lower(): index for name, index in labels.items()}
    segments = seg.get("SegmentSequence") or []
    names = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")).strip() for s in segments}
    return {number: (name or "without a name", known.get(name.lower())) for number, name in names.items()}


def write_seg(
    classes: np.ndarray, grid: Grid, header: Dataset, labels: Mapping[str, int], author: Author, now: datetime
) -> Dataset:
    """A label map as a DICOM SEG (BINARY) that refers to each plane it lies on.

    An image without positions is referred to instance by instance and frame by frame. A mask without foreground is kept as
    one empty frame, so that "nothing is there" can be told from "nobody looked".

    Args:
        classes: X Y Z class indices on `grid`.
        grid: planes of the image.
        header: any header of the image's series, for patient and study.
        labels: configured names and class indices.
        author: who drew it.
        now: time of writing.

    Returns:
        The dataset, with file meta, ready to be stored.
    """
    if classes.shape != grid.shape:
        raise ValueError(
            f"expected a mask of shape {grid.shape}, but got {classes.shape}; bring it to the image's grid"
        )
    drawn = {name: index for name, index in labels.items() if bool((classes == index).any())}
    segments = drawn or dict(list(labels.items())[:1])
    planes = list(grid.planes) if drawn else list(grid.planes[:1])
    numbered = np.zeros((len(planes), grid.shape[1], grid.shape[0]), np.uint8)
    for number, index in enumerate(segments.values(), start=1):
        numbered[classes.transpose(2, 1, 0)[: len(planes)] == index] = number
    stand_ins = [stand_in(plane, header) for plane in planes]
    seg = Segmentation(
        source_images=stand_ins,
        pixel_array=numbered,
        segmentation_type="BINARY",
        segment_descriptions=[_description(n, name, author) for n, name in enumerate(segments, start=1)],
        series_instance_uid=generate_uid(prefix=None),
        series_number=300,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer="LoCo for MONAI Label",
        manufacturer_model_name="LoCo",
        software_versions=str(author.model_version or 0),
        device_serial_number="1",
        content_label="SEGMENTATION",
        content_creator_name=f"{author.name}^" if author.name else None,
        series_description=f"{', '.join(segments)} by {author.name or 'an annotator'}"[:64],
        omit_empty_frames=bool(drawn),
    )
    seg.ContentDate, seg.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S.%f")
    refer_to_planes(seg, dict(zip((str(s.SOPInstanceUID) for s in stand_ins), planes, strict=True)))
    return seg


def _description(number: int, name: str, author: Author) -> SegmentDescription:
    model = None
    if author.model_version:
        family = codes.cid7162.ArtificialIntelligence
        model = AlgorithmIdentificationSequence(name="LoCo", family=family, version=str(author.model_version))
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=_ANATOMY,
        segmented_property_type=CodedConcept(f"{number}", "99LOCO", name[:64]),
        algorithm_type="SEMIAUTOMATIC" if model is not None else "MANUAL",
        algorithm_identification=model,
    )
