import logging
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch
from PIL import Image
from unit.helpers import ORIENTATIONS, affine_of, nifti, noise, png, reoriented

from lib.core.images import (
    CaseError,
    LoadedImage,
    class_indices,
    is_picture,
    label_on_image,
    read_header,
    read_image,
    read_label,
    suffix_of,
    unit_range,
)

SHAPE, SPACING = (5, 7, 4), (1.0, 2.0, 3.0)


@pytest.fixture
def volume(tmp_path):
    return nifti(tmp_path / "v.nii.gz", noise(*SHAPE).astype(np.float32), affine_of("LPS", SHAPE, SPACING))


def loaded(array, affine=None):
    return LoadedImage(torch.as_tensor(np.asarray(array)), affine)


# --- pictures


def test_a_picture_has_columns_first(tmp_path):
    rows = noise(4, 6, 3)
    image = read_image(png(tmp_path / "a.png", rows))
    assert image.affine is None
    assert image.array.dtype == torch.float32
    np.testing.assert_array_equal(image.array.numpy(), rows.transpose(2, 1, 0))


def test_a_grey_picture_has_one_channel(tmp_path):
    rows = noise(4, 6)
    np.testing.assert_array_equal(read_image(png(tmp_path / "a.png", rows)).array.numpy()[0], rows.T)


def test_transparency_of_rgba_is_dropped(tmp_path):
    rows = noise(4, 6, 4)
    image = read_image(png(tmp_path / "a.png", rows))
    np.testing.assert_array_equal(image.array.numpy(), rows[..., :3].transpose(2, 1, 0))


def test_transparency_of_grey_is_dropped(tmp_path):
    rows = noise(4, 6, 2)
    image = read_image(png(tmp_path / "a.png", rows))
    np.testing.assert_array_equal(image.array.numpy()[0], rows[..., 0].T)
    assert image.array.shape == (1, 6, 4)


def test_16_bit_png_keeps_its_values_and_is_scaled_to_the_unit_range(tmp_path):
    rows = np.linspace(1000, 60000, 24, dtype=np.uint16).reshape(4, 6)
    array = read_image(png(tmp_path / "a.png", rows)).array
    np.testing.assert_array_equal(array.numpy()[0], rows.T)
    scaled = unit_range(array, picture=True)
    assert float(scaled.min()) == pytest.approx(0, abs=1e-3)
    assert float(scaled.max()) == pytest.approx(1, abs=1e-3)
    assert float(scaled[0, 3, 2] - scaled[0, 2, 2]) > 0


def test_is_picture():
    assert is_picture("x/A.PNG")
    assert not is_picture("x/a.nii.gz")


# --- volumes


def test_a_volume_keeps_its_affine(volume):
    image = read_image(volume)
    assert image.array.shape == (1, *SHAPE)
    np.testing.assert_allclose(image.affine, nib.load(volume).affine)


def test_a_one_slice_volume(tmp_path):
    image = read_image(nifti(tmp_path / "one.nii.gz", noise(5, 7, 1).astype(np.float32)))
    assert image.array.shape == (1, 5, 7, 1)


@pytest.mark.parametrize("harm", ["no thickness", "parallel axes", "nan"])
def test_a_volume_without_a_place_in_space_is_refused(tmp_path, harm):
    affine = np.diag([1.0, 1.0, 0.0 if harm == "no thickness" else 2.0, 1.0])
    if harm == "parallel axes":
        affine[:3, 1] = affine[:3, 0]
    if harm == "nan":
        affine[0, 3] = np.nan
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "v.nii")
    header = nib.load(tmp_path / "v.nii").header.copy()
    header["sform_code"], header["qform_code"] = 1, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)  # MONAI takes the qform where these differ
    content = (tmp_path / "v.nii").read_bytes()  # nibabel would not write such a file
    (tmp_path / "v.nii").write_bytes(header.binaryblock + content[header.sizeof_hdr :])
    for read in (read_image, read_label):
        with pytest.raises(CaseError, match=r"v.nii: expected a header with three directions .* correct its affine"):
            read(tmp_path / "v.nii")


