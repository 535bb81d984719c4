"""How many labels are still worth drawing: curves whose answer is known."""

import numpy as np
import pytest

from lib.server.page.effort import FLAT, estimate, fit


def on_curve(*labels, plateau=0.9, gain=1.5, exponent=0.8):
    return [(n, plateau - gain * n**-exponent) for n in labels]


def test_a_power_law_is_found_again():
    points = on_curve(5, 10, 20, 40)
    curve = fit(*map(np.array, zip(*points, strict=True)))
    assert (curve.plateau, curve.gain, curve.exponent) == pytest.approx((0.9, 1.5, 0.8), abs=1e-3)
    assert curve.plateau - curve.gain * curve.flat_at() ** -curve.exponent == pytest.approx(0.9 - FLAT, abs=1e-6)


def test_what_is_left_is_what_leads_to_the_flat_part():
    found = estimate(on_curve(10, 20, 40, 80), now=80, left=10_000)
    assert found.labels == pytest.approx((1.5 / FLAT) ** (1 / 0.8) - 80, rel=0.02)
    assert found.plateau == pytest.approx(0.9, abs=0.005)
    assert f"About {found.labels} more labels" in found.sentence


def test_more_than_there_is_means_all_of_it():
    found = estimate(on_curve(10, 20, 40, 80), now=80, left=30)
    assert (found.labels, "all 30 studies" in found.sentence) == (30, True)


def test_a_flat_curve_needs_nothing():
    found = estimate([(10, 0.8), (20, 0.8), (40, 0.8), (80, 0.8)], now=80, left=100)
    assert (found.labels, found.plateau) == (0, 0.8)
    assert "The curve is flat" in found.sentence


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "there are 0"),
        (on_curve(5, 10, 20), "there are 3"),
        ([(5, 0.1), (5, 0.2), (5, 0.3), (5, 0.4)], "there are 1"),
        (on_curve(100, 101, 102, 103), "too alike"),
        ([(10, 0.5), (20, 0.55), (40, 0.4), (80, 0.7)], "leaving one"),
    ],
)
def test_too_little_to_tell_is_said(points, words):
    found = estimate(points, now=80, left=1000)
    assert found.labels is None
    assert words in found.sentence


def test_dice_never_goes_beyond_one():
    curve = fit(np.array([5.0, 10.0, 20.0, 40.0]), np.array([0.2, 0.5, 0.75, 0.99]))
    assert curve.plateau <= 1.0
