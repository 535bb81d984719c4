"""Statistics of the experiments against numbers computed by hand."""

import numpy as np
import pytest
from benchmarks.compare import aubc, auroc, holm, paired_interval, paired_p, pairwise, partial_spearman, spearman


def test_area_under_the_curve():
    assert aubc([0.1, 0.1, 0.1, 0.1]) == pytest.approx(0.1)
    assert aubc([0.0, 1.0]) == pytest.approx(0.5)
    assert aubc([0.0, 1.0, 1.0]) == pytest.approx(0.75)


def test_holm():
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06 again, then 0.04 raised to what came before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_paired_interval():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt 3, t with two degrees of freedom 4.3027."""
    mean, low, high = paired_interval([11, 22, 33], [10, 20, 30])
    assert (mean, low, high) == pytest.approx((2, 2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-4)
    assert paired_interval([3], [1]) == (2, -np.inf, np.inf)


def test_p_of_pairs_without_spread():
    assert paired_p([1, 2], [1, 2]) == 1.0
    assert paired_p([2, 3], [1, 2]) == 0.0
    assert paired_p([2], [1]) == 1.0


def test_the_matrix_is_antisymmetric_and_shares_its_p():
    matrix = pairwise({"a": [5, 6, 8], "b": [1, 3, 4], "c": [2, 2, 9]})
    assert matrix["a"]["b"]["difference"] == pytest.approx(11 / 3)
    assert matrix["b"]["a"] == {"difference": pytest.approx(-11 / 3), "p": matrix["a"]["b"]["p"]}
    assert "a" not in matrix["a"]


def test_rank_correlations():
    x = list(range(8))
    assert spearman(x, [v**3 for v in x]) == pytest.approx(1)
    assert spearman(x, [1] * 8) == 0
    assert spearman([1, 2], [1, 2]) == 0
    rng = np.random.default_rng(0)
    size = rng.random(400)
    score, loss = size + 0.1 * rng.random(400), size + 0.1 * rng.random(400)
    assert spearman(score, loss) > 0.9
    assert abs(partial_spearman(score, loss, size)) < 0.15
    assert partial_spearman(score, score, size) == pytest.approx(1)


def test_auroc_is_the_chance_of_the_right_order():
    assert auroc([0.9, 0.8, 0.1, 0.2], [True, True, False, False]) == 1.0
    assert auroc([0.9, 0.1, 0.5, 0.5], [True, False, True, False]) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert auroc([1, 2], [True, True]) == 0.5
