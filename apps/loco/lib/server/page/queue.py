"""What comes next and why: the strategy's own next choices, then all other images by where its scores place them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from fastapi import HTTPException

from lib.activelearning.board import View
from lib.activelearning.next_image import PINNED, POOR_IMAGE
from lib.core.lowcontrast_policy import RANKED
from lib.core.pool import Situation
from lib.core.select import Choice, Ranking
from lib.server.page.desk import Desk
from lib.server.page.drawings import Drawings
from lib.server.page.models import Bar, LeaseShown, Pin, QueueEntry, QueuePage, QueueState

FORECAST = 24
"""Choices that are made ahead as the strategy would make them."""
_FIXED_SORTS = ("next", "score", "image", "group")
_SHOWN_TERMS = {
    "threshold_deficit": "confidence missing",
    "margin": "classes close",
    "feature_contrast": "features alike",
    "peak": "hint of a miss",
    "typicality": "typical",
    "contrast": "contrast",
    "gradient": "steep edges",
}
"""Terms of an image for people, in the order in which they are shown."""
_RANKED_NAMES = {name for names in RANKED.values() for name in names} | {"typicality", "contrast", "gradient"}
_SHARES_ALREADY = ("typicality",)


@dataclass(frozen=True)
class Query:
    """Which part of the queue is wanted."""

    offset: int = 0
    limit: int = 24
    sort: str = "next"
    descending: bool = False
    search: str = ""
    state: QueueState = "waiting"
    stratum: str = ""


@dataclass(frozen=True)
class _Queue:
    """The queue at one moment: `order` holds places of the pool, the image to be served next first."""

    view: View
    situation: Situation
    ranking: Ranking
    order: np.ndarray
    forecast: Mapping[str, Choice]
    leases: Mapping[str, LeaseShown]
    pins: Mapping[str, Pin]
    skips: Mapping[str, int]
    passed: frozenset[str]
    """Images that are not offered before all others: passed by, or hardly to be judged."""
    explained: Callable[[int], Choice]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    """Terms of the images in their own strata, N float by name, made when first sorted by."""
    sorted_terms: dict[str, np.ndarray] = field(default_factory=dict)


class Queue:
    """Builds the queue when something has changed, and answers from it until then."""

    def __init__(self, desk: Desk, drawings: Drawings) -> None:
        self._desk, self._drawings = desk, drawings
        self._lock = threading.Lock()
        self._known: tuple[tuple[object, ...], _Queue] | None = None

    def page(self, query: Query) -> QueuePage:
        """A part of the queue. Raises `HTTPException` 400 for an unknown sort."""
        queue = self._current()
        sorts = [*_FIXED_SORTS, *_terms_of(queue.view)]
        if query.sort not in (*sorts, *_SHOWN_TERMS):  # a term that is gone sorts nothing, and is no mistake
            raise HTTPException(400, f"expected sort to be one of {', '.join(sorts)}, but got {query.sort[:50]!r}")
        places = _sorted(queue, self._group, _matching(queue, query), query)
        number = np.zeros(len(queue.view.pool), dtype=int)
        number[queue.order] = np.arange(1, len(queue.order) + 1)
        shown = places[query.offset : query.offset + query.limit]
        return QueuePage(
            offset=query.offset,
            limit=query.limit,
            count=len(places),
            total=len(queue.order),
            version=queue.view.version,
            strategy=self._desk.strategy_name,
            sort=query.sort,
            descending=query.descending,
            sorts=sorts,
            entries=[self._entry(queue, int(place), int(number[place])) for place in shown],
        )

    def _current(self) -> _Queue:
        desk, now = self._desk, time.time()
        view = desk.view()
        state = (desk.journal.submission_mark(), desk.journal.lease_mark(now), desk.journal.choice_mark())
        with self._lock:
            if self._known is None or self._known[0] != state or self._known[1].view is not view:
                self._known = state, self._build(view, now)
            return self._known[1]

    def _build(self, view: View, now: float) -> _Queue:
        desk, journal = self._desk, self._desk.journal
        situation, _ = desk.strategy.situation(view, "", now)
        taken = {s.image for s in journal.submissions(view.last_submission)}
        waiting = view.free.copy()
        waiting[[view.places[i] for i in taken if i in view.places]] = False
        forecast = {choice.image: choice for choice in desk.strategy.forecast(view, FORECAST, now)}
        leases = {
            x.image: LeaseShown(image=x.image, client=x.client, since=x.since, until=x.expires)
            for x in journal.leases(now)
        }
        pins = {p.image: Pin(image=p.image, client=p.client, since=p.ts) for p in journal.pins()}
        aside = {view.pool.images[i] for i in view.unfit}
        passed = (aside | frozenset(journal.skipped_for(""))) - pins.keys()
        ranking, explained = _said(desk, view, situation)
        order = _order(view, waiting, ranking, list(pins), list(forecast), leases.keys(), passed)
        return _Queue(view, situation, ranking, order, forecast, leases, pins, journal.skips(), passed, explained)

    def _entry(self, queue: _Queue, place: int, number: int) -> QueueEntry:
        view, desk = queue.view, self._desk
        image = view.pool.images[place]
        plain = queue.explained(place)
        choice = _with_circumstances(queue, image, plain)
        return QueueEntry(
            image=image,
            place=number,
            forecast=image in queue.forecast or image in queue.pins,
            kind=choice.kind,
            reason=choice.reason,
            stratum=plain.stratum,
            score=plain.score if plain.stratum else None,
            bars=_bars(queue, plain),
            control=choice.kind == "random control",
            group=self._group(image),
            lease=queue.leases.get(image),
            pin=queue.pins.get(image),
            skips=queue.skips.get(image, 0),
            viewer=desk.address(image),
            mark=self._drawings.mark(image),
        )

    def _group(self, image: str) -> str:
        return self._desk.board.group(self._desk.studies, image)


def _said(desk: Desk, view: View, situation: Situation) -> tuple[Ranking, Callable[[int], Choice]]:
    """What the policy says of every image; a policy that draws without a ranking says nothing before it is asked."""
    policy = desk.strategy.policy(view)
    if hasattr(policy, "ranking") and hasattr(policy, "explained"):
        return policy.ranking(situation), lambda place: policy.explained(place, situation)
    count = len(view.pool)
    reason = f"the strategy {desk.strategy_name} decides when it is asked"
    nothing = Ranking(np.full(count, np.nan), (), np.full(count, -1))
    return nothing, lambda place: Choice(view.pool.images[place], reason, "uncertainty")


def _with_circumstances(queue: _Queue, image: str, plain: Choice) -> Choice:
    """The choice with the reason that counts now: pinned, foreseen by the strategy, passed by before, or its scores alone."""
    pin = queue.pins.get(image)
    if pin is not None:
        return Choice(image, f"pinned by {pin.client or 'somebody'}: wanted before all others", PINNED)
    aside = queue.view.unfit.get(queue.view.places[image])
    if aside and image not in queue.skips:
        return Choice(image, f"{aside}: comes when nothing else is left", POOR_IMAGE)
    if image in queue.passed:
        return Choice(image, "passed by before: comes when nothing else is left", "skipped")
    return queue.forecast.get(image, plain)


def _order(
    view: View,
    waiting: np.ndarray,
    ranking: Ranking,
    pinned: list[str],
    forecast: list[str],
    leased: set[str],
    passed: frozenset[str],
) -> np.ndarray:
    """Places of the waiting images: pinned, foreseen, the others by rank, those somebody holds, those passed by."""
    count = len(view.pool)
    rank = np.full(count, 2.0)
    for group, images in ((3.0, leased), (4.0, passed)):
        rank[[view.places[i] for i in images if i in view.places]] = group
    for group, images in ((1.0, forecast), (0.0, pinned)):
        for number, image in enumerate(images):
            if image in view.places and image not in leased:
                rank[view.places[image]] = group + number / (len(images) + 1)
    key = np.where(np.isfinite(ranking.key), -ranking.key, np.inf)
    places = np.flatnonzero(waiting)
    return places[np.lexsort((places, key[places], rank[places]))]


def _matching(queue: _Queue, query: Query) -> np.ndarray:
    """Places of the queue that match, in its order."""
    images, order = queue.view.pool.images, queue.order
    keep = np.ones(len(order), dtype=bool)
    if query.state == "free":
        keep &= np.array([images[i] not in queue.leases and images[i] not in queue.passed for i in order], dtype=bool)
    elif query.state != "waiting":
        wanted = {"leased": queue.leases, "pinned": queue.pins, "skipped": queue.skips}[query.state]
        keep &= np.array([images[i] in wanted for i in order], dtype=bool)
    if query.search:
        part = query.search.casefold()
        keep &= np.array([part in images[i].casefold() for i in order], dtype=bool)
    if query.stratum:
        numbers = [k for k, name in enumerate(queue.ranking.strata) if name == query.stratum]
        keep &= np.isin(queue.ranking.which[order], numbers)
    return order[keep]


def _sorted(queue: _Queue, group: Callable[[str], str], places: np.ndarray, query: Query) -> np.ndarray:
    """Places by what was asked for; equals in the order of the queue, images without a value last."""
    images = queue.view.pool.images
    if query.sort == "next":
        return places[::-1] if query.descending else places
    if query.sort in ("image", "group"):
        name = (lambda i: images[i]) if query.sort == "image" else (lambda i: (group(images[i]), images[i]))
        return np.array(sorted(places.tolist(), key=name, reverse=query.descending), dtype=int)
    column = queue.ranking.key if query.sort == "score" else _column(queue, query.sort)
    values = column[places]
    values = np.where(np.isfinite(values), -values if query.descending else values, np.inf)
    return places[np.argsort(values, kind="stable")]


def _column(queue: _Queue, name: str) -> np.ndarray:
    """A term of each image in its own stratum, N float."""
    if name not in queue.columns:
        pool, ranking = queue.view.pool, queue.ranking
        column = np.full(len(pool), np.nan)
        for number, stratum in enumerate(ranking.strata):
            values = pool.terms.get(f"{stratum}/{name}")
            own = ranking.which == number
            if values is not None:
                column[own] = values[own]
        queue.columns[name] = column
    return queue.columns[name]


def _terms_of(view: View) -> list[str]:
    """Terms by which the queue can be sorted."""
    present = {name.rsplit("/", 1)[-1] for name in view.pool.terms}
    return [name for name in _SHOWN_TERMS if name in present]


def _bars(queue: _Queue, choice: Choice) -> list[Bar]:
    terms = choice.terms
    return [
        Bar(
            name=name,
            label=label,
            value=round(terms[name], 4),
            share=_share(queue, choice.stratum, name, terms[name]),
            ranked=name in _RANKED_NAMES,
        )
        for name, label in _SHOWN_TERMS.items()
        if name in terms
    ]


def _share(queue: _Queue, stratum: str, name: str, value: float) -> float | None:
    """Share of the other images of the stratum with a lower value."""
    if name in _SHARES_ALREADY:
        return round(value, 4)
    key = f"{stratum}/{name}"
    if key not in queue.sorted_terms:
        column = queue.view.pool.terms.get(key, np.zeros(0, dtype=np.float32))
        queue.sorted_terms[key] = np.sort(column[np.isfinite(column)])
    known = queue.sorted_terms[key]
    if len(known) < 2:
        return None
    below = int(np.searchsorted(known, np.float32(value)))
    return round(min(1.0, below / (len(known) - 1)), 4)
