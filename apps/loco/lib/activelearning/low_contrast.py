"""MONAI Label strategy: read the scores, choose, take a lease. Never a forward pass, never a new process."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.core.coverage import ColdFeatures, cold_order
from lib.core.select import Choice, ScoredImage, choose_order
from lib.decisions import decided
from lib.store.project import Project
from lib.store.records import Score
from lib.studies import group_of

logger = logging.getLogger(__name__)

LEASE_S = 30 * 60
"""Nobody else is offered an image for this long after it was served."""

_CLUSTERS_PER_CLASS = 4
_MIN_CLUSTERS = 8


class LowContrast(Strategy):
    """Serves the unlabelled study of lowest contrast in the eyes of the live model; before it, typical and varied ones."""

    def __init__(self, name: str, project: Project, pattern: str, classes: int, seed: int) -> None:
        super().__init__("Next study of low contrast, by the live model's own confidence along the border")
        self._name, self._project, self._pattern = name, project, pattern
        self._classes, self._seed = classes, seed

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Lease one study to the client. Returns its id and why it was chosen, or {} when nothing is left."""
        journal, now = self._project.journal, time.time()
        client = str(request.get("client_id") or "")
        done = journal.labelled_images()
        free = [i for i in datastore.get_unlabeled_images() if i not in done]
        version, choices = self._order(free, done, now)
        choices = self._validation_last(choices, datastore)
        image = journal.lease([c.image for c in choices], client, LEASE_S, now)
        if image is None:
            image = self._oldest_anonymous(client, {c.image for c in choices}, now)
        if image is None:
            return {}
        choice = next(c for c in choices if c.image == image)
        journal.add_pick(image, client, self._name, version, choice.reason, now)
        decided("picked", image=image, client=client, model=self._name, version=version, why=choice.reason)
        return {
            "id": image,
            "reason": choice.reason,
            "score": None if choice.score is None else round(float(choice.score), 4),
            "terms": {k: round(float(v), 4) for k, v in (choice.terms or {}).items()},
            "model_version": version,
            "left": len(free),
        }

    def _order(self, free: Sequence[str], done: set[str], now: float) -> tuple[int, list[Choice]]:
        """Model version used (0 = none yet) and all free images, best first."""
        journal = self._project.journal
        live = journal.live_version(self._name)
        scores = journal.scores(self._name, live.version) if live else []
        if live and not scores:
            older = [v for v in journal.versions(self._name) if v.version < live.version]
            for version in reversed(older):
                scores = journal.scores(self._name, version.version)
                if scores:
                    live = version
                    break
        version = live.version if live and scores else 0
        rng = np.random.default_rng(self._request_seed(version, len(journal.picks(10**6))))
        choices = self._cold(free, done) if version == 0 else self._scored(free, done, scores, rng, now)
        known = {c.image for c in choices}
        rest = [i for i in free if i not in known]
        rng.shuffle(rest)
        return version, choices + [Choice(i, "not looked at yet: chosen at random", {}, 0.0) for i in rest]

    def _scored(
        self, free: Sequence[str], done: set[str], scores: Sequence[Score], rng: np.random.Generator, now: float
    ) -> list[Choice]:
        open_images = set(free)
        leased = set(self._project.journal.open_leases(now))
        candidates = [_scored_image(s) for s in scores if s.image in open_images]
        if not candidates:
            return []
        labelled_embeddings = _embeddings([s for s in scores if s.image in done])
        leased_embeddings = _embeddings([s for s in scores if s.image in leased])
        progress = len(done) / max(1, len(done) + len(free))
        return choose_order(candidates, labelled_embeddings, leased_embeddings, rng, progress)

    def _cold(self, free: Sequence[str], done: set[str]) -> list[Choice]:
        """Coverage order; always with the same seed, so that the groups of similar studies stay the same."""
        scores = self._project.journal.scores(self._name, 0)
        wanted = set(free) | done
        features = {
            s.image: ColdFeatures(np.frombuffer(s.embedding, dtype=np.float32), s.terms["contrast"])
            for s in scores
            if s.image in wanted and s.embedding
        }
        if not features:
            return []
        clusters = max(_MIN_CLUSTERS, _CLUSTERS_PER_CLASS * self._classes)
        return [
            c
            for c in cold_order(features, done & set(features), np.random.default_rng(self._seed), clusters)
            if c.image not in done
        ]

    def _validation_last(self, choices: list[Choice], datastore: Datastore) -> list[Choice]:
        """Studies of patients that are set aside for validation teach the model nothing: they come last."""
        sides = self._project.journal.splits()
        if "validation" not in sides.values():
            return choices
        held = {c.image for c in choices if sides.get(group_of(datastore, c.image, self._pattern)) == "validation"}
        return [c for c in choices if c.image not in held] + [c for c in choices if c.image in held]

    def _oldest_anonymous(self, client: str, images: set[str], now: float) -> str | None:
        """When everything is leased, a client without a name gets again what was served to nobody in particular first."""
        if client:
            return None
        leases = self._project.journal.open_leases(now)
        return next((image for image, holder in leases.items() if holder == "" and image in images), None)

    def _request_seed(self, version: int, number: int) -> int:
        """The same project, model and request number choose alike."""
        text = f"{self._project.folder.name}:{self._seed}:{version}:{number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _scored_image(score: Score) -> ScoredImage:
    embedding = np.frombuffer(score.embedding, dtype=np.float32) if score.embedding else None
    return ScoredImage(score.image, score.stratum, score.terms, embedding)


def _embeddings(scores: Sequence[Score]) -> np.ndarray:
    rows = [np.frombuffer(s.embedding, dtype=np.float32) for s in scores if s.embedding]
    return np.stack(rows) if rows else np.zeros((0, 1), dtype=np.float32)
