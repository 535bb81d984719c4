"""Reading pictures, volumes and their labels, with one sentence for everything that cannot be used.

Arrays keep the axis order of MONAI's readers: `C X Y [Z]`, for pictures X = column and Y = row.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageReader, ITKReader, MetaTensor, NibabelReader, NrrdReader, PILReader
from monai.transforms import EnsureChannelFirst, ResampleToMatch, ScaleIntensityRange
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor
from PIL import Image
from torch import Tensor

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
SUFFIXES = PICTURE_SUFFIXES + VOLUME_SUFFIXES
_VOLUME_READERS = {".nrrd": NrrdReader, ".mha": ITKReader}
_FOREGROUND = 255
"""Drawing programs save a mask of one class as 0 and 255."""


class CaseError(ValueError):
    """A study or label that cannot be used. The message names the file and says what to do."""

    def __init__(self, path: str | Path, reason: str) -> None:
        name = Path(path).name
        super().__init__(f"{name}: {reason}")
        self.path, self.stem, self.reason = str(path), name[: len(name) - len(suffix_of(name))], reason


@dataclass(frozen=True)
class ImageHeader:
    """What is known of a study without reading its pixels."""

    shape: tuple[int, ...]
    """Spatial shape, 2 or 3 numbers."""
    spacing: tuple[float, ...]
    """mm per axis; 1.0 where the file has none."""
    colour: bool


@dataclass(frozen=True)
class LoadedImage:
    """`array` C X Y [Z] float32, intensities as stored; `affine` 4 x 4 voxel-to-RAS in mm, None for pictures."""

    array: Tensor
    affine: np.ndarray | None


def is_picture(path: str | Path) -> bool:
    """True for 2D picture formats (PNG, JPEG, ...), which carry no physical geometry."""
    return str(path).lower().endswith(PICTURE_SUFFIXES)


def suffix_of(path: str | Path) -> str:
    """The suffix of an image or label in lower case, the longest that fits; empty for any other file.

    >>> suffix_of("a/case.1.NII.GZ")
    '.nii.gz'
    """
    name = str(path).lower()
    return max((s for s in SUFFIXES if name.endswith(s)), key=len, default="")


def read_header(path: str | Path) -> ImageHeader:
    """Shape, spacing and colour of a study, read without its pixels where the format allows it.

    Raises:
        CaseError: the file is empty, unreadable or no 2D or 3D image.
    """
    try:
        if is_picture(path):
            with Image.open(path) as picture:
                return ImageHeader(picture.size, (1.0, 1.0), picture.mode not in ("1", "L", "I", "F", "I;16", "LA"))
        if str(path).lower().endswith((".nii", ".nii.gz")):
            image = nib.load(path)
            shape = tuple(int(n) for n in image.shape)
            zooms = tuple(float(z) for z in image.header.get_zooms())
            return ImageHeader(_spatial(shape), _spacing(zooms), shape[3:] == (1, 3))
    except Exception as e:
        raise _unreadable(path, e) from e
    loaded = read_image(path)
    shape = tuple(loaded.array.shape[1:])
    zooms = np.linalg.norm(loaded.affine[:3, :3], axis=0) if loaded.affine is not None else np.ones(3)
    return ImageHeader(shape, tuple(float(z) for z in zooms[: len(shape)]), loaded.array.shape[0] == 3)


def read_image(path: str | Path) -> LoadedImage:
    """Read a picture (`C X Y`) or a volume (`C X Y Z`), C = 1 or 3; transparency is dropped, NaN becomes the minimum.

    Raises:
        CaseError: missing, empty, unreadable, not 2D or 3D, or without one finite value.
    """
    array, affine = _load(path, colour=True)
    if array.shape[0] in (2, 4):
        array = array[:-1]
    if array.shape[0] not in (1, 3):
        raise CaseError(path, f"expected a grey or RGB image, but got {array.shape[0]} channels; convert or remove it")
    finite = torch.isfinite(array)
    if not bool(finite.all()):
        if not bool(finite.any()):
            raise CaseError(path, "expected an image, but every value is NaN or infinite; replace or remove it")
        count = int((~finite).sum())
        logger.warning("%s", CaseError(path, f"{count} values are NaN or infinite; they are read as the minimum"))
        array = torch.where(finite, array, array[finite].min())
    return LoadedImage(array, affine)


def read_label(path: str | Path) -> LoadedImage:
    """Read a label map as `1 X Y [Z]` int64 values as stored.

    Raises:
        CaseError: missing, empty, unreadable, NaN, fractional values, or a coloured picture.
    """
    array, affine = _load(path)
    if array.shape[0] == 4 or array.shape[0] == 2:
        array = array[:-1]
    if array.shape[0] == 3 and bool((array == array[:1]).all()):
        array = array[:1]
    if array.shape[0] != 1:
        raise CaseError(path, f"expected one value per pixel, but got {array.shape[0]} channels; send a label map")
    if not bool(torch.isfinite(array).all()):
        raise CaseError(path, "expected whole numbers, but the label holds NaN or infinite values; draw it again")
    values = array.round()
    if float((values - array).abs().max()) > 1e-3:
        raise CaseError(
            path, "expected whole numbers, but the label holds fractions; send a label map, not probabilities"
        )
    return LoadedImage(values.to(torch.int64), affine)


def label_on_image(label: LoadedImage, image: LoadedImage, path: str | Path) -> Tensor:
    """Label values on the grid of its image: `1 X Y [Z]` int64.

    A label of the same shape whose geometry differs (other orientation or origin) is resampled, nearest neighbour.

    Raises:
        CaseError: the shapes differ.
    """
    shape, expected = tuple(label.array.shape[1:]), tuple(image.array.shape[1:])
    array = label.array
    if len(shape) != len(expected) and _without_ones(shape) == _without_ones(expected):
        array, shape = array.reshape(1, *expected), expected
    same_geometry = label.affine is None or image.affine is None or np.allclose(label.affine, image.affine, atol=1e-2)
    if sorted(shape) == sorted(expected) and not same_geometry and len(expected) == 3:
        resampled = ResampleToMatch(mode="nearest", padding_mode="zeros")(
            MetaTensor(array.float(), affine=label.affine), MetaTensor(image.array[:1], affine=image.affine)
        )
        return resampled.as_tensor().round().to(torch.int64)
    if shape != expected:
        raise CaseError(
            path, f"expected a label of shape {expected} like its image, but got {shape}; draw it again on it"
        )
    return array


def class_indices(values: Tensor, classes: int, path: str | Path) -> Tensor:
    """Check that label values (any shape, int64) are 0..classes-1; 0 and 255 of a two-class mask become 0 and 1.

    Returns:
        uint8, same shape.

    Raises:
        CaseError: an unknown value.
    """
    present = _present(values)
    if classes == 2 and set(present) <= {0, _FOREGROUND}:
        return (values > 0).to(torch.uint8)
    unknown = [v for v in present if not 0 <= v < classes]
    if unknown:
        raise CaseError(
            path, f"expected label values 0 to {classes - 1}, but got {unknown[:5]}; use the configured labels"
        )
    return values.to(torch.uint8)


def _present(values: Tensor) -> list[int]:
    """The values that occur, ascending. Counting takes a tenth of the time of sorting, which `unique` does."""
    if not values.numel() or int(values.min()) < 0 or int(values.max()) > _FOREGROUND:
        return torch.unique(values).tolist()
    return torch.bincount(values.flatten()).nonzero().flatten().tolist()


def unit_range(array: Tensor, picture: bool) -> Tensor:
    """Intensities to float32 in [0, 1]: 8-bit pictures by 255, everything else by the 0.5 and 99.5 percentiles, clipped."""
    array = array.float()
    if picture and float(array.min()) >= 0 and float(array.max()) <= 255:
        return array / 255.0
    if float(array.max()) <= float(array.min()):
        return torch.zeros_like(array)
    # as ScaleIntensityRangePercentiles, which goes through the array once for each percentile
    low, high = percentile(array, (0.5, 99.5))
    scale = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaled = convert_to_tensor(scale(array), track_meta=False).float()
    return torch.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1)


def _load(path: str | Path, colour: bool = False) -> tuple[Tensor, np.ndarray | None]:
    if not Path(path).is_file():
        raise CaseError(path, "expected a file, but there is none; put it back or refresh the list of studies")
    if Path(path).stat().st_size == 0:
        raise CaseError(path, "expected an image, but the file is empty (0 bytes); copy it again or remove it")
    try:
        reader = _reader(path, colour)
        with _small_suffix(path) as readable:
            values, meta = reader.get_data(reader.read(readable))
        values = np.ascontiguousarray(values, dtype=np.float32)
        tensor = EnsureChannelFirst()(MetaTensor(torch.from_numpy(values), meta=meta))
    except Exception as e:
        raise _unreadable(path, e) from e
    array = tensor.as_tensor()
    affine = None if is_picture(path) else np.asarray(tensor.affine, dtype=np.float64)
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or min(array.shape) < 1:
        raise CaseError(path, f"expected a 2D or 3D image, but got shape {tuple(array.shape[1:])}; split or convert it")
    if affine is not None and affine.shape[0] == 3:
        affine = _affine_to_3d(affine)
    if affine is not None and not _spans_space(affine):
        raise CaseError(
            path,
            "expected a header with three directions and sizes of voxels above 0 mm, but got "
            f"{affine[:3, :3].round(4).tolist()}; correct its affine",
        )
    return array.contiguous(), affine


@contextmanager
def _small_suffix(path: str | Path) -> Iterator[str]:
    """The path, or, for formats that ITK knows by a suffix in small letters only, a link to it that has one."""
    suffix = suffix_of(path)
    if suffix != ".mha" or str(path).endswith(suffix):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"image{suffix}"
        link.symlink_to(Path(path).resolve())
        yield str(link)


def _reader(path: str | Path, colour: bool) -> ImageReader:
    """MONAI's reader of a format. `LoadImage` would build every reader it knows for each file, with a warning for one."""
    if is_picture(path):
        return PILReader(converter=_to_rgb if colour else None)
    return _VOLUME_READERS[suffix_of(path)]() if suffix_of(path) in _VOLUME_READERS else NibabelReader()


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Colours of palette, CMYK and YCbCr pictures; in a label map a palette index is the value itself."""
    return picture.convert("RGB") if picture.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB") else picture


def _affine_to_3d(affine: np.ndarray) -> np.ndarray:
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = affine[:2, :2], affine[:2, 2]
    return full


def _spans_space(affine: np.ndarray) -> bool:
    """Whether voxels of this affine have a volume: nothing can be resampled, or found again, on a grid without."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.isfinite(affine).all() and sizes.min() > 0 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-3)


def _unreadable(path: str | Path, e: Exception) -> CaseError:
    if Path(path).is_file() and Path(path).stat().st_size == 0:
        return CaseError(path, "expected an image, but the file is empty (0 bytes); copy it again or remove it")
    cause = str(e).strip().splitlines()[-1][:120] if str(e).strip() else type(e).__name__
    return CaseError(path, f"expected an image, but it cannot be read ({cause}); copy it again or remove it")


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) > 3 and set(shape[3:]) - {1, 3}:
        raise ValueError(f"a series of {shape[3]} volumes")
    return shape[:3]


def _spacing(zooms: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(z if z > 0 else 1.0 for z in zooms[:3])


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
