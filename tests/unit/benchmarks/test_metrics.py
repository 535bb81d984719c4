"""HD95 and its rules for empty masks, border contrast and border length, with numbers that can be computed by hand."""

import math

import numpy as np
import pytest
import torch
from benchmarks.metrics import border_contrast, border_length, hd95_per_class, lowest_third, score_case

LABELS = {"a": 1, "b": 2}


def square(shape, *corner, side=4, value=1):
    label = torch.zeros(shape, dtype=torch.uint8)
    label[tuple(slice(c, c + side) for c in corner)] = value
    return label


def test_hd95_of_a_shifted_square_is_the_shift_in_mm():
    ours, theirs = square((20, 20), 3, 3), square((20, 20), 3, 8)
    assert hd95_per_class(ours, theirs, {"a": 1}, [1.0, 1.0])["a"] == pytest.approx(5.0)
    assert hd95_per_class(ours, theirs, {"a": 1}, [1.0, 2.0])["a"] == pytest.approx(10.0)


def test_hd95_in_a_volume_and_in_a_single_slice():
    ours, theirs = square((12, 12, 9), 2, 2, 1), square((12, 12, 9), 2, 2, 3)
    assert hd95_per_class(ours, theirs, {"a": 1}, [1.0, 1.0, 3.0])["a"] == pytest.approx(6.0)
    flat = hd95_per_class(
        square((12, 12), 1, 1)[..., None], square((12, 12), 4, 1)[..., None], {"a": 1}, [2.0, 1.0, 9.0]
    )
    assert flat["a"] == pytest.approx(6.0)


def test_empty_masks():
    """A class absent from both is perfect; from one, the distance is the diagonal and, if it should be there, missed."""
    truth = square((30, 40), 5, 5)
    score = score_case(torch.zeros_like(truth), truth, LABELS, [1.0, 1.0])
    assert score.dice == pytest.approx((0 + 1) / 2)
    assert score.hd95 == pytest.approx((50 + 0) / 2)
    assert score.missed == 1
    assert score_case(truth, torch.zeros_like(truth), LABELS, [1.0, 1.0]).missed == 0
    perfect = score_case(truth, truth, LABELS, [1.0, 1.0])
    assert (perfect.dice, perfect.hd95, perfect.missed) == (1.0, 0.0, 0)


def test_border_contrast_falls_with_the_difference_and_rises_with_order():
    rng = np.random.default_rng(0)
    label = np.zeros((64, 64), dtype=np.uint8)
    label[20:44, 20:44] = 1
    grain = rng.normal(0, 0.1, (1, 64, 64))
    clear, faint = (border_contrast(grain + d * label, label, [1.0, 1.0]) for d in (1.0, 0.2))
    assert clear == pytest.approx(10, rel=0.2)
    assert faint == pytest.approx(2, rel=0.3)
    assert border_contrast(grain, np.zeros_like(label), [1.0, 1.0]) == math.inf


def test_border_length_counts_the_pixels_that_are_drawn():
    label = np.zeros((10, 10), dtype=np.uint8)
    label[2:6, 2:6] = 1
    label[8, 8] = 2
    assert border_length(label) == 12 + 1


def test_the_lowest_third():
    assert lowest_third({"a": 3.0, "b": 1.0, "c": 2.0, "d": math.inf, "e": 1.0, "f": 9.0}) == ["b", "e"]
    assert lowest_third({"a": 3.0}) == ["a"]
