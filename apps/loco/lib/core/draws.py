"""Orders and random draws by score. All chance comes from the generator passed in: the same seed gives the same draw."""

from __future__ import annotations

import numpy as np

_COMPARED = 2048
"""Images among which the farthest is looked for; more would cost time at each click and change little."""


def by_falling(score: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Members (M int) by falling score (N float); equals in an order of their own, which favours no name."""
    lots = np.random.default_rng(0).random(len(score))
    return members[np.lexsort((lots[members], -np.round(score[members], 9)))]


def ranks(values: np.ndarray) -> np.ndarray:
    """(rank + 1/2) / n ascending with ties averaged (N float in (0, 1)).

    Examples:
        >>> ranks(np.array([5.0, 1.0, 1.0, 9.0])).tolist()
        [0.625, 0.25, 0.25, 0.875]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts + (counts - 1) / 2
    return (middle[place] + 0.5) / len(values)


def draw_by_rank(count: int, rng: np.random.Generator, beta: float, wanted: int) -> np.ndarray:
    """The first `wanted` of the places 0 .. count - 1 in a random order with P(first) ~ (place + 1) ** -beta."""
    return smallest(np.log(np.arange(1, count + 1, dtype=np.float32)) - gumbel(count, rng, beta), wanted)


def gumbel(count: int, rng: np.random.Generator, beta: float) -> np.ndarray:
    """Gumbel noise of scale 1 / beta (`count` float32)."""
    waits = np.maximum(rng.standard_exponential(count, dtype=np.float32), np.finfo(np.float32).tiny)
    return -np.log(waits) / np.float32(beta)


def smallest(key: np.ndarray, wanted: int) -> np.ndarray:
    """Places of the `wanted` smallest keys (N float), the smallest first."""
    wanted = min(wanted, len(key))
    best = np.argpartition(key, wanted - 1)[:wanted] if wanted else np.zeros(0, dtype=int)
    return best[np.argsort(key[best], kind="stable")]


def farthest_first(embeddings: np.ndarray, candidates: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Places in `candidates` (L int), those least like what was seen first; as they come if nothing can be compared.

    Likeness is the largest cosine to an image that was `seen` (N bool); `embeddings` N D rows of length 1 or 0. Images
    without an embedding come last.
    """
    others = embeddings[seen]
    others = others[np.any(others, axis=1)]
    own = embeddings[candidates]
    known = np.any(own, axis=1)
    if len(others) == 0 or not known.any():
        return np.arange(len(candidates))
    distance = 1.0 - (own @ others.T).max(axis=1)
    return np.argsort(-np.where(known, np.round(distance, 6), -1.0), kind="stable")


def some(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many of the places (N int) as can be compared with all that was seen within a click, drawn blindly, in any order.

    So equals, and all of them where nothing can be compared, do not come by name.
    """
    return rng.choice(places, size=min(len(places), _COMPARED), replace=False)
