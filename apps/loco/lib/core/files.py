"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path, *, flush: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends without an error.

    The content is on disk before the name changes, so that a reader, or a machine that loses power, sees the old file or the
    new one. After an error the old file is untouched and nothing is left behind. The folder is made when missing.
    `flush` False does not wait for the disk: quicker, for files that can be made again and whose reader notices damage.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if flush:
            _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: str | Path, older_than_s: float) -> int:
    """Delete the unfinished files of `replacing` below `folder` that a crash left behind. Returns how many.

    Younger ones may be in use: another process of the app can be writing one now.
    """
    count = 0
    for file in Path(folder).rglob(".*.tmp"):
        if file.is_file() and time.time() - file.stat().st_mtime > older_than_s:
            file.unlink(missing_ok=True)
            count += 1
    return count


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
