"""`GET /loco/health`: one look for a monitor. Holds no name of an image, a patient or an annotator."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from lib.store.journal import Journal, JournalError
from lib.store.project import ModelFolder
from lib.store.records import Run

LOW_DISK_BYTES = 2**30
"""Below this much room a label or model may soon fail to be saved."""

Status = Literal["ok", "warning", "error"]


class Health(BaseModel):
    """State of the server. `warning`: look at it today; `error`: labels cannot be saved now."""

    status: Status
    reasons: list[str]
    """What is wrong, empty when nothing is."""
    journal: bool
    """The journal can be read and written."""
    live_version: int | None
    """The model that serves, None before the first."""
    live_file: bool
    """The file of the live model is there."""
    labelled: int
    training: str
    """How the newest run stands: running, done, failed, stopped, interrupted, or none."""
    training_started: float | None
    """Unix seconds."""
    last_error: str | None
    """Kind of error with which the newest run failed."""
    free_disk_bytes: int
    uptime_s: float


def health_router(model: str, journal: Journal, folder: ModelFolder, studies: str) -> APIRouter:
    """The route; `studies` is the folder of the studies, or their address, of which only a folder has a free disk."""
    router = APIRouter(tags=["LoCo"])
    started = time.monotonic()
    places = [journal.path.parent, folder.root, *([Path(studies)] if Path(studies).is_dir() else [])]

    @router.get("/loco/health", response_model=Health)
    def health(response: Response) -> Health:
        """State of the server for a monitor; 503 when labels cannot be saved."""
        found = look(model, journal, folder, places, time.monotonic() - started)
        response.status_code = 503 if found.status == "error" else 200
        return found

    return router


def look(model: str, journal: Journal, folder: ModelFolder, places: list[Path], uptime_s: float) -> Health:
    """Look at journal, model, disk and training."""
    free = min(shutil.disk_usage(place).free for place in places)
    try:
        journal.set("health", time.time())
        live, run, labelled = journal.live_version(model), journal.last_run(model), len(journal.labelled_images())
        waiting, usable = len(journal.segs("pending")), True
    except JournalError:
        live, run, labelled, waiting, usable = None, None, 0, 0, False
    failed = run is not None and run.status == "failed"
    file = folder.live.exists()
    errors = [] if usable else ["the journal cannot be written"]
    warnings = [
        *([f"only {free // 2**20} MB of disk are free"] if free < LOW_DISK_BYTES else []),
        *(["the last training failed"] if failed else []),
        *([f"{waiting} labels are kept here and not in the PACS yet"] if waiting else []),
        *(["the file of the live model is missing"] if live is not None and not file else []),
    ]
    return Health(
        status="error" if errors else "warning" if warnings else "ok",
        reasons=[*errors, *warnings],
        journal=usable,
        live_version=live.version if live else None,
        live_file=file,
        labelled=labelled,
        training=run.status if run else "none",
        training_started=run.started if run else None,
        last_error=_kind(run) if failed else None,
        free_disk_bytes=free,
        uptime_s=round(uptime_s, 1),
    )


def _kind(run: Run) -> str:
    """The type of the error alone: its text may name a file."""
    kind = run.detail.split(":", 1)[0]
    return kind if kind.isidentifier() else "its process ended"
