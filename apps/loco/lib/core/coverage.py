"""Which image next while there is no teacher: typical of what was not seen yet, then fainter and fainter.

A policy like those of `select` and `rivals`, on what the images themselves show (active-learning specification 6.7).
"""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from lib.core.draws import ranks
from lib.core.pool import Pool, Situation, spread_over_groups
from lib.core.select import OFFERED, Choice, Ranking, percent

_NEIGHBOURS = 20
_UNKNOWN = -1
"""Group of images that were not looked at yet: they come last."""


class ColdPolicy:
    """First the most typical image of each group of similar ones in which nothing was seen, large groups first.

    Then the others by `(1 - w) typicality + w (1 - contrast)`, as ranks, w = seen / (4 clusters) <= 0.5. Contrast is the mean
    of the ranks of local contrast and of the gradient.

    Args:
        pool: all images, labelled ones too: they tell which groups are covered. Needs the term `image/contrast`, and takes
            `image/gradient` too, high = strong; the embeddings may have any scale.
        clusters: number of groups, at least 1; fewer when there are fewer different images. About 4 per class.
        seed: of the grouping.
    """

    def __init__(self, pool: Pool, clusters: int, seed: int = 0) -> None:
        if clusters < 1:
            raise ValueError(f"expected clusters to be at least 1, but got {clusters}; use about 4 per class")
        self.pool, self._clusters = pool, clusters
        column = pool.terms.get("image/contrast", np.full(len(pool), np.nan, dtype=np.float32))
        known = np.flatnonzero(np.isfinite(column))
        contrast, vectors = _strength(pool, known), pool.embeddings[known]
        distance = _neighbour_distance(vectors)
        self._group = np.full(len(pool), _UNKNOWN)
        self._group[known] = _groups(vectors, clusters, seed)
        self._sizes = np.bincount(self._group[known])
        self._typical, self._faint = np.full(len(pool), -1.0), np.full(len(pool), -1.0)
        if len(known):
            self._typical[known], self._faint[known] = 1.0 - ranks(distance), 1.0 - ranks(contrast)
        self._by_typicality = known[np.lexsort((contrast, distance))]

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Free images, best first. No chance is in it, so that two annotators cover different groups."""
        if not situation.free.any():
            return []
        allowed = spread_over_groups(situation.free, situation.seen, self.pool.groups)
        first = self._first_of_uncovered_groups(allowed, situation.seen)
        score = self._score(situation)
        rest = np.setdiff1d(np.flatnonzero(allowed), first)
        rest = rest[np.argsort(-score[rest], kind="stable")][: max(0, OFFERED - len(first))]
        return [self._choice(i, score, self._coverage_reason(i)) for i in first] + [
            self._choice(int(i), score, self._rest_reason(int(i))) for i in rest
        ]

    def ranking(self, situation: Situation) -> Ranking:
        """By the score, the first of each uncovered group before all others."""
        key = np.where(self._group == _UNKNOWN, np.nan, self._score(situation))
        first = self._first_of_uncovered_groups(
            spread_over_groups(situation.free, situation.seen, self.pool.groups), situation.seen
        )
        key[first] = 2.0 - np.arange(len(first)) / max(1, len(first))
        return Ranking(key, ("image",), np.where(self._group == _UNKNOWN, -1, 0))

    def explained(self, index: int, situation: Situation) -> Choice:
        """Terms and reason of one image."""
        return self._choice(index, self._score(situation), self._rest_reason(index))

    def _score(self, situation: Situation) -> np.ndarray:
        """N float in [-1, 1]; -1 for images that were not looked at."""
        weight = min(0.5, int(situation.seen.sum()) / (4 * self._clusters))
        return (1 - weight) * self._typical + weight * self._faint

    def _first_of_uncovered_groups(self, allowed: np.ndarray, seen: np.ndarray) -> list[int]:
        """The most typical image of each group without a seen one, the fainter of equals; large groups first."""
        covered = set(self._group[seen].tolist())
        first: dict[int, int] = {}
        for i in self._by_typicality[allowed[self._by_typicality]]:
            if self._group[i] not in covered:
                first.setdefault(int(self._group[i]), int(i))
        return sorted(first.values(), key=lambda i: (-self._sizes[self._group[i]], i))[:OFFERED]

    def _choice(self, i: int, score: np.ndarray, reason: str) -> Choice:
        terms = {"typicality": float(self._typical[i])} | self.pool.terms_of(i, "image")
        return Choice(self.pool.images[i], reason, "coverage", "image", terms, float(score[i]))

    def _coverage_reason(self, i: int) -> str:
        size = int(self._sizes[self._group[i]])
        if size == 1:
            return "coverage: unlike all other studies, and not seen yet"
        return f"coverage: typical of a group of {size} similar studies not seen yet"

    def _rest_reason(self, i: int) -> str:
        if self._group[i] == _UNKNOWN:
            return "not looked at yet: chosen because nothing else is left"
        typical, faint = percent(self._typical[i]), percent(self._faint[i])
        return f"coverage: more typical than {typical} and fainter than {faint} of all images"


def _strength(pool: Pool, known: np.ndarray) -> np.ndarray:
    """Mean rank of contrast and gradient of the known images (M float in (0, 1)); of contrast alone where one has no gradient."""
    columns = (pool.terms.get(f"image/{name}") for name in ("contrast", "gradient"))
    rows = [c[known].astype(np.float64) for c in columns if c is not None and np.isfinite(c[known]).all()]
    return np.mean([ranks(row) for row in rows], axis=0) if len(known) else np.zeros(0)


def _neighbour_distance(vectors: np.ndarray) -> np.ndarray:
    """Mean distance of each image to its 20 nearest others (N float); small = typical. 0 for a single image."""
    count = min(_NEIGHBOURS, len(vectors) - 1)
    if count <= 0:
        return np.zeros(len(vectors))
    distances, _ = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(vectors).kneighbors()
    return np.round(distances.mean(axis=1), 6)  # equal up to rounding errors is a tie


def _groups(vectors: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Group number of each image (N int), by k-means."""
    if len(vectors) == 0:
        return np.zeros(0, dtype=int)
    rounded = np.round(vectors, 6)
    different = len(np.unique(rounded, axis=0))
    return KMeans(min(clusters, different), n_init=3, random_state=seed).fit_predict(rounded)
