"""MONAI Label scoring task: one teacher pass over the unlabelled studies per published model, into the journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.utils.others.generic import name_to_device

from lib.core.cases import Record, load_case
from lib.core.checkpoint import Checkpoint, restore_network
from lib.core.images import CaseError, class_indices, read_label
from lib.core.lowcontrast import low_contrast
from lib.core.predict import predict
from lib.store.project import Project
from lib.store.records import Score
from lib.studies import records_of
from lib.trainers.publish import live_checkpoint

logger = logging.getLogger(__name__)

_COMMIT_EVERY = 20
_LABELS_FOR_AREAS = 20


class LowContrastScoring(ScoringMethod):
    """Scores each unlabelled study once per published model; a newer model ends the pass of an older one."""

    def __init__(self, name: str, project: Project, pattern: str) -> None:
        super().__init__("Low-contrast terms of every unlabelled study, from one pass of the live teacher")
        self._name, self._project, self._pattern = name, project, pattern

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what has no score by the live model yet. Returns how many studies were scored and skipped."""
        checkpoint = live_checkpoint(self._project.model(self._name))
        if checkpoint is None:
            return {"scored": 0, "reason": "no model is trained yet"}
        device = torch.device(name_to_device(request.get("device", "cuda")) if torch.cuda.is_available() else "cpu")
        network = restore_network(checkpoint).to(device).eval()
        records = records_of(datastore, self._pattern)
        areas = _median_areas([r for r in records if r.label], checkpoint)
        done = self._project.journal.scored_images(self._name, checkpoint.version)
        todo = [r for r in records if r.label is None and r.id not in done]
        np.random.default_rng(checkpoint.version).shuffle(todo)
        return self._score_all(todo, checkpoint, network, areas, device)

    def _score_all(
        self,
        todo: list[Record],
        checkpoint: Checkpoint,
        network: torch.nn.Module,
        areas: Mapping[str, float],
        device: torch.device,
    ) -> dict[str, Any]:
        journal, version = self._project.journal, checkpoint.version
        thresholds = _thresholds(checkpoint)
        rows: list[Score] = []
        skipped = 0
        for count, record in enumerate(todo, start=1):
            try:
                case = load_case(record.image, None, checkpoint.spec.data, checkpoint.spec.network.classes)
            except CaseError as e:
                logger.warning("Not scored: %s", e)
                skipped += 1
                continue
            prediction = predict(network.teacher, case, checkpoint.spec.data, device, with_projection=True)
            for entry in low_contrast(prediction, thresholds, checkpoint.spec.labels, areas):
                embedding = entry.embedding.astype(np.float32).tobytes()
                rows.append(Score(record.id, entry.stratum, dict(entry.terms), embedding, time.time()))
            if count % _COMMIT_EVERY == 0 or count == len(todo):
                journal.put_scores(self._name, version, rows)
                rows = []
                logger.info("Scored %d of %d studies with version %d", count, len(todo), version)
                live = journal.live_version(self._name)
                if live is not None and live.version > version:
                    return {"scored": count - skipped, "skipped": skipped, "reason": "a newer model is live"}
        journal.put_scores(self._name, version, rows)
        journal.drop_scores_before(self._name, version)
        return {"scored": len(todo) - skipped, "skipped": skipped, "model_version": version}


def _thresholds(checkpoint: Checkpoint) -> torch.Tensor:
    """The method's class thresholds; the filter's cap for methods that learn none."""
    classes = checkpoint.spec.network.classes
    return torch.tensor(checkpoint.thresholds or [checkpoint.spec.method.confidence.cap] * classes)


def _median_areas(labelled: list[Record], checkpoint: Checkpoint) -> dict[str, float]:
    """Median share of the image that each class fills, over a few labelled studies that contain it."""
    shares: dict[str, list[float]] = {name: [] for name in checkpoint.spec.labels}
    for record in labelled[-_LABELS_FOR_AREAS:]:
        try:
            label = class_indices(read_label(record.label).array, checkpoint.spec.network.classes, record.label)
        except CaseError:
            continue
        for name, index in checkpoint.spec.labels.items():
            share = float((label == index).float().mean())
            if share > 0:
                shares[name].append(share)
    return {name: float(np.median(values)) for name, values in shares.items() if values}
