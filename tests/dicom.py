"""Small DICOM series with known truth, made with pydicom the way scanners and cameras write them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLEndoscopicImageStorage,
    generate_uid,
)
from studies import blob

AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, -0.48, 0.64, 0.6)
PICTURES = {
    "OT": SecondaryCaptureImageStorage,
    "ES": VLEndoscopicImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "US": UltrasoundMultiFrameImageStorage,
}


def instance(modality: str, sop_class: str, study: str, series: str, number: int = 1, patient: str = "P1") -> Dataset:
    """A header without pixels."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.is_little_endian, ds.is_implicit_VR = True, False
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid(prefix=None)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, series, modality
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = patient, f"Test^{patient}", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240102", "030405", "1", ""
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    return ds


def with_pixels(ds: Dataset, array: np.ndarray, frames: int = 0) -> Dataset:
    """`array` ([frames,] rows, columns[, 3]) uint8, uint16 or int16 as uncompressed pixels."""
    colour = array.shape[-1] == 3
    rows, columns = array.shape[1 if frames else 0], array.shape[2 if frames else 1]
    ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * array.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(array.dtype.kind == "i")
    if frames:
        ds.NumberOfFrames = frames
    ds.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    return ds


def volume_series(
    array: np.ndarray,
    axes: Sequence[float] = AXIAL,
    spacing: tuple[float, float, float] = (1.5, 1.25, 4.0),
    origin: tuple[float, float, float] = (-30.0, 12.5, 7.0),
    modality: str = "MR",
    patient: str = "P1",
    reverse: bool = False,
) -> list[Dataset]:
    """`array` X Y Z int16 as one instance per plane, along the normal; spacing mm of X, Y, Z."""
    study, series, frame = generate_uid(prefix=None), generate_uid(prefix=None), generate_uid(prefix=None)
    normal = np.cross(axes[:3], axes[3:])
    result = []
    for z in range(array.shape[2]):
        ds = instance(modality, {"MR": MRImageStorage}.get(modality, CTImageStorage), study, series, z + 1, patient)
        ds.FrameOfReferenceUID = frame
        ds.ImagePositionPatient = [round(float(v), 6) for v in np.add(origin, normal * spacing[2] * z)]
        ds.ImageOrientationPatient = list(axes)
        ds.PixelSpacing, ds.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        result.append(with_pixels(ds, np.ascontiguousarray(array[:, :, z].T.astype(np.int16))))
    return result[::-1] if reverse else result


BALL_SHAPE = (40, 36, 5)


def ball(number: int) -> np.ndarray:
    """Where the bright ball of `ball_series(number)` lies: X Y Z uint8."""
    return blob(BALL_SHAPE, (13 + 4 * number, 18, 2), 6).astype(np.uint8)


def ball_series(number: int, axes: Sequence[float] = AXIAL, reverse: bool = False) -> list[Dataset]:
    """A thick-slice MR volume of patient `P<number>`, noise with one bright ball."""
    values = np.random.default_rng(number).normal(100, 8, BALL_SHAPE) + 80 * ball(number)
    return volume_series(values, axes, (1.5, 1.5, 6.0), patient=f"P{number}", reverse=reverse)


def stacked(instances: Sequence[Dataset]) -> np.ndarray:
    """Values of a series, X Y Z, its slices in the order of the normal."""
    normal = np.cross(instances[0].ImageOrientationPatient[:3], instances[0].ImageOrientationPatient[3:])
    ordered = sorted(instances, key=lambda ds: float(np.dot(ds.ImagePositionPatient, normal)))
    return np.stack([ds.pixel_array.T for ds in ordered], axis=2)


def picture_series(modality: str, arrays: Sequence[np.ndarray], patient: str = "P1") -> list[Dataset]:
    """Pictures (rows, columns[, 3]) of one series, one instance each."""
    study, series = generate_uid(prefix=None), generate_uid(prefix=None)
    return [
        with_pixels(instance(modality, PICTURES[modality], study, series, n, patient), a)
        for n, a in enumerate(arrays, start=1)
    ]


def film(array: np.ndarray, patient: str = "P1") -> Dataset:
    """One ultrasound instance of several frames: frames, rows, columns[, 3]."""
    ds = instance("US", PICTURES["US"], generate_uid(prefix=None), generate_uid(prefix=None), 1, patient)
    return with_pixels(ds, array, len(array))


def as_jpeg(ds: Dataset) -> Dataset:
    """The same picture with JPEG baseline pixels, as cameras write them."""
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.fromarray(ds.pixel_array).save(out, "JPEG", quality=95)
    ds.PixelData = encapsulate([out.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds.PhotometricInterpretation = "YBR_FULL_422" if ds.SamplesPerPixel == 3 else "MONOCHROME2"
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return ds


def stow_answer(*items: tuple[str, str]) -> dict:
    """What a PACS says of instances that it stored, each by its SOP class and its address (DICOM JSON)."""
    sequence = [
        {"00081150": {"vr": "UI", "Value": [kind]}, "00081190": {"vr": "UR", "Value": [place]}} for kind, place in items
    ]
    return {"00081199": {"vr": "SQ", "Value": sequence}}
