import numpy as np
import torch
from unit.helpers import SLICE, affine_of, nifti

from lib.core.cases import load_case
from lib.core.overlay import BOTH, LABEL, PREDICTION, contours, overlay


def grey(*shape):
    return torch.full((1, *shape), 0.5)


def square(shape, *corners):
    mask = torch.zeros(shape, dtype=torch.uint8)
    mask[tuple(slice(a, b) for a, b in corners)] = 1
    return mask


def found(picture, colour):
    """Bool `rows columns`."""
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def test_contours_are_the_outermost_pixels_of_each_class():
    label = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 2, 2], [1, 1, 1, 2, 2]])
    assert contours(label).astype(int).tolist() == [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert not contours(0 * label).any()


def test_a_frame_has_rows_and_columns_the_way_it_is_seen():
    columns, rows = 300, 260
    label = square((columns, rows), (10, 110), (20, 60))
    picture = overlay(grey(columns, rows).expand(3, -1, -1), label, square((columns, rows), (200, 220), (20, 60)))
    assert picture.shape == (rows, columns, 3)
    assert picture.dtype == np.uint8
    at = np.argwhere(found(picture, LABEL))
    assert (at.min(0).tolist(), at.max(0).tolist()) == ([20, 10], [59, 109])
    assert len(at) == 2 * (40 + 100) - 4
    assert np.argwhere(found(picture, PREDICTION))[:, 1].min() == 200
    assert not found(picture, BOTH).any()
    assert picture[30, 30].tolist() == [128, 128, 128]


def test_contours_that_coincide_are_white_and_small_cases_are_magnified():
    label = square((20, 16), (4, 8), (5, 9))
    picture = overlay(grey(20, 16), label, label)
    assert picture.shape == (64, 80, 3)
    assert found(picture, BOTH).sum() == 4 * 16 - 4
    assert not (found(picture, LABEL) | found(picture, PREDICTION)).any()


def test_of_a_volume_the_slice_with_the_largest_label_is_drawn_as_radiologists_see_it(tmp_path):
    """A box in the patient's right, anterior quarter of slice 3 lies on the left and on top, however it is stored."""
    for codes in ("RAS", "LPS"):
        array, label = np.zeros((40, 40, 6), np.int16), np.zeros((40, 40, 6), np.uint8)
        affine = affine_of(codes, array.shape, (1.0, 1.0, 6.0))
        index = (slice(26, 36), slice(28, 38)) if codes == "RAS" else (slice(4, 14), slice(2, 12))
        array[(*index, 3)], label[(*index, 3)] = 100, 1
        label[20, 20, 1] = 1
        image = nifti(tmp_path / f"{codes}.nii.gz", array, affine)
        case = load_case(image, nifti(tmp_path / f"{codes}_label.nii.gz", label, affine), SLICE, 2)
        picture = overlay(case.image, case.label[0], 0 * case.label[0])
        assert picture.shape == (160, 160, 3)
        rows, columns = np.argwhere(found(picture, LABEL)).T
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 47, 16, 55), codes
        assert picture[25, 30].tolist() == [255, 255, 255], "inside the box the image is bright"
        assert picture[150, 150].tolist() == [0, 0, 0]
