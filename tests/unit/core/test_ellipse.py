import numpy as np
import pytest
from unit.helpers import FRAME, SLICE, affine_of, nifti, png

from lib.core.ellipse import Ellipse, corners, ellipse_of, fit_ellipse, likeness, likenesses, outer_contour, refined


def disc(centre, radius, shape=(48, 64)):
    """Bool `H W`, centre (x, y)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


CRESCENT = disc((30, 24), 18) & ~disc((36, 24), 18)


def test_an_ellipse_is_found_again_from_its_points():
    truth = Ellipse((14.0, 9.0), (10.0, 16.0), 0.4)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    u, v = 5 * np.cos(t), 8 * np.sin(t)
    points = np.stack([14 + u * np.cos(0.4) - v * np.sin(0.4), 9 + u * np.sin(0.4) + v * np.cos(0.4)], 1)
    found = fit_ellipse(points)
    assert found.centre == pytest.approx(truth.centre)
    assert found.axes == pytest.approx(truth.axes)
    assert np.cos(2 * found.angle) == pytest.approx(np.cos(0.8))


def test_the_level_is_one_on_the_border_and_zero_in_the_centre():
    level = Ellipse((5.0, 3.0), (4.0, 8.0), 0.0).level(8, 12)
    assert level[3, 5] == 0
    assert level[3, 7] == pytest.approx(1)  # shorter axis along x
    assert level[7, 5] == pytest.approx(1)


def test_contours_go_around_once_and_corners_are_where_they_turn():
    mask = np.zeros((6, 7), bool)
    mask[1:5, 2:6] = True
    path = outer_contour(mask)
    assert len(path) == 12
    assert sorted(map(tuple, corners(path))) == [(2, 1), (2, 4), (5, 1), (5, 4)]
    assert outer_contour(np.array([[False, True]])).tolist() == [[1, 0]]
    line = outer_contour(np.array([[True, True, True]]))
    assert line.tolist() == [[0, 0], [1, 0], [2, 0], [1, 0]]


def test_rectangles_and_empty_maps_have_no_ellipse():
    square = np.zeros((8, 8))
    square[2:6, 2:6] = 1
    assert ellipse_of(square, 0.6) is None
    assert ellipse_of(np.zeros((8, 8)), 0.6) is None


def test_what_is_fitted_to_no_object_of_the_image_is_no_ellipse():
    stairs = np.zeros((40, 40))
    stairs[18 + np.arange(40) // 13, np.arange(40)] = 1
    found = fit_ellipse(corners(outer_contour(stairs > 0)))
    assert found.axes[1] > 1e6
    assert ellipse_of(stairs, 0.6) is None
    cap = disc((20, 60), 30, (40, 40))  # its centre lies far below the image
    assert fit_ellipse(corners(outer_contour(cap))).centre[1] > 40
    assert ellipse_of(cap, 0.6) is None
    assert (
        ellipse_of(disc((8, 20), 14, (40, 40)), 0.6) is not None
    )  # cut by the border, but with its centre in the image


def test_ovals_are_like_their_ellipses_and_crescents_are_not():
    assert likeness(disc((30, 24), 15)) > 0.9
    assert likeness(CRESCENT) < 0.6
    assert likeness(disc((30, 24), 18) & ~disc((30, 24), 12)) < 0.6
    assert likeness(np.zeros((8, 8), bool)) == 0


def test_labels_are_looked_at_in_the_plane_and_empty_or_unreadable_ones_left_out(tmp_path):
    paths = [
        png(tmp_path / "oval.png", 255 * disc((30, 24), 15).astype(np.uint8)),
        png(tmp_path / "empty.png", np.zeros((8, 8), np.uint8)),
        png(tmp_path / "values.png", np.full((8, 8), 7, np.uint8)),
        str(tmp_path / "nowhere.png"),
        png(tmp_path / "crescent.png", CRESCENT.astype(np.uint8)),
    ]
    oval, crescent = likenesses(paths, FRAME)
    assert oval > 0.9 > 0.6 > crescent
    volume = np.zeros((5, 48, 64), np.uint8)  # the thick axis first
    volume[1:4] = CRESCENT
    volume[2] = disc((30, 24), 15)
    path = nifti(tmp_path / "volume.nii.gz", volume, affine_of("SPL", volume.shape, (8.0, 1.0, 1.0)))
    assert likenesses([path], SLICE) == [pytest.approx(oval, abs=0.03)]


def test_refinement_fills_the_inside_and_dampens_the_outside():
    level = np.array([0.0, 1.0, 3.0])
    assert refined(np.array([0.1, 0.1, 0.9]), level, 0.6).tolist() == pytest.approx([1.0, 0.6, 0.9 * np.exp(-1)])