def test_a_nifti_picture_of_two_axes(tmp_path):
    image = read_image(nifti(tmp_path / "two.nii.gz", noise(5, 7).astype(np.float32)))
    assert image.array.shape[:3] == (1, 5, 7)
    assert image.affine.shape == (4, 4)


def test_nan_is_read_as_the_minimum_with_a_warning(tmp_path, caplog):
    array = noise(*SHAPE, low=10, high=90).astype(np.float32)
    array[1, 2, 3], array[0, 0, 0], array[2, 2, 2] = np.nan, np.inf, -np.inf
    path = nifti(tmp_path / "nan.nii.gz", array)
    with caplog.at_level(logging.WARNING):
        read = read_image(path).array
    low = array[np.isfinite(array)].min()
    assert [float(read[0, 1, 2, 3]), float(read[0, 0, 0, 0]), float(read[0, 2, 2, 2])] == [low] * 3
    assert float(read[0, 4, 6, 3]) == array[4, 6, 3]
    assert "nan.nii.gz: 3 values are NaN or infinite; they are read as the minimum" in caplog.text


def test_all_nan_is_refused(tmp_path):
    path = nifti(tmp_path / "nan.nii.gz", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(CaseError, match=r"^nan\.nii\.gz: expected an image, but every value is NaN or infinite"):
        read_image(path)


def test_a_series_of_volumes_is_refused(tmp_path):
    path = nifti(tmp_path / "cine.nii.gz", noise(5, 7, 4, 5).astype(np.float32))
    with pytest.raises(CaseError, match=r"^cine\.nii\.gz: expected a"):
        read_image(path)
    with pytest.raises(CaseError, match=r"cine\.nii\.gz: .*a series of 5 volumes"):
        read_header(path)


# --- what cannot be read


@pytest.mark.parametrize("read", [read_image, read_label, read_header])
@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.nrrd"])
def test_an_empty_file_is_refused_by_name(tmp_path, read, name):
    (tmp_path / name).touch()
    with pytest.raises(
        CaseError, match=rf"^{name}: expected an image, but the file is empty \(0 bytes\); copy it again"
    ):
        read(tmp_path / name)


@pytest.mark.parametrize("read", [read_image, read_label, read_header])
@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.nrrd"])
def test_garbage_is_refused_by_name(tmp_path, read, name):
    (tmp_path / name).write_bytes(b"this is no image " * 40)
    with pytest.raises(CaseError, match=rf"^{name}: expected an image, but it cannot be read \(.+\); copy it again"):
        read(tmp_path / name)


def test_a_truncated_picture_is_refused(tmp_path):
    path = tmp_path / "half.png"
    png(path, noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CaseError, match=r"^half\.png: expected an image, but it cannot be read"):
        read_image(path)


def test_a_truncated_volume_is_refused(tmp_path, volume):
    path = tmp_path / "half.nii.gz"
    path.write_bytes(Path(volume).read_bytes()[:150])
    with pytest.raises(CaseError, match=r"^half\.nii\.gz: expected an image, but it cannot be read"):
        read_image(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CaseError, match=r"^gone\.png: expected a file, but there is none"):
        read_image(tmp_path / "gone.png")


# --- headers


def test_header_of_pictures(tmp_path):
    colour = read_header(png(tmp_path / "c.png", noise(4, 6, 3)))
    assert (colour.shape, colour.spacing, colour.colour) == ((6, 4), (1.0, 1.0), True)
    grey = read_header(png(tmp_path / "g.png", noise(4, 6)))
    assert (grey.shape, grey.colour) == ((6, 4), False)
    assert not read_header(png(tmp_path / "g16.png", noise(4, 6, high=9999, dtype=np.uint16))).colour
    assert not read_header(png(tmp_path / "ga.png", noise(4, 6, 2))).colour
    assert read_header(png(tmp_path / "ca.png", noise(4, 6, 4))).colour


def test_header_of_nifti(volume):
    header = read_header(volume)
    assert (header.shape, header.colour) == (SHAPE, False)
    assert header.spacing == pytest.approx(SPACING)


def test_header_of_nrrd_agrees_with_nifti(tmp_path):
    array = noise(*SHAPE).astype(np.float32)
    header = {"space": "left-posterior-superior", "space directions": np.diag(SPACING), "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "v.nrrd"), array, header)
    read = read_header(tmp_path / "v.nrrd")
    assert (read.shape, read.colour) == (SHAPE, False)
    assert read.spacing == pytest.approx(SPACING)
    image = read_image(tmp_path / "v.nrrd")
    np.testing.assert_array_equal(image.array.numpy()[0], array)
    np.testing.assert_allclose(image.affine, np.diag([-1.0, -2.0, 3.0, 1.0]))


# --- labels


def test_label_values_come_as_stored(tmp_path):
    rows = noise(4, 6, high=3)
    label = read_label(png(tmp_path / "l.png", rows))
    assert label.array.dtype == torch.int64
    np.testing.assert_array_equal(label.array.numpy()[0], rows.T)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_grey_label_saved_in_colour_is_read(tmp_path, channels):
    rows = np.repeat(noise(4, 6, 1, high=2) * 255, channels, axis=2)
    np.testing.assert_array_equal(read_label(png(tmp_path / "l.png", rows)).array.numpy()[0], rows[..., 0].T)


def test_a_coloured_label_is_refused(tmp_path):
    with pytest.raises(CaseError, match=r"^l\.png: expected one value per pixel, but got 3 channels; send a label map"):
        read_label(png(tmp_path / "l.png", noise(4, 6, 3)))


def test_a_label_with_fractions_is_refused(tmp_path):
    path = nifti(tmp_path / "l.nii.gz", np.full(SHAPE, 0.25, np.float32))
    with pytest.raises(CaseError, match=r"expected whole numbers, but the label holds fractions; send a label map"):
        read_label(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_label_with_nan_is_refused(tmp_path, bad):
    array = np.zeros(SHAPE, np.float32)
    array[1, 1, 1] = bad
    with pytest.raises(CaseError, match=r"^l\.nii\.gz: expected whole numbers, but the label holds NaN or infinite"):
        read_label(nifti(tmp_path / "l.nii.gz", array))


def test_a_label_of_another_shape_is_refused():
    label, image = loaded(np.zeros((1, 5, 6), np.int64)), loaded(np.zeros((3, 6, 5), np.float32))
    with pytest.raises(
        CaseError, match=r"^l\.png: expected a label of shape \(6, 5\) like its image, but got \(5, 6\)"
    ):
        label_on_image(label, image, "l.png")


def test_a_volume_label_of_another_shape_is_refused():
    label = loaded(np.zeros((1, 5, 7, 3), np.int64), np.eye(4))
    image = loaded(np.zeros((1, 5, 7, 4), np.float32), np.diag([1, 1, 2.0, 1]))
    with pytest.raises(CaseError, match=r"expected a label of shape \(5, 7, 4\) like its image, but got \(5, 7, 3\)"):
        label_on_image(label, image, "l.nii")


def test_a_flat_label_fits_a_one_slice_volume():
    values = noise(1, 5, 7, high=3, dtype=np.int64)
    image = loaded(np.zeros((1, 5, 7, 1), np.float32), np.eye(4))
    fitted = label_on_image(loaded(values), image, "l.png")
    np.testing.assert_array_equal(fitted.numpy(), values[..., None])


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_label_stored_in_any_orientation_lands_on_the_voxels_of_its_image(codes):
    affine = affine_of("LPS", SHAPE, SPACING)
    values = noise(*SHAPE, high=4)
    turned, turned_affine = reoriented(values, affine, codes)
    image = loaded(np.zeros((1, *SHAPE), np.float32), affine)
    label = loaded(turned[None].astype(np.int64), turned_affine)
    got = label_on_image(label, image, "l.nii")
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(got.numpy()[0], values)


def test_unknown_label_values_are_refused():
    with pytest.raises(CaseError, match=r"^l\.png: expected label values 0 to 2, but got \[3, 7\]; use the configured"):
        class_indices(torch.tensor([0, 1, 3, 7]), 3, "l.png")
    with pytest.raises(CaseError, match=r"expected label values 0 to 1, but got \[-1\]"):
        class_indices(torch.tensor([0, -1]), 2, "l.png")


def test_a_mask_of_0_and_255_means_one_class():
    got = class_indices(torch.tensor([0, 255, 0, 255]), 2, "l.png")
    assert got.dtype == torch.uint8
    assert got.tolist() == [0, 1, 0, 1]
    with pytest.raises(CaseError, match=r"but got \[255\]"):
        class_indices(torch.tensor([0, 255]), 3, "l.png")
    with pytest.raises(CaseError, match=r"but got \[255\]"):
        class_indices(torch.tensor([0, 1, 255]), 2, "l.png")


def test_an_empty_mask_is_a_label():
    assert class_indices(torch.zeros(4, dtype=torch.int64), 2, "l.png").tolist() == [0] * 4


# --- intensities


def test_pictures_are_divided_by_255():
    assert unit_range(torch.tensor([[[0.0, 51.0, 255.0]]]), picture=True).flatten().tolist() == pytest.approx(
        [0, 0.2, 1]
    )


def test_volumes_are_scaled_by_percentiles_and_clipped():
    ramp = torch.arange(1001.0).reshape(1, 7, 11, 13)
    scaled = unit_range(ramp, picture=False).flatten()
    assert scaled[[0, 5, 500, 995, 1000]].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-4)
    assert float(scaled[104]) == pytest.approx(0.1, abs=1e-3)


def test_a_constant_volume_is_zero():
    assert not bool(unit_range(torch.full((1, 3, 3, 3), 7.0), picture=False).any())


def test_a_nearly_constant_volume_is_finite():
    array = torch.zeros(1, 20, 20, 20)
    array[0, 3, 3, 3] = 9.0
    scaled = unit_range(array, picture=False)
    assert type(scaled) is torch.Tensor
    assert bool(torch.isfinite(scaled).all())
    assert 0 <= float(scaled.min()) <= float(scaled.max()) <= 1


def test_a_palette_label_is_read_by_index(tmp_path):
    rows = noise(4, 6, high=3)
    picture = Image.fromarray(rows, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_label(tmp_path / "l.png").array.numpy()[0], rows.T)


def test_a_meta_image_is_read_like_the_same_volume_in_nifti(tmp_path):
    import SimpleITK

    affine = affine_of("LPS", (5, 6, 4), (1.5, 2.0, 3.0))
    path = nifti(tmp_path / "v.nii.gz", noise(5, 6, 4).astype(np.int16), affine)
    SimpleITK.WriteImage(SimpleITK.ReadImage(path), str(tmp_path / "v.mha"))
    (tmp_path / "v.mha").rename(tmp_path / "v.MHA")
    expected, got = read_image(path), read_image(tmp_path / "v.MHA")
    np.testing.assert_array_equal(got.array.numpy(), expected.array.numpy())
    np.testing.assert_allclose(got.affine, expected.affine, atol=1e-5)
    assert read_header(tmp_path / "v.MHA").shape == (5, 6, 4)


def test_the_suffix_is_the_longest_that_fits():
    assert [suffix_of(n) for n in ("a.NII.GZ", "a.b.png", "case.1.jpeg", "a.txt", "png")] == [
        ".nii.gz", ".png", ".jpeg", "", "",
    ]  # fmt: skip
