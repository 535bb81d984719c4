"""Rows of the journal as frozen dataclasses, and how they are written as text."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
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
    """Raw terms of one image in one stratum ("polyp/present"); `embedding` is float32 bytes."""

    image: str
    stratum: str
    terms: dict[str, float]
    embedding: bytes | None
    ts: float


@dataclass(frozen=True)
class Pick:
    """What was served to whom, and why; `version` 0 is the cold start without a model."""

    id: int
    image: str
    client: str
    model: str
    version: int
    reason: str
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


def score_from(row: sqlite3.Row) -> Score:
    """The row as a `Score`."""
    return Score(row["image"], row["stratum"], json.loads(row["terms"]), row["embedding"], row["ts"])


def pick_from(row: sqlite3.Row) -> Pick:
    """The row as a `Pick`."""
    return Pick(**dict(row))


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
