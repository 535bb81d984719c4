"""One log line per decision, for people and programs: which image was served and why, what was submitted, trained, published.

Lines hold no name of a patient: an image, whose file name may be one, appears as the first digits of its SHA-256. To find an
image of the log, hash the ids of the studies the same way: `printf %s ID | sha256sum`.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from lib.store.records import to_json

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
