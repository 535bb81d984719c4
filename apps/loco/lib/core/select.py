"""Which image next, by the low-contrast score: ranks within strata, class turns, noise, and variety within a shortlist.

Active-learning specification 6.4 to 6.6. A policy is built once from a pool, which ranks it, and then chooses from a
situation in a few milliseconds. All chance comes from the generator passed in: the same seed gives the same choice.
The rivals are in `rivals.py`, the policy before there is a model in `coverage.py`, all of them by name in `policies.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from lib.core.pool import Pool, Situation, spread_over_groups

SMALLEST_BETA = 0.5
BETA_GROWTH = 8.0
"""Sharpness of the draw by rank: 0.5 at the first label to 4 at the last of the budget."""
CLASS_SHARE = 0.66
"""Share of turns that go to one class; the others to the highest score of any class (ClaSP PE at image level)."""
ABSENT_SHARE = 0.25
"""Share of turns for images in which the class was not found, until the miss rate of the model is known."""
CONTROL_SHARE = 0.1
SHORTLIST = 50
"""How many of the best compete for being different."""
OFFERED = 10
"""How many a policy returns: the first is served, the others stand by in case somebody takes it at the same moment."""
_SHORTLIST_DIVISOR = 4
"""A shortlist is at most this part of its queue; in a small pool the score would not matter otherwise."""
RANKED = {
    "present": ("threshold_deficit", "margin", "feature_contrast"),
    "absent": ("feature_contrast", "peak"),
}
"""Terms that make the score, by stratum, with equal weights."""


@dataclass(frozen=True)
class Choice:
    """An image, why it was chosen in plain words, and the numbers behind that.

    `kind`: low contrast, possible miss, variety, coverage, uncertainty, random or random control. `detail`: turn, queue, rank
    and the like, for those who want to replay it.
    """

    image: str
    reason: str
    kind: str
    stratum: str = ""
    terms: Mapping[str, float] = field(default_factory=dict)
    score: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Where each of N images stands for a policy, without the chance that is in its choices.

    `key`: N float, the higher the sooner, NaN for images that are not ranked. `which`: N int, place in `strata` of the
    stratum to which an image belongs, -1 for those that are not ranked.
    """

    key: np.ndarray
    strata: tuple[str, ...]
    which: np.ndarray


class Ranked(Protocol):
    """A policy that can say of every image where it stands and why."""

    pool: Pool

    def ranking(self, situation: Situation) -> Ranking:
        """Where all images stand."""
        ...

    def explained(self, index: int, situation: Situation) -> Choice:
        """Why the image at a place of the pool is where it is."""
        ...


