"""Names that come from outside: ids, tags, file names and paths. What could leave its folder is refused with a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fastapi import HTTPException

from lib.core.images import SUFFIXES

MAX_LENGTH = 200
"""Characters of a name; file systems allow 255 bytes, to which a suffix is added."""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_TAG = re.compile(r"final|original|version_[0-9]{1,4}")
"""What viewers use: `final` submits, `original` is a pre-segmentation, the Reviewer plugin numbers its versions."""


def checked_id(value: str, what: str = "id") -> str:
    """An id that can be part of a file name.

    Raises:
        HTTPException: 400; it is empty, too long, hidden, or has a separator or control character.
    """
    usable = (
        isinstance(value, str)
        and 0 < len(value.encode("utf-8", "replace")) <= MAX_LENGTH
        and not _FORBIDDEN.search(value)
        and value[0] not in ".- "
        and value[-1] not in ". "
    )
    if not usable:
        raise HTTPException(
            400,
            f"expected the {what} to be a file name without folders, of at most {MAX_LENGTH} bytes, but got "
            f"{str(value)[:MAX_LENGTH]!r}; rename it",
        )
    return value


def checked_tag(value: str) -> str:
    """A label tag. Raises `HTTPException` 400 for any but final, original and version_N."""
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise HTTPException(
            400, f"expected the tag to be final, original or version_N, but got {str(value)[:MAX_LENGTH]!r}; use final"
        )
    return value


def checked_extension(name: str | None, allowed: Sequence[str] = SUFFIXES) -> str:
    """The extension of an uploaded file in lower case, one of `allowed`, the longest that fits.

    Raises:
        HTTPException: 400; another type.
    """
    lower = str(name or "").lower()
    found = [suffix for suffix in allowed if lower.endswith(suffix)]
    if not found:
        raise HTTPException(
            400, f"expected a file as one of {', '.join(allowed)}, but got {lower[-40:]!r}; export it as one of them"
        )
    return max(found, key=len)


def inside(root: str | Path, path: str | Path) -> Path:
    """`path` (under `root` when relative) with links followed, if it lies in `root`.

    Raises:
        HTTPException: 400; it lies outside.
    """
    folder = Path(root).resolve()
    target = (folder / path).resolve()
    if not target.is_relative_to(folder):
        raise HTTPException(400, "expected a path inside the studies, but it leads out of them; use the id of a study")
    return target
