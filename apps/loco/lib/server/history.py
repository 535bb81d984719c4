"""Every version of a label, for whoever must know who drew what, when, and from which model."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel

from lib.server.kept import KeptLabels
from lib.store.journal import Journal
from lib.store.records import Reading, Submission


class Drawn(BaseModel):
    """A label that was handed in."""

    id: int
    """Its number."""
    ts: float
    """Unix seconds."""
    client: str
    model_version: int | None
    """The model that segmented the study for this annotator before, if any."""
    sha256: str
    labels: dict[str, int]
    kept: bool
    """Its file can be had from `/loco/labels/ID/file`, that of a reading from `/loco/readings/ID/file`."""


class LabelVersion(Drawn):
    """One version of the label of a study; `id` is the number of the submission."""

    removed: float | None


class SecondReading(Drawn):
    """A label that came after another annotator's and was kept beside it; readings have numbers of their own."""


def history_router(journal: Journal) -> APIRouter:
    """`GET /loco/labels?image=ID` and `GET /loco/labels/{id}/file`; the same of `/loco/readings`."""
    router = APIRouter(tags=["LoCo"])
    kept = KeptLabels(journal)

    def facts(drawn: Submission | Reading) -> dict[str, Any]:
        return {**vars(drawn), "kept": kept.path(drawn) is not None}

    def sent(drawn: Submission | Reading | None, where: str) -> FileResponse:
        path = kept.path(drawn) if drawn is not None else None
        if path is None:
            raise HTTPException(
                404, f"expected the number of a label that is kept, but there is none of it; see {where}"
            )
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    @router.get("/loco/labels", response_model=list[LabelVersion])
    def versions(image: str) -> list[dict[str, Any]]:
        """All versions of the label of a study, newest first; empty when there is none."""
        return [facts(s) for s in journal.history(image)]

    @router.get("/loco/labels/{id}/file", response_class=FileResponse)
    def file(id: int) -> FileResponse:
        """The file of one version, also of one that was replaced or removed."""
        return sent(journal.submission(id), "/loco/labels")

    @router.get("/loco/readings", response_model=list[SecondReading])
    def readings(image: str) -> list[dict[str, Any]]:
        """Second readings of a study, newest first: labels of annotators whom somebody else had overtaken."""
        return [facts(r) for r in journal.readings(image)]

    @router.get("/loco/readings/{id}/file", response_class=FileResponse)
    def reading_file(id: int) -> FileResponse:
        """The file of one reading."""
        return sent(journal.reading(id), "/loco/readings")

    return router
