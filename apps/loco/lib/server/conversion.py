"""DICOM files to one image file per case, and the folder of such files, which is limited in size."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from PIL import Image

from lib.core.files import replacing
from lib.core.images import CaseError
from lib.server.series import CaseOfSeries, Plane

_EIGHT_BITS, _SIXTEEN_BITS = 255, 65535
_MEASURED_S = 2.0
"""The size of the cache is measured anew after this long."""


def write_case(case: CaseOfSeries, files: Mapping[str, Path], target: Path) -> None:
    """Pixels of one case as NIfTI (volumes, rescaled values on the grid of its planes) or PNG (pictures), written whole.

    Args:
        case: planes in the order of Z.
        files: DICOM file of each SOPInstanceUID.
        target: file to write.

    Raises:
        CaseError: an instance is missing or its pixels cannot be decoded.
    """
    decoded: dict[str, np.ndarray] = {}
    planes = []
    for plane in case.grid.planes:
        if plane.sop not in files:
            raise CaseError(case.id, f"expected the instance {plane.sop}, but it was not sent; look at it in the PACS")
        if plane.sop not in decoded:
            decoded = {plane.sop: _decoded(files[plane.sop], case.id)}
        planes.append(_frame(decoded[plane.sop], plane))
    with replacing(target) as out:
        if case.picture:
            _as_picture(planes[0]).save(out, "PNG")
        else:
            grey = [p.mean(axis=-1) if p.ndim == 3 else p for p in planes]
            volume = _compact(np.stack(grey).transpose(2, 1, 0))
            image = nib.Nifti1Image(volume, case.grid.affine())
            image.header.set_xyzt_units("mm")
            out.write(_gzipped(image.to_bytes()))


def _decoded(file: Path, name: str) -> np.ndarray:
    """Frames, rows, columns[, 3] of one instance, rescaled, bright is bright, whatever its transfer syntax."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        image = reader.Execute()
    except RuntimeError as e:
        raise CaseError(name, f"expected pixels, but they cannot be decoded ({str(e).splitlines()[-1][:120]})") from e
    array = SimpleITK.GetArrayFromImage(image)
    return array if image.GetDimension() == 3 else array[None]


def _frame(frames: np.ndarray, plane: Plane) -> np.ndarray:
    return frames[max(0, plane.frame - 1)]


def _as_picture(pixels: np.ndarray) -> Image.Image:
    """A PNG without loss: 8 bits a channel where the values fit, else 16 bits of grey from the smallest value on."""
    if pixels.ndim == 3:
        return Image.fromarray(pixels.clip(0, _EIGHT_BITS).astype(np.uint8))
    values = np.rint(pixels - min(0, float(pixels.min())))
    fits = values.max() <= _EIGHT_BITS
    return Image.fromarray(values.clip(0, _SIXTEEN_BITS).astype(np.uint8 if fits else np.uint16))


def _compact(volume: np.ndarray) -> np.ndarray:
    """Whole numbers in 16 bits where they fit, all else as float32."""
    limits = np.iinfo(np.int16)
    whole = volume.dtype.kind in "iu" or bool((volume == np.rint(volume)).all())
    if whole and volume.min() >= limits.min and volume.max() <= limits.max:
        return volume.astype(np.int16)
    return volume.astype(np.float32)


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


class ImageCache:
    """Files in one folder; the least recently used make way when there are more bytes than allowed."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._lock = threading.Lock()
        self._measured = (-_MEASURED_S, 0)
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a file lies or would."""
        return self._folder / name

    def touch(self, name: str) -> bool:
        """Whether the file is there; it now counts as used last."""
        try:
            os.utime(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def has_room(self) -> bool:
        """Whether another file would fit: a twentieth of the room is kept free for what an annotator asks for."""
        return self._size() < 0.95 * self._limit

    def make_room(self, keep: str) -> list[str]:
        """Remove the least recently used files, never `keep`, until the rest fits. Returns the names removed."""
        with self._lock:
            files = sorted((f.stat().st_mtime_ns, f.stat().st_size, f) for f in self._folder.iterdir() if f.is_file())
            total = sum(size for _, size, _ in files)
            removed = []
            for _, size, file in files:
                if total <= self._limit:
                    break
                if file.name != keep:
                    file.unlink(missing_ok=True)
                    total -= size
                    removed.append(file.name)
            return removed

    def _size(self) -> int:
        when, size = self._measured
        if time.monotonic() - when > _MEASURED_S:
            with os.scandir(self._folder) as entries:
                size = sum(e.stat().st_size for e in entries if e.is_file())
            self._measured = (time.monotonic(), size)
        return size
