"""One log line per decision, for people and programs: which image was served and why, what was submitted, trained, published.

Lines hold no name of a patient: an image, whose file name may be one, appears as the first digits of its SHA-256. To find an
image of the log, hash the ids of the studies the same way: `printf %s ID | sha256sum`.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.core.images import CaseError
from lib.store.records import to_json

_SERVER = 500
"""From here on a refusal speaks of this server or the PACS; below, of what was asked for, by name."""

logger = logging.getLogger("loco.decisions")


def decided(what: str, *, image: str | None = None, client: str | None = None, **facts: Any) -> None:
    """Log one decision.

    Args:
        what: picked, leased, submitted, removed, retrain, published, kept, …
        image: id of the image; its hash is logged.
        client: who asked; its hash is logged, as a name of a person.
        facts: numbers and reasons, free of ids and names.
    """
    hashed = {key: hashed_name(name) for key, name in (("image", image), ("client", client)) if name}
    logger.info("decision %s", to_json({"what": what, **hashed, **facts}))


def hashed_name(name: str) -> str:
    """Twelve digits that stand for a name in the log.

    >>> hashed_name("frame_000")
    '8f3f438c69de'
    """
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def nameless(error: Exception) -> str:
    """An error as a sentence for the log: the file that a `CaseError` speaks of, whose name may be a patient's, is hashed.

    >>> nameless(CaseError("Doe_Jane.nii.gz", "expected a volume"))
    '05490c79f20b: expected a volume'
    """
    cause = error.__cause__ if isinstance(error, HTTPException) else error
    if isinstance(cause, CaseError):
        name = hashed_name(cause.stem)
        reason = cause.reason.replace(cause.path, name)  # libraries name the file in their messages, too
        return f"{name}: {reason.replace(Path(cause.path).name, name)}"
    if isinstance(error, HTTPException):
        return str(error.detail) if error.status_code >= _SERVER else f"refused ({error.status_code})"
    return str(getattr(error, "strerror", "") or error)
