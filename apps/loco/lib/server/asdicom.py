"""Pictures and volumes of a folder presented as DICOM, made when they are looked at; nothing is written.

A picture becomes one secondary capture, a volume a series of slices across its thick axis with its true geometry. Nothing
is known of the modality of a file: volumes are called MR (CT when they hold Hounsfield values), because viewers build
volumes of these only, and the series says where it comes from. Identifiers are the same each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

from lib.core.images import ImageHeader, LoadedImage, is_picture

_NAMESPACE = uuid.UUID("2b1c5a0e-6f2d-5d0b-9c0e-7f0a4f6f1a51")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HOUNSFIELD = -500.0
"""Values below this are air of a CT."""
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Identity:
    """Who a case is in DICOM: the same for the same project and image each time the server runs."""

    image: str
    patient: str
    study: str
    series: str

    @classmethod
    def of(cls, project: str, image: str, patient: str) -> Identity:
        """UIDs are UUIDs of the project's name and the image's id."""
        return cls(image, patient, _uid(project, image, "study"), _uid(project, image, "series"))

    def instance(self, number: int) -> str:
        """SOPInstanceUID of the slice at `number`."""
        return _uid(self.series, str(number))


def header_of(identity: Identity, path: str | Path, header: ImageHeader) -> Dataset:
    """What a list of studies and series shows of a case, without reading its pixels."""
    ds = _common(identity, Path(path))
    ds.Modality = "OT" if is_picture(path) else "MR"
    ds.NumberOfSeriesRelatedInstances = (
        1 if is_picture(path) else header.shape[slice_axis(header.spacing, header.shape)]
    )
    return ds


def datasets_of(identity: Identity, path: str | Path, loaded: LoadedImage) -> list[Dataset]:
    """A case as DICOM instances with pixels, in the order of its slices."""
    if loaded.affine is None:
        return [_picture(identity, Path(path), loaded)]
    return _volume(identity, Path(path), loaded)


def slice_axis(spacing: Sequence[float], shape: Sequence[int]) -> int:
    """The voxel axis that runs from slice to slice: the last, unless another one is clearly thicker."""
    if len(shape) < 3:
        return 2
    thickest = int(np.argmax(spacing[:3]))
    return thickest if spacing[thickest] > 1.5 * spacing[2] else 2


def _picture(identity: Identity, path: Path, loaded: LoadedImage) -> Dataset:
    array = loaded.array.numpy().transpose(2, 1, 0)
    ds = _common(identity, path)
    ds.SOPClassUID, ds.Modality, ds.ConversionType = SecondaryCaptureImageStorage, "OT", "WSD"
    ds.SOPInstanceUID, ds.InstanceNumber = identity.instance(0), 1
    if array.shape[2] == 3:
        _pixels(ds, array.clip(0, 255).round().astype(np.uint8), "RGB")
        ds.PlanarConfiguration = 0
    elif array.min() >= 0 and array.max() <= 255:
        _pixels(ds, array[..., 0].round().astype(np.uint8), "MONOCHROME2")
    else:
        stored, ds.RescaleSlope, ds.RescaleIntercept = as_int16(array[..., 0])
        _pixels(ds, stored, "MONOCHROME2")
    return _with_file_meta(ds)


def _volume(identity: Identity, path: Path, loaded: LoadedImage) -> list[Dataset]:
    values = loaded.array.numpy().mean(axis=0) if loaded.array.shape[0] > 1 else loaded.array.numpy()[0]
    values = values[..., None] if values.ndim == 2 else values
    affine = _LPS @ loaded.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    through = slice_axis(spacing, values.shape)
    across, down = (axis for axis in range(3) if axis != through)
    stored, slope, intercept = as_int16(values)
    low, high = (float(v) for v in np.percentile(values, (1, 99)))
    ct = float(values.min()) < _HOUNSFIELD
    slices = []
    for number in range(values.shape[through]):
        ds = _common(identity, path)
        ds.SOPClassUID, ds.Modality = (CTImageStorage, "CT") if ct else (MRImageStorage, "MR")
        ds.SOPInstanceUID, ds.InstanceNumber = identity.instance(number), number + 1
        corner = affine[:3, through] * number + affine[:3, 3]
        ds.FrameOfReferenceUID = _uid(identity.series, "frame of reference")
        ds.ImagePositionPatient = [_decimal(v) for v in corner]
        directions = (affine[:3, across] / spacing[across], affine[:3, down] / spacing[down])
        ds.ImageOrientationPatient = [_decimal(v) for v in np.concatenate(directions)]
        ds.PixelSpacing = [_decimal(spacing[down]), _decimal(spacing[across])]
        ds.SliceThickness = ds.SpacingBetweenSlices = _decimal(spacing[through])
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, intercept, "US"
        ds.WindowCenter, ds.WindowWidth = _decimal((low + high) / 2), _decimal(max(high - low, 1e-6))
        _pixels(ds, np.take(stored, number, axis=through).T, "MONOCHROME2")
        slices.append(_with_file_meta(ds))
    return slices


def as_int16(values: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Values of any range as int16 with slope and intercept (DICOM decimal strings): value = stored * slope + intercept."""
    low, high = float(values.min()), float(values.max())
    whole = low >= _INT16.min and high <= _INT16.max and bool((values == np.round(values)).all())
    if whole:
        return values.astype(np.int16), "1", "0"
    slope = _decimal(max(high - low, 1e-9) / (int(_INT16.max) - int(_INT16.min)))
    intercept = _decimal(low - float(slope) * int(_INT16.min))
    stored = np.round((values.astype(np.float64) - float(intercept)) / float(slope))
    return stored.clip(_INT16.min, _INT16.max).astype(np.int16), slope, intercept


def _common(identity: Identity, path: Path) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID = identity.image.replace("^", " ")[:64], identity.patient[:64]
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = identity.study, identity.series
    ds.StudyID, ds.AccessionNumber, ds.StudyDate, ds.StudyTime = "", "", "", ""
    ds.ReferringPhysicianName, ds.Manufacturer, ds.PositionReferenceIndicator = "", "", ""
    ds.StudyDescription = path.name[:64]
    ds.SeriesDescription = ("picture " if is_picture(path) else "volume, modality not known: ") + path.name[:36]
    ds.SeriesNumber, ds.ImageType = 1, ["DERIVED", "SECONDARY"]
    return ds


def _pixels(ds: Dataset, array: np.ndarray, photometric: str) -> None:
    """`array`: rows, columns [, colours]."""
    ds.Rows, ds.Columns = array.shape[:2]
    ds.SamplesPerPixel = array.shape[2] if array.ndim == 3 else 1
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = ds.BitsStored = array.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(array.dtype.kind == "i")
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OW" if array.dtype.itemsize > 1 else "OB"


def _with_file_meta(ds: Dataset) -> Dataset:
    ds.is_little_endian, ds.is_implicit_VR = True, False
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


def _decimal(value: float) -> str:
    """A DICOM decimal string: 16 characters hold 10 digits of any number."""
    return f"{value:.10g}" if len(f"{value:.10g}") <= 16 else f"{value:.8g}"


def _uid(*words: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}"
