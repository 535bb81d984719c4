"""Which image next while there is no teacher: typical of what was not seen yet, then fainter and fainter.

A pure function like `select.choose_order`: all chance comes from the generator passed in (active-learning specification 6.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from lib.core.select import Choice, percent, ranks, stack

_NEIGHBOURS = 20


@dataclass(frozen=True)
class ColdFeatures:
    """What an image shows without a model: `embedding` D float; `contrast`, high = strong, in any unit."""

    embedding: np.ndarray
    contrast: float


def cold_order(
    features: Mapping[str, ColdFeatures], labelled: AbstractSet[str], rng: np.random.Generator, clusters: int
) -> list[Choice]:
    """All unlabelled images in the order in which they should be served while there is no teacher.

    First the most typical image of each group of similar images in which nothing is labelled yet, large groups first;
    then the others by `(1 - w) typicality + w (1 - contrast)`, both as ranks, w = labelled / (4 clusters) <= 0.5.

    Args:
        features: Of all images, labelled ones too: they tell which groups are covered.
        labelled: Images that have a label.
        rng: Source of all chance. Give it the same seed at each call, so that the groups stay the same.
        clusters: Number of groups, at least 1; fewer when there are fewer different images.

    Returns:
        Each unlabelled image once, best first. Terms: `typicality`, a rank in (0, 1), and `contrast` as given.
    """
    if clusters < 1:
        raise ValueError(f"expected clusters to be at least 1, but got {clusters}; use about 4 per class")
    images = sorted(features)
    if all(image in labelled for image in images):
        return []
    vectors = stack([features[image].embedding for image in images])
    contrast = np.array([features[image].contrast for image in images], dtype=np.float64)
    distance = _neighbour_distance(vectors)
    group = _groups(vectors, clusters, rng)
    is_labelled = np.array([image in labelled for image in images])
    sizes = np.bincount(group)

    typical, faint = 1.0 - ranks(distance), 1.0 - ranks(contrast)
    weight = min(0.5, len(labelled) / (4 * clusters))
    score = (1 - weight) * typical + weight * faint
    first = _first_of_uncovered_groups(group, is_labelled, distance, contrast)
    rest = np.flatnonzero(~is_labelled & ~np.isin(np.arange(len(images)), first))
    rest = rest[np.argsort(-score[rest], kind="stable")]

    def choice(i: int, reason: str) -> Choice:
        return Choice(
            images[i], reason, {"typicality": float(typical[i]), "contrast": float(contrast[i])}, float(score[i])
        )

    return [choice(i, _coverage_reason(int(sizes[group[i]]))) for i in first] + [
        choice(
            i, f"coverage: more typical than {percent(typical[i])} and fainter than {percent(faint[i])} of all images"
        )
        for i in rest
    ]


def _neighbour_distance(vectors: np.ndarray) -> np.ndarray:
    """Mean distance of each image to its 20 nearest others (N float); small = typical. 0 for a single image."""
    count = min(_NEIGHBOURS, len(vectors) - 1)
    if count == 0:
        return np.zeros(len(vectors))
    distances, _ = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(vectors).kneighbors()
    return np.round(distances.mean(axis=1), 6)  # equal up to rounding errors is a tie


def _groups(vectors: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Group number of each image (N int), by k-means."""
    different = len(np.unique(np.round(vectors, 6), axis=0))
    seed = int(rng.integers(2**31))
    return KMeans(min(clusters, different), n_init=3, random_state=seed).fit_predict(np.round(vectors, 6))


def _first_of_uncovered_groups(
    group: np.ndarray, is_labelled: np.ndarray, distance: np.ndarray, contrast: np.ndarray
) -> list[int]:
    """The most typical image of each group without a label, the fainter of equals; large groups first."""
    sizes = np.bincount(group)
    covered = set(group[is_labelled].tolist())
    first: dict[int, int] = {}
    for i in np.lexsort((contrast, distance)):
        if group[i] not in covered:
            first.setdefault(int(group[i]), int(i))
    return sorted(first.values(), key=lambda i: (-sizes[group[i]], i))


def _coverage_reason(size: int) -> str:
    if size == 1:
        return "coverage: unlike all other studies, and not seen yet"
    return f"coverage: typical of a group of {size} similar studies not seen yet"
