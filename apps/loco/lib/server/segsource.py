"""What highdicom needs to know of the images under a SEG, made from planes: it wants complete single-frame headers.

Real headers miss what their class does not require (patients without sex, pictures without slice thickness, frames inside a
multi-frame instance). So each plane is stood in for by a small header; afterwards the references are put right.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from lib.server.series import Plane

_KEPT = (
    "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName", "Modality",
)  # fmt: skip


def stand_in(plane: Plane, header: Dataset) -> Dataset:
    """A complete header for one plane, with an instance UID of its own. `header` is any of the plane's series."""
    result = Dataset()
    for keyword in _KEPT:
        setattr(result, keyword, header.get(keyword) or "")
    result.SOPClassUID = SecondaryCaptureImageStorage  # requires least; the true class comes with the references
    result.SOPInstanceUID = generate_uid(prefix=None)
    result.Rows, result.Columns = plane.rows, plane.columns
    if plane.placed:
        unknown_frame = generate_uid(entropy_srcs=[str(header.SeriesInstanceUID), "frame of reference"])
        result.FrameOfReferenceUID = header.get("FrameOfReferenceUID") or unknown_frame
        result.ImagePositionPatient = list(plane.origin)
        result.ImageOrientationPatient = list(plane.axes)
        result.PixelSpacing = list(plane.spacing)
        result.SliceThickness = plane.thickness
    return result


def refer_to_planes(seg: Dataset, planes: Mapping[str, Plane]) -> None:
    """Replace the stand-ins' UIDs in all references of `seg` by the planes' instances and frames, in place."""
    for element in seg:
        if element.VR != "SQ":
            continue
        named: set[str] = set()
        kept = []
        for item in element.value:
            plane = planes.get(str(item.get("ReferencedSOPInstanceUID", "")))
            if plane is None:
                refer_to_planes(item, planes)
            elif plane.frame and element.keyword == "ReferencedInstanceSequence" and plane.sop in named:
                continue
            else:
                _refer(item, plane, with_frame=element.keyword == "SourceImageSequence")
                named.add(plane.sop)
            kept.append(item)
        element.value = Sequence(kept)


def _refer(item: Dataset, plane: Plane, with_frame: bool) -> None:
    item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID = plane.sop, plane.sop_class
    if plane.frame and with_frame:
        item.ReferencedFrameNumber = plane.frame
