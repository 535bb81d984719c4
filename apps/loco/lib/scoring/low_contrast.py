"""MONAI Label scoring task: one teacher pass over the studies per published model, into the journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.utils.others.generic import name_to_device

from lib.activelearning.board import is_usable
from lib.core.areas import median_areas
from lib.core.cases import Case, Record, load_case
from lib.core.checkpoint import Checkpoint, restore_network
from lib.core.dropout import dropout_passes
from lib.core.images import CaseError
from lib.core.lowcontrast import field_of_view, score_image
from lib.core.predict import predict_in_memory
from lib.core.quality import quality_terms
from lib.core.uncertainty import epistemic_entropy
from lib.store.project import Project
from lib.store.records import Score
from lib.studies import records_of
from lib.trainers.publish import live_checkpoint

logger = logging.getLogger(__name__)

_COMMIT_EVERY = 20
_LABELS_FOR_AREAS = 20
_EVERY, _LABELLED_SOON = 4, 50
"""Each fourth study of a pass is a labelled one until there are so many; the other labelled ones come last."""
_DROPOUT_TERM = "image/epistemic"


class LowContrastScoring(ScoringMethod):
    """Scores each study once per published model; a newer model ends the pass of an older one.

    Unlabelled studies come first, and among the first of them some labelled ones: what is served is to differ from those.

    Args:
        name: model name.
        project: its journal and model files.
        pattern: how patients are told from image names.
        with_dropout: also make the passes that the strategy `mc_dropout` needs, five times the work.
    """

    def __init__(self, name: str, project: Project, pattern: str, with_dropout: bool = False) -> None:
        super().__init__("Low-contrast terms and the rivals' scores of every study, from one pass of the live teacher")
        self._name, self._project, self._pattern, self._with_dropout = name, project, pattern, with_dropout

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what has no score by the live model yet. Returns how many studies were scored and skipped."""
        checkpoint = live_checkpoint(self._project.model(self._name))
        if checkpoint is None:
            return {"scored": 0, "reason": "no model is trained yet"}
        device = torch.device(name_to_device(request.get("device", "cuda")) if torch.cuda.is_available() else "cpu")
        network = restore_network(checkpoint).to(device).eval()
        records = records_of(datastore, self._pattern)
        labelled = [r for r in records if r.label]
        labelled = labelled[
            :: max(1, -(-len(labelled) // _LABELS_FOR_AREAS))
        ]  # of all patients, not the last ones alone
        areas = median_areas(labelled, checkpoint.spec.data, checkpoint.spec.labels)
        term = _DROPOUT_TERM if self._with_dropout else ""
        done = self._project.journal.scored_images(self._name, checkpoint.version, term)
        todo = [r for r in records if r.id not in done]
        np.random.default_rng(checkpoint.version).shuffle(todo)
        return self._score_all(in_turns(todo), checkpoint, network, areas, device)

    def _score_all(
        self,
        todo: list[Record],
        checkpoint: Checkpoint,
        network: torch.nn.Module,
        areas: Mapping[str, float],
        device: torch.device,
    ) -> dict[str, Any]:
        journal, version = self._project.journal, checkpoint.version
        rows: list[Score] = []
        skipped = 0
        for count, record in enumerate(todo, start=1):
            try:
                case = load_case(record.image, None, checkpoint.spec.data, checkpoint.spec.network.classes)
                rows.append(self._score(record.id, case, checkpoint, network, areas, device))
            except (CaseError, torch.OutOfMemoryError) as e:
                logger.warning("Not scored: %s", e)
                skipped += 1
            if count % _COMMIT_EVERY == 0 or count == len(todo):
                journal.put_scores(self._name, version, rows, time.time())
                rows = []
                logger.info("Scored %d of %d studies with version %d", count, len(todo), version)
                live = journal.live_version(self._name)
                if live is not None and live.version != version:
                    return {"scored": count - skipped, "skipped": skipped, "reason": "another model is live"}
        journal.drop_scores_before(self._name, self._chosen_by(version))
        return {"scored": len(todo) - skipped, "skipped": skipped, "model_version": version}

    def _chosen_by(self, version: int) -> int:
        """The version whose scores choose the next image: this one, or an older one while this one is too weak.

        A version that never went live has no scores to choose by, however good it is.
        """
        journal = self._project.journal
        labels = {s.image: s for s in journal.submissions()}
        versions = [v for v in journal.versions(self._name) if v.version <= version]
        usable = [v.version for v in versions if is_usable(v, labels)]
        return max((v for v in usable if v == version or journal.scored_images(self._name, v)), default=version)

    def _score(
        self,
        image: str,
        case: Case,
        checkpoint: Checkpoint,
        network: torch.nn.Module,
        areas: Mapping[str, float],
        device: torch.device,
    ) -> Score:
        """All terms of one study."""
        spec = checkpoint.spec
        prediction, _ = predict_in_memory(network.teacher, case, spec.data, device, with_projection=True)
        field = field_of_view(case.image, spec.data.kind == "frame")
        found = score_image(prediction, _thresholds(checkpoint), spec.labels, areas, field)
        terms = found.terms() | quality_terms(case.image, field)
        if self._with_dropout:
            passes = dropout_passes(network.teacher, case, spec.data, device)
            terms[_DROPOUT_TERM] = float(epistemic_entropy(passes).mean())
        return Score(image, terms, found.embedding.astype(np.float16).tobytes())


def _thresholds(checkpoint: Checkpoint) -> torch.Tensor:
    """The method's class thresholds; the filter's cap for methods that learn none."""
    classes = checkpoint.spec.network.classes
    return torch.tensor(checkpoint.thresholds or [checkpoint.spec.method.confidence.cap] * classes)


def in_turns(records: Sequence[Record]) -> list[Record]:
    """The order of a pass: unlabelled studies as they come, every fourth one a labelled one, of which most come last."""
    unlabelled = [r for r in records if r.label is None]
    labelled = [r for r in records if r.label is not None]
    soon, late = labelled[:_LABELLED_SOON], labelled[_LABELLED_SOON:]
    ordered = []
    for i, record in enumerate(unlabelled):
        ordered.append(record)
        if (i + 1) % (_EVERY - 1) == 0 and soon:
            ordered.append(soon.pop(0))
    return [*ordered, *soon, *late]
