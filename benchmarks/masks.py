"""Label files of the simulated annotator: finding the truth, reading masks, Dice on the voxels of the image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from benchmarks.events import AnnotatorError, Point
from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FOREGROUND = 255
"""Drawing programs save a mask of one class as 0 and 255."""


def stem_of(name: str) -> str:
    """A file name without its extension, `.nii.gz` and `.seg.nrrd` as a whole.

    >>> stem_of("patient.01.nii.gz")
    'patient.01'
    """
    double = re.fullmatch(r"(.+)\.(?:nii\.gz|seg\.nrrd)", name, re.IGNORECASE)
    return double.group(1) if double else Path(name).stem


def truth_files(folder: Path) -> dict[str, Path]:
    """Files of a folder by stem; of several with the same stem the first by name."""
    if not folder.is_dir():
        raise AnnotatorError(f"expected a folder of label files, but {folder} is none; name another one")
    files = [p for p in sorted(folder.iterdir(), reverse=True) if p.is_file() and not p.name.startswith(".")]
    return {stem_of(p.name): p for p in files}


def label_indices(labels: Mapping[str, Any] | Sequence[str]) -> dict[str, int]:
    """Names to indices from `labels` of /info/, which may be a mere list of names; background left out."""
    if isinstance(labels, Mapping):
        return {str(n): int(i) for n, i in labels.items() if int(i) > 0}
    names = [n for n in labels if n.lower() != "background"]
    return {name: index for index, name in enumerate(names, start=1)}


def label_info(labels: Mapping[str, int]) -> list[dict[str, Any]]:
    """What viewers send with a label: which value is which class."""
    return [{"name": name, "idx": index} for name, index in labels.items()]


def read_mask(path: Path) -> np.ndarray:
    """Whole numbers of a label file: `H W` of a picture, else `X Y Z` turned to the nearest standard orientation."""
    if path.name.lower().endswith(PICTURES):
        array = np.asarray(Image.open(path))
        return array[..., 0] if array.ndim == 3 else array.astype(np.int64)
    if path.name.lower().endswith(".nrrd"):
        from monai.transforms import LoadImage

        loaded = LoadImage(image_only=True)(path)
        volume = nib.Nifti1Image(loaded.numpy().astype(np.int16), loaded.affine.numpy())
    else:
        volume = nib.load(path)
    array = np.asarray(nib.as_closest_canonical(volume).dataobj)
    return np.rint(array).astype(np.int64)


def dice_of_files(prediction: Path, truth: Path, labels: Mapping[str, int]) -> dict[str, float]:
    """Dice per class of two label files on the same voxels; a class absent from both counts 1, from one only 0.

    Raises:
        AnnotatorError: the shapes differ.
    """
    got, wanted = np.squeeze(read_mask(prediction)), np.squeeze(read_mask(truth))
    if got.shape != wanted.shape:
        raise AnnotatorError(
            f"expected the segmentation to have the shape {wanted.shape} of {truth.name}, but got {got.shape}; "
            "give the label file that belongs to this image"
        )
    if len(labels) == 1 and set(np.unique(wanted).tolist()) <= {0, FOREGROUND}:
        wanted = (wanted > 0) * next(iter(labels.values()))
    return {name: _dice(got == index, wanted == index) for name, index in labels.items()}


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def point_of_cases(labels: int, version: int | None, cases: Mapping[str, Mapping[str, float]]) -> Point:
    """Mean and spread of Dice over images, and the mean per class."""
    means = [float(np.mean(list(case.values()))) for case in cases.values()]
    names = next(iter(cases.values()), {})
    per_class = {name: float(np.mean([case[name] for case in cases.values()])) for name in names}
    dice, spread = (float(np.mean(means)), float(np.std(means))) if means else (None, None)
    return Point(labels, version, "held-out images", dice, spread, per_class, {k: dict(v) for k, v in cases.items()})


def point_of_stats(labels: int, stats: Mapping[str, Any]) -> Point:
    """The server's own validation Dice from train_stats; None where it has no validation cases yet."""
    metrics = stats.get("eval", {}).get("metrics", {})
    per_class = {k.removeprefix("val_dice_"): v for k, v in metrics.items() if k.startswith("val_dice_")}
    dice = metrics.get("val_mean_dice")
    return Point(labels, stats.get("version"), "the server's validation cases", dice, None, per_class)


def held_out_pairs(folder: Path) -> dict[Path, Path]:
    """Images of a folder with `images` and `labels`, each with its truth. Raises `AnnotatorError` when there is none."""
    labels = truth_files(folder / "labels")
    images = [p for p in sorted((folder / "images").iterdir()) if p.is_file() and not p.name.startswith(".")]
    pairs = {image: labels[stem_of(image.name)] for image in images if stem_of(image.name) in labels}
    if not pairs:
        raise AnnotatorError(
            f"expected images and labels of the same name in {folder}, but found none; name another folder"
        )
    return pairs
