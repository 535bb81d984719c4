import numpy as np
import pytest

from lib.core.ellipse import Ellipse, corners, ellipse_of, fit_ellipse, outer_contour, refined


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


def test_refinement_fills_the_inside_and_dampens_the_outside():
    level = np.array([0.0, 1.0, 3.0])
    assert refined(np.array([0.1, 0.1, 0.9]), level, 0.6).tolist() == pytest.approx([1.0, 0.6, 0.9 * np.exp(-1)])
