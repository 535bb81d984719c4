import numpy as np
import pytest
import torch
from unit.helpers import FRAME, SLICE, VOLUME, affine_of, nifti, noise, png

from lib.core.cases import Record, labelled_groups, load_case, patient_of, split_records
from lib.core.images import CaseError


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("patient001_frame01", "patient001"),
        ("Patient001_frame02", "patient001"),
        ("sub-03_ses-2", "sub-03"),
        ("video7_0012", "video7"),
        ("case_12_slice3", "case_12"),
        ("cju0qkwl35piu0993l0dewei2", "cju0qkwl35piu0993l0dewei2"),
        ("IMG_0001", "img_0001"),
    ],
)
def test_patient_of_a_name(name, patient):
    assert patient_of(name) == patient


def test_patient_of_a_given_pattern():
    assert patient_of("hospitalA_77_b", r"^([^_]+_\d+)") == "hospitala_77"
    assert patient_of("other", r"^(\d+)") == "other"


def record(name, label=False, group=None):
    return Record(name, f"{name}.png", f"{name}_l.png" if label else None, group or name[0])


RECORDS = [record("b2"), record("a1", True), record("c1", True), record("a2"), record("b1", True), record("d1")]


def test_validation_patients_are_nowhere_else():
    split = split_records(RECORDS, {"b": "validation", "a": "train"})
    assert [r.id for r in split.validation] == ["b1"]
    assert [r.id for r in split.labelled] == ["a1", "c1"]  # c has no side: it trains
    assert [r.id for r in split.unlabelled] == ["a2", "d1"]  # b2 belongs to a validation patient
    groups = {r.group for r in split.validation}
    assert not groups & {r.group for r in (*split.labelled, *split.unlabelled)}


def test_the_order_of_the_studies_does_not_matter():
    assert split_records(RECORDS, {}) == split_records(RECORDS[::-1], {})


def test_labelled_groups():
    assert labelled_groups([*RECORDS, record("a3", True)]) == ["a", "b", "c"]


# --- loading


def test_a_colour_frame(tmp_path):
    rows, mask = noise(20, 30, 3), noise(20, 30, high=2) * 255
    case = load_case(png(tmp_path / "a.png", rows), png(tmp_path / "l.png", mask), FRAME, 2, keep_native=True)
    np.testing.assert_allclose(case.image.numpy(), rows.transpose(2, 1, 0) / 255, atol=1e-6)
    np.testing.assert_array_equal(case.label.numpy()[0], mask.T // 255)
    np.testing.assert_array_equal(case.native_label.numpy()[0], mask.T // 255)
    assert case.label.dtype == torch.uint8


def test_a_grey_frame_becomes_three_channels(tmp_path):
    case = load_case(png(tmp_path / "a.png", noise(20, 30)), None, FRAME, 2)
    assert tuple(case.image.shape) == (3, 30, 20)
    assert torch.equal(case.image[0], case.image[2])
    assert case.label is None
    assert case.native_label is None


def test_a_one_slice_volume_as_a_frame(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", noise(20, 30, 1).astype(np.float32))
    label = nifti(tmp_path / "l.nii.gz", noise(20, 30, 1, high=2))
    case = load_case(path, label, FRAME, 2, keep_native=True)
    assert tuple(case.image.shape) == (3, 20, 30)
    assert tuple(case.label.shape) == (1, 20, 30)
    assert tuple(case.native_label.shape) == (1, 20, 30, 1)


def test_a_volume_is_no_frame(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", noise(8, 9, 7).astype(np.float32))
    with pytest.raises(CaseError, match=r"^a\.nii\.gz: expected one picture, but got a volume of shape \(8, 9, 7\)"):
        load_case(path, None, FRAME, 2)


@pytest.mark.parametrize("data", [SLICE, VOLUME], ids=["slice", "volume"])
def test_a_volume_and_its_label_stay_together(tmp_path, data):
    shape = (12, 18, 7)
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 3:15, 1:4] = 2
    affine = affine_of("LSA", shape, (1.0, 2.0, 1.0))
    image = nifti(tmp_path / "a.nii.gz", mask.astype(np.float32) * 300, affine)
    label = nifti(tmp_path / "l.nii.gz", mask, affine)
    case = load_case(image, label, data, 3, keep_native=True)
    assert tuple(case.image.shape) == (1, *case.grid.working_shape)
    assert case.image.dtype == torch.float32
    assert 0 <= float(case.image.min()) < float(case.image.max()) <= 1
    assert set(case.label.unique().tolist()) == {0, 2}
    disagreement = ((case.image[0] > 0.5) != (case.label[0] == 2)).float().mean()
    assert float(disagreement) < 0.02
    np.testing.assert_array_equal(case.native_label.numpy()[0], mask)


def test_a_colour_picture_as_a_slice_becomes_grey(tmp_path):
    case = load_case(png(tmp_path / "a.png", noise(20, 30, 3)), None, SLICE, 2)
    assert case.image.shape[0] == 1
    assert case.image.ndim == 4


def test_nan_in_an_image_never_reaches_the_case(tmp_path):
    array = noise(8, 9, 7).astype(np.float32)
    array[:2] = np.nan
    case = load_case(nifti(tmp_path / "a.nii.gz", array), None, VOLUME, 2)
    assert bool(torch.isfinite(case.image).all())


@pytest.mark.parametrize(
    ("image", "label", "sentence"),
    [
        ("a.png", "small.png", r"small.png: expected a label of shape \(30, 20\) like its image, but got \(29, 20\)"),
        ("a.png", "unknown.png", "unknown.png: expected label values 0 to 1, but got"),
        ("zero.png", "good.png", r"zero.png: expected an image, but the file is empty \(0 bytes\)"),
        ("a.png", "zero.png", r"zero.png: expected an image, but the file is empty \(0 bytes\)"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_by_name(tmp_path, image, label, sentence):
    png(tmp_path / "a.png", noise(20, 30, 3))
    png(tmp_path / "good.png", noise(20, 30, high=2))
    png(tmp_path / "small.png", noise(20, 29, high=2))
    png(tmp_path / "unknown.png", noise(20, 30, high=9))
    (tmp_path / "zero.png").touch()
    with pytest.raises(CaseError, match=sentence):
        load_case(str(tmp_path / image), str(tmp_path / label), FRAME, 2)
