"""Rows of the journal as frozen dataclasses, and how they are written as text."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Side = Literal["train", "validation"]
Status = Literal["running", "done", "failed", "stopped", "interrupted"]
ENDINGS: tuple[Status, ...] = ("done", "failed", "stopped", "interrupted")
"""How a run can end; `interrupted` is given by the server to a run whose process is gone."""


@dataclass(frozen=True)
class Submission:
    """A label that an annotator saved at unix second `ts`; `removed` is when it was deleted, or None.

    `kept` is the name of its copy among the kept labels, empty for labels of older releases.
    """

    id: int
    image: str
    group: str
    label: str
    sha256: str
    labels: dict[str, int]
    client: str
    model_version: int | None
    ts: float
    removed: float | None
    kept: str = ""


@dataclass(frozen=True)
class Reading:
    """A label that came after another annotator's and does not take its place; fields as of `Submission`."""

    id: int
    image: str
    client: str
    sha256: str
    labels: dict[str, int]
    model_version: int | None
    ts: float
    kept: str


@dataclass(frozen=True)
class Run:
    """One training run over the submissions up to `last_submission`; times are unix seconds."""

    id: int
    model: str
    reason: str
    last_submission: int
    pid: int
    started: float
    updated: float
    ended: float | None
    status: Status
    detail: str
    progress: dict[str, Any]


@dataclass(frozen=True)
class Version:
    """A trained model file; `dice` in [0, 1] is over `cases` validation cases, None when there were none."""

    model: str
    version: int
    path: str
    sha256: str
    run_id: int | None
    dice: float | None
    cases: int
    details: dict[str, Any]
    live: bool
    ts: float


@dataclass(frozen=True)
class Score:
    """What one model version says of one image: raw terms by name, "polyp/present/margin"; `embedding` is float16 bytes."""

    image: str
    terms: dict[str, float]
    embedding: bytes | None


@dataclass(frozen=True)
class ScoreBlock:
    """Scores of N images by one model version as they are stored, for those who make arrays of them.

    `terms`: N times T float32 bytes, one number per name in `names`, NaN where an image has no such term. `embeddings`: N
    times the same number of float16 bytes, or none at all.
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    terms: bytes
    embeddings: bytes


@dataclass(frozen=True)
class Lease:
    """An image that an annotator holds; times are unix seconds, an anonymous client is ""."""

    image: str
    client: str
    since: float
    expires: float


@dataclass(frozen=True)
class Skip:
    """An image that an annotator passed by at unix second `ts`."""

    image: str
    client: str
    reason: str
    ts: float


@dataclass(frozen=True)
class Pinned:
    """An image that is to be served before all others, since unix second `ts`; an anonymous client is ""."""

    image: str
    client: str
    ts: float


@dataclass(frozen=True)
class Pick:
    """What was served to whom, and why; `version` 0 is the cold start without a model.

    `seed` with the state of the journal gives the same choice again. `details`: kind, stratum, terms and score of the choice.
    """

    id: int
    image: str
    client: str
    model: str
    version: int
    reason: str
    ts: float
    strategy: str = ""
    seed: int = 0
    details: dict[str, Any] = field(default_factory=dict)


SegStatus = Literal["pending", "own", "taken", "refused"]
"""A label of this app not stored in the PACS yet, one that is, one of another tool that was taken over, one that was not."""


@dataclass(frozen=True)
class SegRow:
    """A DICOM SEG instance: of which image, what became of it and why."""

    sop: str
    series: str
    image: str
    status: SegStatus
    detail: str
    ts: float


def submission_from(row: sqlite3.Row) -> Submission:
    """The row as a `Submission`."""
    fields = dict(row)
    return Submission(group=fields.pop("patient"), labels=json.loads(fields.pop("labels")), **fields)


def run_from(row: sqlite3.Row) -> Run:
    """The row as a `Run`."""
    fields = dict(row)
    return Run(progress=json.loads(fields.pop("progress")), **fields)


def version_from(row: sqlite3.Row) -> Version:
    """The row as a `Version`."""
    fields = dict(row)
    return Version(details=json.loads(fields.pop("details")), live=bool(fields.pop("live")), **fields)


def pick_from(row: sqlite3.Row) -> Pick:
    """The row as a `Pick`."""
    fields = dict(row)
    return Pick(details=json.loads(fields.pop("details")), **fields)


def to_json(value: Any) -> str:
    """JSON text that every reader accepts: NaN and infinity become null, array scalars numbers, order is kept.

    Examples:
        >>> to_json({"loss": float("nan"), "steps": (1, 2)})
        '{"loss": null, "steps": [1, 2]}'
    """
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinity become None, array scalars numbers, keys strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a numpy or torch scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
