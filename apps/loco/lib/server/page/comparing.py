"""The pre-label that an annotator went on from against the label that came back, computed once in the background."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.core.cases import load_case
from lib.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, restore_network
from lib.core.images import CaseError, class_indices, label_on_image, read_image, read_label
from lib.core.predict import predict
from lib.core.teacher import StudentTeacher
from lib.core.validate import dice_per_class
from lib.server.kept import KeptLabels
from lib.server.page.desk import Desk
from lib.server.page.worker import Worker
from lib.store.records import Submission
from lib.studies import image_of

_WAITING = 200
_DRAFT = "original"


@dataclass(frozen=True)
class _PreLabel:
    """Classes on the voxels of the image, and where they come from in words."""

    classes: Tensor
    source: str


class Comparing:
    """Compares submissions, newest first, and keeps the results in the journal."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept = KeptLabels(desk.journal)
        self._worker = Worker("loco-comparing", 1, _WAITING)
        self._loaded: tuple[int, Checkpoint, StudentTeacher] | None = None

    def ask(self, submissions: Iterable[Submission]) -> None:
        """Compare these soon; a submission that cannot be compared gets the reason as its result."""
        for submission in submissions:
            self._worker.ask(str(submission.id), lambda s=submission: self._compare(s))

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is left to compare."""
        return self._worker.wait(timeout_s)

    def _compare(self, submission: Submission) -> None:
        result: dict[str, Any] | None
        try:
            result = self._result(submission)
        except (CaseError, CheckpointError) as e:
            result = {"sentence": str(e)}
        if result is not None:
            self._desk.journal.put_comparison(submission.id, result, time.time())

    def _result(self, submission: Submission) -> dict[str, Any] | None:
        """What is kept; None when the study cannot be had now, which may change."""
        if submission.model_version is None and not self._draft_of(submission):
            return {"sentence": "It was drawn without a pre-label of a model that is known."}
        label = self._kept.path(submission)
        if label is None or not self._desk.studies.known(submission.image):
            return {"sentence": "The file of the label or of its study is not there any more."}
        image = image_of(self._desk.studies, submission.image)
        if not image:
            return None
        before = self._pre_label(submission, image)
        if before is None:
            return {"sentence": f"Version {submission.model_version}, which drew the pre-label, is no longer kept."}
        after = self._classes(label, image).reshape(before.classes.shape)
        dice = dice_per_class(before.classes, after, self._desk.labels)
        return {
            "source": before.source,
            "dice": dice,
            "mean": statistics.fmean(dice.values()),
            "changed": int((before.classes != after).sum()),
            "pixels": after.numel(),
        }

    def _pre_label(self, submission: Submission, image: str) -> _PreLabel | None:
        """The draft if it is by the version that the annotator went on from, else what that version draws again."""
        draft = self._draft_of(submission)
        if draft is not None:
            return _PreLabel(self._classes(draft, image), "the draft that was stored for this study")
        version = int(submission.model_version or 0)
        loaded = self._model(version)
        if loaded is None:
            return None
        checkpoint, network = loaded
        case = load_case(image, None, checkpoint.spec.data, checkpoint.spec.network.classes)
        prediction = predict(network.teacher, case, checkpoint.spec.data, torch.device("cpu"))
        return _PreLabel(prediction.native_label().to(torch.uint8), f"version {version}, which draws it again")

    def _draft_of(self, submission: Submission) -> Path | None:
        """The stored draft, if it was there before the label and is by the version that is named in the submission, if any."""
        studies = self._desk.studies
        file = studies.get_label_uri(submission.image, _DRAFT)
        info = studies.get_label_info(submission.image, _DRAFT)
        version = (info.get("params") or {}).get("model_version")
        earlier = float(info.get("ts") or 0) <= submission.ts
        same = submission.model_version is None or version == submission.model_version
        return Path(file) if file and version is not None and earlier and same else None

    def _model(self, version: int) -> tuple[Checkpoint, StudentTeacher] | None:
        """A kept version on the CPU, where it is in nobody's way; the last one stays loaded."""
        if self._loaded is None or self._loaded[0] != version:
            path = self._desk.folder.version(version)
            if not path.is_file():
                return None
            checkpoint = load_checkpoint(path)
            self._loaded = version, checkpoint, restore_network(checkpoint).eval()
        return self._loaded[1], self._loaded[2]

    def _classes(self, label: Path, image: str) -> Tensor:
        """Class indices of a label file on the voxels of its image, uint8."""
        values = label_on_image(read_label(label), read_image(image), label)
        return class_indices(values, self._desk.spec.network.classes, label)
