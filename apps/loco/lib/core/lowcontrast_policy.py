"""The next image by the low-contrast score: ranks within strata, class turns, noise, and variety within a shortlist.

Active-learning specification 6.4 to 6.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lib.core.draws import by_falling, draw_by_rank, farthest_first, ranks, some
from lib.core.pool import Pool, Situation, spread_over_groups
from lib.core.select import OFFERED, Choice, Ranking, percent

SMALLEST_BETA = 0.5
BETA_GROWTH = 8.0
"""Sharpness of the draw by rank: 0.5 at the first label to 4 at the last of the budget."""
CLASS_SHARE = 0.66
"""Share of turns that go to one class; the others to the highest score of any class (ClaSP PE at image level)."""
ABSENT_SHARE = 0.25
"""Share of turns for images in which the class was not found, until the miss rate of the model is known."""
_LEAST_ABSENT, _MOST_ABSENT = 0.1, 0.4
"""Bounds of that share; the upper one also where an image without the class is a certain miss."""
_SURE_LABELS = 10
"""So many labelled images, all with the class, say that every image has it (pictures of polyps, of one organ)."""
SHORTLIST = 50
"""How many of the best compete for being different."""
_SHORTLIST_DIVISOR = 4
"""A shortlist is at most this part of its queue; in a small pool the score would not matter otherwise."""
RANKED = {
    "present": ("threshold_deficit", "margin", "feature_contrast"),
    "absent": ("feature_contrast", "peak"),
}
"""Terms that make the score, by stratum, with equal weights."""


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
        self._known_any: dict[tuple[str, frozenset[str]], _Queue | None] = {}
        for stratum in ("present", "absent"):  # sorted now, in the thread that builds, and not at the first click
            self._any(stratum, frozenset())

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """A class turn, a stratum, a noisy draw by rank, and of the best the one most unlike what was seen.

        The turn of a class that the model does not know well enough goes to what is least like the seen images (6.7).
        """
        turn = self._class_turn(situation, rng)
        wants_absent = rng.random() < _absent_share(situation, [turn] if turn else self.pool.classes)
        beta = SMALLEST_BETA * BETA_GROWTH ** float(np.clip(situation.progress, 0.0, 1.0))
        allowed = spread_over_groups(situation.free, situation.seen, self.pool.groups)
        if turn in situation.weak or situation.weak.issuperset(self.pool.classes or [None]):
            return self._covering(turn, allowed, situation, rng)
        for stratum in ("absent", "present") if wants_absent else ("present", "absent"):
            for name in (turn, None):
                queue = self._queues.get((name, stratum)) if name else self._any(stratum, situation.weak)
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
            queue = self._any(stratum, situation.weak)
            if queue is not None:
                key[queue.order] = queue.below[queue.order]
                which[queue.order] = len(strata) + queue.which[queue.order]
                strata.extend(queue.strata)
        return Ranking(key, tuple(strata), which)

    def explained(self, index: int, situation: Situation) -> Choice:
        """Terms and reason of one image."""
        for stratum in ("present", "absent"):
            queue = self._any(stratum, situation.weak)
            if queue is not None and queue.holds(index):
                return self._choice(index, queue, {}, 0)
        return Choice(self.pool.images[index], "not looked at yet: chosen at random", "random")

    def _any(self, stratum: str, weak: frozenset[str]) -> _Queue | None:
        """One queue over the classes that the model knows; over all of them where it knows none."""
        key = stratum, weak
        if key not in self._known_any:
            queues = {name: queue for (name, s), queue in self._queues.items() if s == stratum}
            known = [queue for name, queue in queues.items() if name not in weak]
            self._known_any[key] = _merged(known or list(queues.values()), len(self.pool))
        return self._known_any[key]

    def _covering(
        self, name: str | None, allowed: np.ndarray, situation: Situation, rng: np.random.Generator
    ) -> list[Choice]:
        """The images least like what was seen, of as many as can be compared within a click."""
        places = some(np.flatnonzero(allowed), rng)
        order = places[farthest_first(self.pool.embeddings, places, situation.seen)][:OFFERED]
        what = name or "any class"
        reason = f"coverage: the model does not know {what} well enough yet to say where it is hard; least like what was seen"
        return [Choice(self.pool.images[i], reason, "coverage", detail={"turn": what}) for i in order]

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


def _absent_share(situation: Situation, names: Sequence[str]) -> float:
    """Share of turns for images in which a class was not found (6.4), the largest of several classes.

    It is the model's miss rate where that is known, within bounds.
    """

    def share(name: str) -> float:
        if situation.labels >= _SURE_LABELS and situation.labelled.get(name, 0) >= situation.labels:
            return _MOST_ABSENT
        return float(np.clip(situation.miss_rate.get(name, ABSENT_SHARE), _LEAST_ABSENT, _MOST_ABSENT))

    return max(map(share, names), default=ABSENT_SHARE)


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
