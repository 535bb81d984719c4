import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from unit.helpers import affine_of, nifti, noise, png, reoriented

from lib.core.images import CaseError, read_label
from lib.server.labels import checked_label, label_info_of, sha256_of

SHAPE = (7, 9, 5)
LABELS = {"malignant": 1, "benign": 2}


@pytest.fixture
def study(tmp_path):
    return nifti(tmp_path / "study.nii.gz", noise(*SHAPE).astype(np.float32), affine_of("LPS", SHAPE, (1.0, 1.0, 2.0)))


def mask(tmp_path, values, affine, name="label.nii.gz"):
    return nifti(tmp_path / name, values.astype(np.uint8), affine)


def segments():
    """Two objects numbered 1 and 2."""
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 2:6, 1:3] = 1
    values[4:6, 1:8, 2:4] = 2
    return values


def read(path):
    return read_label(path).array[0].numpy()


def test_class_indices_on_the_images_grid_are_kept_as_they_are(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    assert checked_label(path, study, LABELS, None) == (path, LABELS)


def test_a_value_between_the_configured_ones_is_refused(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    with pytest.raises(CaseError, match=r"expected label values 0, 2 \(polyp\), but got \[1\]"):
        checked_label(path, study, {"polyp": 2}, None)


def test_classes_found_are_those_that_are_drawn(tmp_path, study):
    values = segments()
    values[values == 1] = 0
    path = mask(tmp_path, values, nib.load(study).affine)
    assert checked_label(path, study, LABELS, None) == (path, {"benign": 2})
    empty = mask(tmp_path, values * 0, nib.load(study).affine, "empty.nii.gz")
    assert checked_label(empty, study, LABELS, None) == (empty, {})


def test_slicer_numbers_segments_in_order_while_idx_counts_skipped_ones(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    info = [{"name": "benign", "idx": 2}, {"name": "malignant", "idx": 4}]  # segments 1 and 3 were left out
    kept, found = checked_label(path, study, LABELS, info)
    assert kept != path
    assert found == LABELS
    expected = np.choose(segments(), [0, 2, 1])
    np.testing.assert_array_equal(read(kept), expected)
    np.testing.assert_allclose(nib.load(kept).affine, nib.load(study).affine)


@pytest.mark.parametrize(("value", "name"), [(1, "malignant"), (2, "benign")])
def test_slicer_with_one_segment_left_out_and_one_left_empty(tmp_path, study, value, name):
    values = (segments() == value) * value
    path = mask(tmp_path, values, nib.load(study).affine)
    info = [{"name": "malignant", "idx": 2}, {"name": "benign", "idx": 3}]  # segment 1 is the background
    assert checked_label(path, study, LABELS, info) == (path, {name: value})


def test_idx_that_are_the_configured_indices_win_over_the_order(tmp_path, study):
    path = mask(tmp_path, (segments() == 1) * 2, nib.load(study).affine)
    info = [{"name": "malignant", "idx": 2}, {"name": "benign", "idx": 3}]
    assert checked_label(path, study, {"malignant": 2, "benign": 3}, info) == (path, {"malignant": 2})


def test_segments_in_another_order(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    info = [{"name": "benign", "idx": 1}, {"name": "malignant", "idx": 2}]
    kept, found = checked_label(path, study, LABELS, info)
    np.testing.assert_array_equal(read(kept), np.choose(segments(), [0, 2, 1]))
    assert found == LABELS


def test_values_that_are_idx_themselves(tmp_path, study):
    path = mask(tmp_path, segments() * 3, nib.load(study).affine)
    info = [{"name": "malignant", "idx": 3}, {"name": "benign", "idx": 6}]
    kept, _ = checked_label(path, study, LABELS, info)
    np.testing.assert_array_equal(read(kept), segments())


def test_matching_label_info_keeps_the_file(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    info = [{"name": "malignant", "idx": 1}, {"name": "benign", "idx": 2}]
    assert checked_label(path, study, LABELS, info) == (path, LABELS)


def test_unknown_segment_names_are_refused(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    info = [{"name": "Segment_1", "idx": 1}, {"name": "benign", "idx": 2}]
    message = r"^label\.nii\.gz: expected segments named malignant, benign, but got Segment_1; rename them and submit"
    with pytest.raises(CaseError, match=message):
        checked_label(path, study, LABELS, info)


def test_an_unknown_name_that_was_not_drawn_does_no_harm(tmp_path, study):
    path = mask(tmp_path, segments(), nib.load(study).affine)
    info = [{"name": "malignant", "idx": 1}, {"name": "benign", "idx": 2}, {"name": "scribbles", "idx": 3}]
    assert checked_label(path, study, LABELS, info)[1] == LABELS


def test_unknown_values_are_refused(tmp_path, study):
    path = mask(tmp_path, segments() * 4, nib.load(study).affine)
    with pytest.raises(CaseError, match=r"expected label values 0 to 2, but got \[4, 8\]; use the configured labels"):
        checked_label(path, study, LABELS, None)


def test_another_shape_is_refused(tmp_path, study):
    path = mask(tmp_path, segments()[:-1], nib.load(study).affine)
    with pytest.raises(CaseError, match=r"expected a label of shape \(7, 9, 5\) like its image, but got \(6, 9, 5\)"):
        checked_label(path, study, LABELS, None)


@pytest.mark.parametrize("name", ["label.nii.gz", "label.nii", "label.nrrd"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL"])
def test_a_rewritten_label_lies_on_its_image(tmp_path, study, codes, name):
    """The image is stored in LPS, the label as the viewer likes; what is kept has the voxels of the image."""
    affine = nib.load(study).affine
    turned, turned_affine = reoriented(segments(), affine, codes)
    upload = mask(tmp_path, turned, turned_affine, name if name != "label.nrrd" else "upload.nii.gz")
    if name == "label.nrrd":
        upload = as_nrrd(tmp_path / name, upload)
    info = [{"name": "benign", "idx": 1}, {"name": "malignant", "idx": 2}]
    kept, found = checked_label(upload, study, LABELS, info)
    assert kept.endswith(name.removeprefix("label"))
    assert found == LABELS
    label = read_label(kept)
    np.testing.assert_allclose(label.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(label.array[0].numpy(), np.choose(segments(), [0, 2, 1]))


def as_nrrd(path, source):
    import nrrd

    image = nib.load(source)
    affine = np.diag([-1, -1, 1, 1]) @ image.affine
    header = {
        "space": "left-posterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(path), np.asarray(image.dataobj), header)
    return str(path)


# --- pictures


@pytest.fixture
def picture(tmp_path):
    return png(tmp_path / "picture.png", noise(20, 30, 3))


def test_a_mask_of_0_and_255_is_rewritten_to_class_indices(tmp_path, picture):
    rows = noise(20, 30, high=2) * 255
    path = png(tmp_path / "label.png", rows)
    kept, found = checked_label(path, picture, {"polyp": 1}, None)
    assert kept != path
    assert kept.endswith(".png")
    assert found == {"polyp": 1}
    np.testing.assert_array_equal(read(kept), rows.T // 255)


def test_a_mask_of_0_and_1_is_kept(tmp_path, picture):
    path = png(tmp_path / "label.png", noise(20, 30, high=2))
    assert checked_label(path, picture, {"polyp": 1}, None) == (path, {"polyp": 1})


def test_a_volume_label_of_a_picture_is_taken(tmp_path, picture):
    rows = noise(20, 30, high=2)
    path = nifti(tmp_path / "label.nii.gz", rows.T[..., None])
    kept, found = checked_label(path, picture, {"polyp": 1}, None)
    assert found == {"polyp": 1}
    np.testing.assert_array_equal(np.squeeze(read(kept)), rows.T)


def test_another_file_type_is_refused(tmp_path, picture):
    (tmp_path / "label.txt").write_text("1")
    with pytest.raises(CaseError, match=r"^label\.txt: expected a label as one of \.png.*but got another type"):
        checked_label(tmp_path / "label.txt", picture, {"polyp": 1}, None)


def test_an_empty_upload_is_refused(tmp_path, picture):
    (tmp_path / "label.png").touch()
    with pytest.raises(CaseError, match=r"^label\.png: expected an image, but the file is empty \(0 bytes\)"):
        checked_label(tmp_path / "label.png", picture, {"polyp": 1}, None)


# --- small things


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_label_info_in_all_its_forms():
    entry = {"name": "polyp", "idx": 1}
    assert label_info_of({"label_info": [entry, {"idx": 2}, "x"]}) == [entry]
    assert label_info_of({"label_info": json.dumps([entry])}) == [entry]
    assert [label_info_of(p) for p in ({}, {"label_info": "no json"}, {"label_info": {"a": 1}})] == [None] * 3


def test_no_file_is_left_behind(tmp_path, picture, monkeypatch):
    import tempfile

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = png(tmp_path / "label.png", noise(20, 30, high=2) * 255)
    kept, _ = checked_label(path, picture, {"polyp": 1}, None)
    assert [p.name for p in scratch.iterdir()] == [Path(kept).name]
