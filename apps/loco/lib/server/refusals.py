"""What the app itself is asked for, whoever asks: unknown names are refused with a sentence, paths are not images."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.sessions import Sessions

from lib.core.checkpoint import CheckpointError
from lib.core.images import CaseError
from lib.server.sessions import GuardedSessions
from lib.store.journal import JournalError
from lib.store.project import Project

logger = logging.getLogger(__name__)

_NICE = 10
"""Trainings and passes over all studies give way to the server, which annotators wait for."""


class Refusals:
    """Mixin before `MONAILabelApp`: inference, next sample, training and sessions with conditions."""

    _project: Project

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """MONAI Label's inference, with a sentence instead of a bare 500. The image is a study, an upload or a session."""
        model, image = request.get("model"), request.get("image")
        if model not in self._infers:
            raise HTTPException(404, f"expected the model {', '.join(self._infers)!r}, but got {model!r}; choose it")
        if not self._infers[model].is_valid():
            raise HTTPException(409, f"expected a trained {model} model, but there is none yet; submit labels first")
        request = {**request, "image": self._image_of(image, datastore or self.datastore())}
        try:
            result = super().infer(request, datastore)
            self._note_start(image, request, result)
            return result
        except (CaseError, CheckpointError) as e:
            raise HTTPException(400, f"{image} was not segmented. {e}") from e
        except torch.OutOfMemoryError as e:
            torch.cuda.empty_cache()
            raise HTTPException(
                503,
                "expected room in the memory of the GPU, but it is full; try again, or wait for the training to end",
            ) from e

    def _note_start(self, image: Any, request: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Remember which version a label may go on from; that this fails stops no annotator."""
        version = (result.get("params") or {}).get("model_version")
        if self._server_mode and version is not None:
            try:
                self._project.journal.note_start(str(image), request.get("client_id"), int(version), time.time())
            except JournalError as e:
                logger.warning("The model that segmented a study was not noted: %s", e)

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """What viewers are told of a label that was saved, besides its id: that it does not count, or waits for the PACS."""
        note = self.datastore().still_to_do(image_id)
        return {"note": note} if note else {}

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The strategy's choice; an unknown strategy is refused with the valid names."""
        strategy = request.get("strategy") or "low_contrast"
        if strategy not in self._strategies:
            names = ", ".join(self._strategies)
            raise HTTPException(404, f"expected a strategy, one of {names}, but got {strategy!r}; choose one of them")
        return super().next_sample(request)

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """In a process of its own, which gives way to the server."""
        self._give_way()
        return super().train(request)

    def scoring(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """In a process of its own, which gives way to the server."""
        self._give_way()
        return super().scoring(request, datastore)

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """In a process of its own, which gives way to the server."""
        self._give_way()
        return super().batch_infer(request, datastore)

    def _give_way(self) -> None:
        if not self._server_mode and hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        folder = settings.MONAI_LABEL_SESSION_PATH or self._project.folder / "sessions"
        return GuardedSessions(Path(folder), settings.MONAI_LABEL_SESSION_EXPIRY) if load else None

    def _image_of(self, image: Any, datastore: Datastore) -> str:
        """A study's id, or the file of an upload or session; MONAI Label would take any path of this machine."""
        if isinstance(image, str) and image in datastore.list_images():
            return datastore.get_image_uri(image) if os.path.exists(image) else image
        roots = [tempfile.gettempdir(), *([self._sessions.store_path] if self._sessions else [])]
        if isinstance(image, str) and os.path.isabs(image) and any(_is_in(root, image) for root in roots):
            return image
        raise HTTPException(
            404, f"expected the id of a study, but got {str(image)[:200]!r}; refresh the list of studies"
        )


def _is_in(root: str, path: str) -> bool:
    return Path(path).resolve().is_relative_to(Path(root).resolve()) and os.path.exists(path)
