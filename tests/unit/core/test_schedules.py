from math import exp

import pytest

from lib.core.schedules import poly, sigmoid_rampup, warm_decay


def test_sigmoid_rampup_by_hand():
    assert sigmoid_rampup(0, 40) == pytest.approx(exp(-5))
    assert sigmoid_rampup(20, 40) == pytest.approx(exp(-1.25))
    assert sigmoid_rampup(40, 40) == sigmoid_rampup(1000, 40) == 1
    assert sigmoid_rampup(-3, 40) == sigmoid_rampup(0, 40)
    assert sigmoid_rampup(0, 0) == 1


def test_poly_by_hand():
    assert poly(0, 100, 0.9) == 1
    assert poly(75, 100, 0.5) == pytest.approx(0.5)
    assert poly(100, 100, 0.9) == poly(130, 100, 0.9) == 0
    assert poly(0, 0, 0.9) == 0


def test_warm_decay_by_hand():
    assert [warm_decay(step, 0.9) for step in (0, 1, 3, 9, 10, 1000)] == pytest.approx([0, 0.5, 0.75, 0.9, 0.9, 0.9])
