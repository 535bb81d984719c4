"""Starting and stopping trainings from viewers: the auto-update of 3D Slicer does not kill a running training.

With its auto-update on, the plugin of 3D Slicer sends, at each submitted label, `DELETE /train/` and at once
`POST /train/{model}`. Its Stop button sends the same DELETE alone. So a stop is carried out a moment later, unless a start
follows it: then the training goes on, and the new label counts for the next one.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from fastapi import APIRouter, Depends
from monailabel.config import settings
from monailabel.endpoints import train
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.utils.async_tasks.task import AsyncTask

from lib.server import checks

logger = logging.getLogger(__name__)

GRACE_S = 1.5
"""A start that comes this soon after a stop is an auto-update."""

_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))


class Stopping:
    """A stop that waits for a moment, and can be taken back until then."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self._grace = grace_s
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def stop_soon(self) -> dict[str, Any] | None:
        """Stop the running training after the grace, unless `take_back` comes first. Returns the training, or None."""
        with self._lock:
            running, _ = AsyncTask.status("train", check_if_running=True)
            if running is not None and self._timer is None:
                self._timer = threading.Timer(self._grace, self._stop)
                self._timer.daemon = True
                self._timer.start()
            return running

    def take_back(self) -> bool:
        """Let the training go on. Returns whether a stop was waiting."""
        with self._lock:
            waiting = self._timer is not None
            if waiting:
                self._timer.cancel()
                self._timer = None
            return waiting

    def _stop(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer = None
                train.stop()


def training_router(stopping: Stopping | None = None) -> APIRouter:
    """`DELETE /train/` and `POST /train/{model}`, in front of MONAI Label's."""
    router = APIRouter(prefix="/train", tags=["Train"])
    pending = stopping or Stopping()

    @router.delete("/", summary="Stop the training, unless a start follows at once")
    def stop(user: User = _ADMIN) -> dict[str, Any] | None:
        return pending.stop_soon()

    @router.post("/{model}", summary="Start a training; right after a stop, let the running one go on instead")
    def start(
        model: str,
        params: dict | None = None,
        run_sync: bool | None = False,
        enqueue: bool | None = False,
        user: User = _ADMIN,
    ) -> dict[str, Any]:
        if pending.take_back():
            running, _ = AsyncTask.status("train", check_if_running=True)
            if running is not None:
                logger.info("The running training goes on; the label that was just submitted counts for the next one")
                return running
        asked = checks.train_one({"model": model, "params": params, "run_sync": run_sync})
        return train.run_model(model, asked["params"], False, enqueue)

    return router
