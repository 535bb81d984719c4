"""Tiny studies with known truth, written to a folder the way a user would have them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image


def blob(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """Boolean ball in voxels."""
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def write_frames(folder: Path, truth: Path, count: int, size: tuple[int, int] = (72, 56), seed: int = 0) -> list[str]:
    """Colour PNG frames (width, height) with one bright lesion each; truth as 0/1 PNG masks. Returns the ids."""
    folder.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ids = []
    for number in range(count):
        height, width = size[1], size[0]
        mask = blob((height, width), (rng.uniform(15, height - 15), rng.uniform(15, width - 15)), rng.uniform(8, 12))
        image = rng.normal((150, 80, 70), 12, (height, width, 3)) + 50 * mask[..., None]
        ids.append(f"frame_{number:03d}")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{ids[-1]}.png")
        Image.fromarray(mask.astype(np.uint8)).save(truth / f"{ids[-1]}.png")
    return ids


def affine_of(orientation: str, spacing: tuple[float, float, float]) -> np.ndarray:
    """Voxel-to-RAS matrix of a volume whose axes point to e.g. "LPS", spacing in mm per voxel axis."""
    axes = nib.orientations.axcodes2ornt(tuple(orientation))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (ras_axis, direction) in enumerate(axes):
        affine[int(ras_axis), voxel_axis] = direction * spacing[voxel_axis]
    affine[:3, 3] = (-7.0, 11.0, 5.0)
    return affine


def write_volumes(
    folder: Path,
    truth: Path,
    count: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    orientations: tuple[str, ...] = ("RAS",),
    classes: int = 1,
    seed: int = 0,
) -> list[str]:
    """NIfTI volumes of patient001, patient002, ... with one bright ball per class. Returns the ids."""
    folder.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ids = []
    for number in range(count):
        label = np.zeros(shape, np.uint8)
        for index in range(1, classes + 1):
            centre = [rng.uniform(0.3 * n, 0.7 * n) for n in shape]
            label[blob(shape, tuple(centre), max(2.5, 0.2 * min(shape)))] = index
        image = rng.normal(100, 10, shape) + 80 * label
        affine = affine_of(orientations[number % len(orientations)], spacing)
        ids.append(f"patient{number:03d}_frame01")
        nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / f"{ids[-1]}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), truth / f"{ids[-1]}.nii.gz")
    return ids
