"""The parts of a DICOM instance that DICOMweb hands out: header, frames, file."""

from __future__ import annotations

import io

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_pixel_data_frame

_SMALL = 64 * 1024
"""Bytes of a binary element that metadata may hold; longer ones are pixels and the like."""


def metadata_of(dataset: Dataset) -> Dataset:
    """A header without pixels and other long binary values, and how the pixels are coded."""
    header = Dataset()
    for element in dataset:
        long = isinstance(element.value, bytes) and len(element.value) > _SMALL
        if element.keyword != "PixelData" and not long:
            header[element.tag] = element
    header.AvailableTransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return header


def frames_of(dataset: Dataset) -> list[bytes]:
    """Pixel data of each frame, coded as stored."""
    number = int(dataset.get("NumberOfFrames") or 1)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return list(generate_pixel_data_frame(dataset.PixelData, number))
    length = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    return [dataset.PixelData[i * length : (i + 1) * length] for i in range(number)]


def file_of(dataset: Dataset) -> bytes:
    """A DICOM file in memory."""
    with io.BytesIO() as file:
        pydicom.dcmwrite(file, dataset, write_like_original=False)
        return file.getvalue()
