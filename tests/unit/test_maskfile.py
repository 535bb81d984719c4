"""Label maps written and read again with other libraries: no voxel moves, whatever the format."""

import numpy as np
import pytest
import SimpleITK
from PIL import Image
from studies import affine_of

from lib.core.images import CaseError, read_label
from lib.maskfile import write_mask

AFFINES = {name: affine_of(name, (1.5, 0.7, 4.0)) for name in ("RAS", "LPS", "PIR", "SLA")}
TURN = np.array([[0.8, -0.48, 0.36], [0.6, 0.64, -0.48], [0.0, 0.6, 0.8]])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".seg.nrrd"])
@pytest.mark.parametrize("orientation", [*AFFINES, "oblique", "sheared"])
def test_volumes_keep_values_and_place(tmp_path, suffix, orientation):
    affine = AFFINES.get(orientation, AFFINES["RAS"]).copy()
    if orientation == "oblique":
        affine[:3, :3] = TURN @ affine[:3, :3]
    if orientation == "sheared":
        affine[0, 2] = 0.3
    write_mask(drawn(5, 4, 3), affine, tmp_path / f"mask{suffix}")
    read = read_label(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(read.array[0].numpy(), drawn(5, 4, 3))
    np.testing.assert_allclose(read.affine, affine, atol=1e-4)


def test_a_metaimage_keeps_values_and_place(tmp_path):
    write_mask(drawn(5, 4, 3), AFFINES["PIR"], tmp_path / "mask.mha")
    read = SimpleITK.ReadImage(str(tmp_path / "mask.mha"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read).T, drawn(5, 4, 3))
    last = np.array(read.TransformIndexToPhysicalPoint((4, 3, 2)))
    np.testing.assert_allclose(last * (-1, -1, 1), (AFFINES["PIR"] @ (4, 3, 2, 1))[:3], atol=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_pictures_keep_their_rows_and_columns(tmp_path, suffix):
    write_mask(drawn(6, 4), None, tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / f"mask{suffix}")), drawn(6, 4).T)


def test_a_picture_can_be_a_volume_file_and_voxels_can_have_another_type(tmp_path):
    write_mask(drawn(6, 4), None, tmp_path / "mask.nrrd", "int16", compress=True)
    header = (tmp_path / "mask.nrrd").read_bytes().split(b"\n\n")[0]
    assert b"type: short" in header
    assert b"sizes: 6 4" in header
    assert b"encoding: gz" in header


def test_a_format_that_cannot_hold_it_is_a_sentence(tmp_path):
    with pytest.raises(CaseError, match=r"expected a format that holds a 2D float32 label map.*uint8"):
        write_mask(drawn(6, 4), None, tmp_path / "mask.png", "float32")
