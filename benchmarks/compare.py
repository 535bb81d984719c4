"""Statistics of paired experiments: area under a learning curve, paired intervals, Holm's correction, rank correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import integrate, stats

LEVEL = 0.95


def aubc(curve: Sequence[float]) -> float:
    """Area under Dice against the round, rounds evenly spaced on [0, 1] (nnActive): a constant curve gives its value."""
    return float(integrate.trapezoid(curve, dx=1 / (len(curve) - 1)))


def paired_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the paired differences and its 95 % interval by Student's t; infinitely wide for a single pair."""
    differences = np.subtract(ours, theirs)
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1) * stats.sem(differences))
    return mean, mean - half, mean + half


def paired_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p of a paired t-test; 1 for a single pair and for pairs that are all equal."""
    differences = np.subtract(ours, theirs)
    if len(differences) < 2 or np.allclose(differences, 0):
        return 1.0
    if np.allclose(differences, differences[0]):
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.asarray(p)[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted.tolist()


def pairwise(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """For each ordered pair of arms the mean difference (row minus column) and Holm's p over all pairs.

    `values`: by arm, one number per seed, in the same order of seeds.
    """
    pairs = list(combinations(values, 2))
    adjusted = holm([paired_p(values[a], values[b]) for a, b in pairs])
    matrix: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in values}
    for (a, b), p in zip(pairs, adjusted, strict=True):
        difference = float(np.mean(np.subtract(values[a], values[b])))
        matrix[a][b] = {"difference": difference, "p": p}
        matrix[b][a] = {"difference": -difference, "p": p}
    return matrix


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; 0 for fewer than three pairs and for constants."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def partial_spearman(x: Sequence[float], y: Sequence[float], given: Sequence[float]) -> float:
    """Rank correlation of x and y that is not explained by a third quantity."""
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / float(np.sqrt(rest)) if rest > 1e-12 else 0.0


def auroc(score: Sequence[float], wanted: Sequence[bool]) -> float:
    """Chance that a wanted case has a higher score than another one; 0.5 when one of the groups is empty."""
    wanted = np.asarray(wanted, dtype=bool)
    if wanted.all() or not wanted.any():
        return 0.5
    ranks = stats.rankdata(score)
    positive, negative = int(wanted.sum()), int((~wanted).sum())
    return float((ranks[wanted].sum() - positive * (positive + 1) / 2) / (positive * negative))
