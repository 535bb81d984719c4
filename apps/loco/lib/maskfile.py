"""Label maps as files of the formats that viewers ask for, on the voxels of their image.

MONAI Label's writer loads most of ITK at the first mask of a process, some ten seconds for the annotator who presses Run
first; SimpleITK writes the same files and is ready at once. NIfTI of volumes is written by nibabel: ITK would make the axes of
a sheared grid (a tilted gantry) orthogonal, and the mask would lie elsewhere than its image.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from numpy.typing import DTypeLike

from lib.core.images import CaseError

_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def write_mask(
    mask: np.ndarray, affine: np.ndarray | None, path: Path, dtype: DTypeLike = np.uint8, compress: bool = False
) -> None:
    """Write a label map; the end of `path` says in which format.

    Args:
        mask: `X Y` of a picture or `X Y Z` of a volume, whole numbers.
        affine: 4 x 4 voxel-to-RAS in mm; None for a picture, which has no place in space.
        path: an existing file is replaced.
        dtype: NumPy type of the voxels.
        compress: for formats that can be either.

    Raises:
        CaseError: the format cannot hold such voxels.
    """
    if affine is not None and mask.ndim == 3 and str(path).lower().endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(mask.astype(dtype), affine), path)
        return
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(mask.T.astype(dtype)))
    if affine is not None and mask.ndim == 3:
        axes = _TO_LPS @ affine[:3, :3]
        spacing = np.linalg.norm(axes, axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((axes / spacing).ravel().tolist())
        image.SetOrigin((_TO_LPS @ affine[:3, 3]).tolist())
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=compress)
    except RuntimeError as e:
        kind = f"{mask.ndim}D {np.dtype(dtype).name}"
        raise CaseError(path, f"expected a format that holds a {kind} label map, but this one does not; ask for "
                              ".nrrd, .nii.gz or, of a picture, .png with uint8") from e  # fmt: skip