class Policy(Protocol):
    """A way to choose, built from a pool."""

    pool: Pool

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Up to `OFFERED` free images, best first; empty only when none is free."""
        ...


def next_images(
    policy: Policy, situation: Situation, rng: np.random.Generator, control_share: float = CONTROL_SHARE
) -> list[Choice]:
    """The policy's choice, or in a share of the calls a random control: drawn blindly among all free images, and tagged.

    Returns:
        Up to `OFFERED` free images, the one to serve first; empty when none is free.
    """
    if not 0.0 <= control_share <= 1.0:
        raise ValueError(f"expected control_share to be in [0, 1], but got {control_share}; 0.1 means every tenth call")
    is_control = rng.random() < control_share
    free = np.flatnonzero(situation.free)
    if len(free) == 0:
        return []
    if not is_control:
        return policy.choose(situation, rng)
    drawn = rng.choice(free, size=min(OFFERED, len(free)), replace=False)
    reason = "random control: drawn blindly, to measure what choosing brings"
    return [Choice(policy.pool.images[i], reason, "random control") for i in drawn]


def choose_batch(
    policy: Policy, situation: Situation, rng: np.random.Generator, count: int, control_share: float = CONTROL_SHARE
) -> list[Choice]:
    """Up to `count` images in turn, each seen by the choices after it, as annotators would be served."""
    places = {image: i for i, image in enumerate(policy.pool.images)}
    chosen: list[Choice] = []
    free, seen = situation.free.copy(), situation.seen.copy()
    while len(chosen) < count and (
        found := next_images(policy, replace(situation, free=free, seen=seen), rng, control_share)
    ):
        chosen.append(found[0])
        place = places[found[0].image]
        free[place], seen[place] = False, True
    return chosen


class LowContrastPolicy:
    """Low-contrast confidence: two queues per class, present and absent, each ranked by its own terms.

    Args:
        pool: what the model says.
        ranked: the images that are ranked, N bool: those without a label when the model looked at them.
    """

    def __init__(self, pool: Pool, ranked: np.ndarray | None = None) -> None:
        self.pool = pool
        ranked = np.ones(len(pool), dtype=bool) if ranked is None else ranked
        self._queues = {
            (name, stratum): queue
            for name in pool.classes
            for stratum in ("present", "absent")
            if len(queue := _ranked_queue(pool, f"{name}/{stratum}", RANKED[stratum], ranked))
        }
        self._any = {
            stratum: _merged([queue for (_, s), queue in self._queues.items() if s == stratum], len(pool))
            for stratum in ("present", "absent")
        }

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """A class turn, a stratum, a noisy draw by rank, and of the best the one most unlike what was seen."""
        turn = self._class_turn(situation, rng)
        wants_absent = rng.random() < _absent_share(situation, turn)
        beta = SMALLEST_BETA * BETA_GROWTH ** float(np.clip(situation.progress, 0.0, 1.0))
        allowed = spread_over_groups(situation.free, situation.seen, self.pool.groups)
        for stratum in ("absent", "present") if wants_absent else ("present", "absent"):
            for name in (turn, None):
                queue = self._queues.get((name, stratum)) if name else self._any[stratum]
                if queue is not None and len(members := queue.within(allowed)):
                    detail = {"turn": name or "any class", "queue": stratum, "beta": round(beta, 3), "of": len(members)}
                    return self._from_queue(queue, members, situation, rng, beta, detail)
        rest = np.flatnonzero(allowed)
        rng.shuffle(rest)
        return [Choice(self.pool.images[i], "not looked at yet: chosen at random", "random") for i in rest[:OFFERED]]

    def ranking(self, situation: Situation) -> Ranking:
        """By the share of the other images of the stratum with a lower score; images without a score are not ranked."""
        count = len(self.pool)
        key, which, strata = np.full(count, np.nan), np.full(count, -1), []
        for stratum in ("absent", "present"):  # an image with one class found and another not is ranked as found
            queue = self._any[stratum]
            if queue is not None:
                key[queue.order] = queue.below[queue.order]
                which[queue.order] = len(strata) + queue.which[queue.order]
                strata.extend(queue.strata)
        return Ranking(key, tuple(strata), which)

    def explained(self, index: int, situation: Situation) -> Choice:
        """Terms and reason of one image."""
        for stratum in ("present", "absent"):
            queue = self._any[stratum]
            if queue is not None and queue.holds(index):
                return self._choice(index, queue, {}, 0)
        return Choice(self.pool.images[index], "not looked at yet: chosen at random", "random")

    def _class_turn(self, situation: Situation, rng: np.random.Generator) -> str | None:
        """The class whose turn it is, rarely labelled ones more often; None: the highest score of any class."""
        names = self.pool.classes
        one_class = rng.random() < CLASS_SHARE
        weights = np.array([1 / np.sqrt(situation.labelled.get(name, 0) + 1) for name in names])
        drawn = rng.random()
        if not names or not one_class:
            return None
        return names[
            int(np.searchsorted(np.cumsum(weights) / weights.sum(), drawn, side="right").clip(0, len(names) - 1))
        ]

    def _from_queue(
        self,
        queue: _Queue,
        members: np.ndarray,
        situation: Situation,
        rng: np.random.Generator,
        beta: float,
        detail: Mapping[str, Any],
    ) -> list[Choice]:
        short = max(1, min(SHORTLIST, len(members) // _SHORTLIST_DIVISOR))
        drawn = draw_by_rank(len(members), rng, beta, short)
        order = members[drawn]
        farthest = order[farthest_first(self.pool.embeddings, order, situation.seen)]
        rank = {int(members[d]): int(d) + 1 for d in drawn}
        moved = int(farthest[0]) != int(order[0])
        return [
            self._choice(int(i), queue, {**detail, "rank": rank[int(i)]}, len(order) if moved else 0)
            for i in farthest[:OFFERED]
        ]

    def _choice(self, i: int, queue: _Queue, detail: Mapping[str, Any], unlike: int) -> Choice:
        stratum = queue.stratum_of(i)
        terms = self.pool.terms_of(i, stratum)
        kind, reason = _reason(stratum, terms, float(queue.below[i]))
        if unlike:
            reason += f"; of the {unlike} best the most unlike the labelled images"
        return Choice(self.pool.images[i], reason, kind, stratum, terms, float(queue.score[i]), detail)


@dataclass(frozen=True)
class _Queue:
    """Images by falling score: `order` M int; `score` and `below`, share of the others with a lower score, N float.

    `strata`: names of strata; `which`: N int, the stratum to which the score of an image belongs.
    """

    order: np.ndarray
    score: np.ndarray
    below: np.ndarray
    strata: Sequence[str]
    which: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def within(self, allowed: np.ndarray) -> np.ndarray:
        """The images of the queue that are allowed (N bool), best first."""
        return self.order[allowed[self.order]]

    def holds(self, index: int) -> bool:
        """Whether the image is in the queue."""
        return bool(self._members[index])

    @cached_property
    def _members(self) -> np.ndarray:
        """N bool."""
        members = np.zeros(len(self.score), dtype=bool)
        members[self.order] = True
        return members

    def stratum_of(self, index: int) -> str:
        return self.strata[int(self.which[index])]


def _ranked_queue(pool: Pool, stratum: str, names: Sequence[str], ranked: np.ndarray) -> _Queue:
    """Score in (0, 1): the mean of the ranks of the terms within the stratum."""
    columns = pool.stratum(stratum)
    table = np.array([columns[name] for name in names if name in columns], dtype=np.float64).reshape(-1, len(pool))
    members = np.flatnonzero(ranked & np.isfinite(table).all(axis=0)) if len(table) else np.zeros(0, dtype=int)
    score, below = np.zeros(len(pool)), np.zeros(len(pool))
    if len(members):
        score[members] = np.mean([ranks(row[members]) for row in table], axis=0)
        own = np.round(score[members], 9)
        below[members] = np.searchsorted(np.sort(own), own) / max(1, len(members) - 1)
    return _Queue(by_falling(score, members), score, below, (stratum,), np.zeros(len(pool), dtype=int))


def _merged(queues: Sequence[_Queue], count: int) -> _Queue | None:
    """One queue over several classes; the score of an image is its highest."""
    if not queues:
        return None
    scores = np.full((len(queues), count), -1.0)
    for row, queue in zip(scores, queues, strict=True):
        row[queue.order] = queue.score[queue.order]
    which = scores.argmax(axis=0)
    score = scores.max(axis=0)
    below = np.array([queue.below for queue in queues])[which, np.arange(count)]
    members = np.flatnonzero(score >= 0)
    return _Queue(by_falling(score, members), score, below, tuple(queue.strata[0] for queue in queues), which)


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


def percent(share: float) -> str:
    """A share in [0, 1] for a sentence, e.g. 63 %."""
    return f"{100 * share:.0f} %"


def _absent_share(situation: Situation, name: str | None) -> float:
    """Share of turns for images in which a class was not found: the model's miss rate where it is known."""
    rates = situation.miss_rate
    rate = rates.get(name) if name else max(rates.values(), default=None)
    return ABSENT_SHARE if rate is None else float(np.clip(rate, 0.1, 0.4))


def _reason(stratum: str, terms: Mapping[str, float], below: float) -> tuple[str, str]:
    """Kind of choice and why the image is worth labelling, e.g. "low contrast: ... (margin 0.55, ...)"."""
    name, _, state = stratum.rpartition("/")
    numbers = ", ".join(f"{term.replace('_', ' ')} {terms[term]:.2f}" for term in RANKED[state])
    if below < 0.5:
        what = f"no {name} found" if state == "absent" else f"a clear {name} border"
        return "variety", f"variety: not all images should be hard ones; {what} ({numbers})"
    share = percent(below)
    if state == "absent":
        text = f"possible miss: no {name} found, but a missed one is likelier than in {share} of such images"
        return "possible miss", f"{text} ({numbers})"
    text = f"low contrast: the {name} border is less certain than in {share} of the other images"
    return "low contrast", f"{text} ({numbers})"
