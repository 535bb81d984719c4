"""Every version of a label, for whoever must know who drew what, when, and from which model."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel

from lib.server.kept import KeptLabels
from lib.store.journal import Journal
from lib.store.records import Submission


class LabelVersion(BaseModel):
    """One version of the label of a study."""

    id: int
    """Number of the submission."""
    ts: float
    """Unix seconds."""
    client: str
    model_version: int | None
    """The model that segmented the study for this annotator before, if any."""
    sha256: str
    labels: dict[str, int]
    removed: float | None
    kept: bool
    """Its file can be had from `/loco/labels/ID/file`."""


class SecondReading(BaseModel):
    """A label that came after another annotator's and was kept beside it; fields as of a version."""

    id: int
    """Number of the reading; readings are counted by themselves."""
    ts: float
    client: str
    model_version: int | None
    sha256: str
    labels: dict[str, int]
    kept: bool
    """Its file can be had from `/loco/readings/ID/file`."""


def history_router(journal: Journal) -> APIRouter:
    """`GET /loco/labels?image=ID` and `GET /loco/labels/{id}/file`; the same of `/loco/readings`."""
    router = APIRouter(tags=["LoCo"])
    kept = KeptLabels(journal)

    @router.get("/loco/labels", response_model=list[LabelVersion])
    def versions(image: str) -> list[LabelVersion]:
        """All versions of the label of a study, newest first; empty when there is none."""
        return [_shown(s, kept) for s in journal.history(image)]

    @router.get("/loco/labels/{id}/file", response_class=FileResponse)
    def file(id: int) -> FileResponse:
        """The file of one version, also of one that was replaced or removed."""
        found = journal.submission(id)
        path = kept.path(found) if found is not None else None
        if path is None:
            raise HTTPException(404, "expected the number of a kept version, but there is none of it; see /loco/labels")
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    @router.get("/loco/readings", response_model=list[SecondReading])
    def readings(image: str) -> list[SecondReading]:
        """Second readings of a study, newest first: labels of annotators whom somebody else had overtaken."""
        return [
            SecondReading(
                id=r.id, ts=r.ts, client=r.client, model_version=r.model_version, sha256=r.sha256, labels=r.labels,
                kept=kept.path(r) is not None,
            )
            for r in journal.readings(image)
        ]  # fmt: skip

    @router.get("/loco/readings/{id}/file", response_class=FileResponse)
    def reading_file(id: int) -> FileResponse:
        """The file of one reading."""
        found = journal.reading(id)
        path = kept.path(found) if found is not None else None
        if path is None:
            raise HTTPException(404, "expected the number of a kept reading, but there is none; see /loco/readings")
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    return router


def _shown(submission: Submission, kept: KeptLabels) -> LabelVersion:
    return LabelVersion(
        id=submission.id,
        ts=submission.ts,
        client=submission.client,
        model_version=submission.model_version,
        sha256=submission.sha256,
        labels=submission.labels,
        removed=submission.removed,
        kept=kept.path(submission) is not None,
    )
