"""What all strategies share: the studies as arrays, ranked once per model version and not at each click.

In the server a thread keeps the view up to date, and a click takes it as it is; what has changed since (a label, a lease)
is looked up in the journal at the click. Without the thread each request looks whether something has changed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.core.coverage import ColdPolicy
from lib.core.policies import make_policy
from lib.core.pool import Pool
from lib.core.quality import unfit
from lib.core.select import Policy
from lib.core.validate import MIN_CASES
from lib.store.project import Project
from lib.store.records import ScoreBlock, Submission, Version
from lib.studies import group_of

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
_SHARE_OF_TIME = 0.05
"""At most this part of the time goes into building views, however often scores arrive."""
_LABELS_PER_CLASS = 4
_LEAST_LABELS = 8
_LABELS_WITH_CLASS = 3
_USABLE_DICE = 0.5
"""Below it no score of a model says which image is hard, and choosing stays with coverage (specification 6.7)."""
_ENOUGH_SCORES = 50
_MISS_CASES = 10
_MISS_DICE = 0.01
_BUDGET_SHARE, _LEAST_BUDGET = 0.1, 100


@dataclass(frozen=True)
class View:
    """The studies at one moment, as arrays over the N images of `pool`.

    `version`: of the model whose scores the pool holds, 0 = none yet. `free`: unlabelled and not of a validation patient.
    `last_submission`: labels up to this id are known. `counts`: labelled images per class, of `labels` in all. `weak`:
    classes that the model does not know well enough. `unfit`: places of images that can hardly be judged, with the reason.
    """

    pool: Pool
    places: Mapping[str, int]
    version: int
    ranked: np.ndarray
    free: np.ndarray
    labelled: np.ndarray
    last_submission: int
    progress: float
    counts: Mapping[str, int]
    labels: int
    miss_rate: Mapping[str, float]
    weak: frozenset[str]
    unfit: Mapping[int, str]
    clusters: int
    seed: int
    policies: dict[str, Policy] = field(default_factory=dict, compare=False)

    def policy(self, name: str) -> Policy:
        """The policy of that name on this pool; before there is a usable model, coverage for all but the random control."""
        key = name if self.version or name == "random_control" else "cold"
        if key not in self.policies:
            cold = key == "cold"
            self.policies[key] = (
                ColdPolicy(self.pool, self.clusters, self.seed) if cold else make_policy(key, self.pool, self.ranked)
            )
        return self.policies[key]


class Board:
    """Builds the view and keeps it; shared by the strategies of one model.

    Args:
        name: model name.
        project: its journal.
        pattern: how patients are told from image names.
        classes: number of classes without the background.
        seed: of the grouping before there is a model.
    """

    def __init__(self, name: str, project: Project, pattern: str, classes: int, seed: int) -> None:
        self.name, self.project, self.seed = name, project, seed
        self._pattern, self._classes = pattern, classes
        self._groups: dict[str, str] = {}
        self._view: View | None = None
        self._state: tuple[object, ...] = ()
        self._scored_state: tuple[object, ...] = ()
        self._building = threading.Lock()
        self._stop = threading.Event()
        self._kept = False

    def start(self, datastore: Datastore, warm: Sequence[str] = ()) -> None:
        """Keep the view up to date in a thread, with the policies `warm` ready to be used."""
        self._kept = True
        threading.Thread(target=self._keep, args=(datastore, tuple(warm)), name="loco-board", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def view(self, datastore: Datastore) -> View:
        """The present view."""
        if self._view is None or not self._kept:
            self._refresh(datastore, ())
        assert self._view is not None
        return self._view

    def _keep(self, datastore: Datastore, warm: tuple[str, ...]) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            started = time.monotonic()
            try:
                self._refresh(datastore, warm)
            except Exception:  # whatever it is, the thread goes on: without it choosing would never see a new label
                logger.exception("The studies could not be looked at; choosing goes on with what is known")
            pause = max(_LOOK_S, (time.monotonic() - started) / _SHARE_OF_TIME)

    def _refresh(self, datastore: Datastore, warm: tuple[str, ...]) -> None:
        """Build a new view if something has changed, and put it in place when it is whole."""
        with self._building:
            journal = self.project.journal
            images = tuple(datastore.list_images())
            live = journal.live_version(self.name)
            marks = (journal.submission_mark(), journal.score_mark(), live and live.version, len(journal.splits()))
            state = (hash(images), *marks)
            if state == self._state and self._view is not None:
                return
            view = self._build(datastore, images)
            for name in warm:
                view.policy(name)
            self._view, self._state = view, state

    def _build(self, datastore: Datastore, images: tuple[str, ...]) -> View:
        journal = self.project.journal
        last = journal.last_submission_id()
        latest = {s.image: s for s in journal.submissions()}
        counts = _count_classes(latest)
        unlabelled = set(datastore.get_unlabeled_images()) - latest.keys()
        version = self._usable_version(len(images), latest, counts)
        number = version.version if version else 0
        scored_state = (hash(images), number, journal.score_mark())
        validation = {group for group, side in journal.splits().items() if side == "validation"}
        labelled = np.array([image not in unlabelled for image in images], dtype=bool)
        old = self._view
        if old is not None and scored_state == self._scored_state:
            pool, ranked, policies, doubtful = old.pool, old.ranked, old.policies, old.unfit
        else:
            groups = [self.group(datastore, image) for image in images]
            pool = pool_from(images, journal.score_blocks(self.name, number), groups)
            ranked, policies, doubtful = ~labelled, {}, unfit(pool)
            self._scored_state = scored_state
        held_out = np.array([self.group(datastore, image) in validation for image in images], dtype=bool)
        return View(
            pool=pool,
            places=old.places if old is not None and pool is old.pool else {image: i for i, image in enumerate(images)},
            version=number,
            ranked=ranked,
            free=~labelled & ~held_out,
            labelled=labelled,
            last_submission=last,
            progress=self._progress(len(images), len(latest)),
            counts=counts,
            labels=len(latest),
            miss_rate=miss_rates(version, latest) if version else {},
            weak=weak_classes(version, latest) if version else frozenset(),
            unfit=doubtful,
            clusters=max(_LEAST_LABELS, _LABELS_PER_CLASS * self._classes),
            seed=self.seed,
            policies=policies,
        )

    def _progress(self, studies: int, labelled: int) -> float:
        """Share of the budget that was labelled since choosing by a model could begin (specification 6.6), in [0, 1]."""
        budget = min(studies, max(_LEAST_BUDGET, int(_BUDGET_SHARE * studies)))
        first = first_labels(studies, self._classes)
        return float(np.clip((labelled - first) / max(1, budget - first), 0.0, 1.0))

    def group(self, datastore: Datastore, image: str) -> str:
        """Patient or video of an image."""
        if image not in self._groups:
            self._groups[image] = group_of(datastore, image, self._pattern)
        return self._groups[image]

    def _usable_version(
        self, studies: int, latest: Mapping[str, Submission], counts: Mapping[str, int]
    ) -> Version | None:
        """The newest version up to the live one that is good enough and has scored enough images; None: stay cold."""
        journal = self.project.journal
        live = journal.live_version(self.name)
        if live is None or not enough_labels(studies, len(latest), counts, self._classes):
            return None
        versions = [v for v in journal.versions(self.name) if v.version <= live.version and is_usable(v, latest)]
        enough = min(_ENOUGH_SCORES, max(1, (studies - len(latest)) // 2))
        for version in reversed(versions):
            if len(journal.scored_images(self.name, version.version)) >= enough:
                return version
        return None


def enough_labels(studies: int, labelled: int, counts: Mapping[str, int], classes: int) -> bool:
    """At least 8 labels and 4 per class, each class in 3 of them; of a few studies a quarter is enough."""
    wanted = first_labels(studies, classes)
    least = min(counts.values(), default=0) if len(counts) >= classes else 0
    return labelled >= wanted and least >= min(_LABELS_WITH_CLASS, wanted)


def first_labels(studies: int, classes: int) -> int:
    """So many labels a first model needs: 8 and 4 per class; of a few studies a quarter."""
    return min(max(_LEAST_LABELS, _LABELS_PER_CLASS * classes), math.ceil(studies / 4))


def is_usable(version: Version, labels: Mapping[str, Submission]) -> bool:
    """A model must find a class with Dice 0.5 where it is; one that could not be measured on enough cases may choose.

    `labels`: by image; where no class is in enough validation cases, the mean over all cases and classes decides.
    """
    if version.dice is None or version.cases < MIN_CASES:
        return True
    return max(_known_dice(version, labels).values(), default=version.dice) >= _USABLE_DICE


def miss_rates(version: Version, labels: Mapping[str, Submission]) -> dict[str, float]:
    """Share of the validation cases with a class in which the model missed it, for classes with at least 10 such cases.

    `labels`: by image; a case without the class says nothing of misses, however it was predicted.
    """
    return {
        name: sum(value < _MISS_DICE for value in values) / len(values)
        for name, values in _dice_where_present(version, labels).items()
        if len(values) >= _MISS_CASES
    }


def weak_classes(version: Version, labels: Mapping[str, Submission]) -> frozenset[str]:
    """Classes whose mean Dice is below 0.5 over the validation cases that have them, of which there must be at least 3."""
    return frozenset(name for name, dice in _known_dice(version, labels).items() if dice < _USABLE_DICE)


def _known_dice(version: Version, labels: Mapping[str, Submission]) -> dict[str, float]:
    """Mean Dice of each class over the validation cases that have it, where there are enough."""
    found = _dice_where_present(version, labels)
    return {name: float(np.mean(dice)) for name, dice in found.items() if len(dice) >= MIN_CASES}


def _dice_where_present(version: Version, labels: Mapping[str, Submission]) -> dict[str, list[float]]:
    """Dice of the validation cases, by the class that their label has."""
    dice: dict[str, list[float]] = {}
    for image, case in version.details.get("cases", {}).items():
        for name in labels[image].labels if image in labels else ():
            if case.get(name) is not None:
                dice.setdefault(name, []).append(case[name])
    return dice


def pool_from(images: Sequence[str], blocks: Sequence[ScoreBlock], groups: Sequence[str]) -> Pool:
    """Stored scores as arrays over `images`; images without a score have NaN terms and no embedding."""
    places = {image: i for i, image in enumerate(images)}
    terms: dict[str, np.ndarray] = {}
    size = next((len(b.embeddings) // len(b.images) // 2 for b in blocks if b.embeddings), 0)
    embeddings = np.zeros((len(images), size), dtype=np.float32)
    for block in blocks:
        where = np.array([places.get(image, -1) for image in block.images])
        known = where >= 0
        values = np.frombuffer(block.terms, dtype="<f4").reshape(len(block.images), len(block.names))
        for column in terms.values():
            column[where[known]] = np.nan
        for j, name in enumerate(block.names):
            column = terms.setdefault(name, np.full(len(images), np.nan, dtype=np.float32))
            column[where[known]] = values[known, j]
        if len(block.embeddings) == 2 * size * len(block.images):
            vectors = np.frombuffer(block.embeddings, dtype="<f2").reshape(len(block.images), size)
            embeddings[where[known]] = vectors[known]
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    numbers = (
        np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1] if len(groups) else np.zeros(0, dtype=int)
    )
    return Pool(tuple(images), terms, embeddings / np.maximum(lengths, 1e-12), numbers)


def _count_classes(latest: Mapping[str, Submission]) -> dict[str, int]:
    """Labelled images that contain each class."""
    counts: dict[str, int] = {}
    for submission in latest.values():
        for name in submission.labels:
            counts[name] = counts.get(name, 0) + 1
    return counts
