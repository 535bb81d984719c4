"""Which files lie in a folder, at any depth, without looking at all of them each time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_SETTLED_NS = 2_000_000_000
"""A folder that changed less than this before it was read may have changed again within the same tick of the clock."""

_REST = 10.0
"""The next look comes no sooner than this many times the duration of the last."""


@dataclass(frozen=True)
class _Folder:
    """What a folder held when its modification time was `stamp`."""

    stamp: int
    settled: bool
    files: tuple[str, ...]
    folders: tuple[str, ...]


class FileTree:
    """Files below `root` with one of `suffixes` (any case), by their path in it with `/`.

    Only folders whose modification time changed are read again, so a look costs one call per folder, works on network mounts
    and needs no watching thread. Hidden files and folders, links to folders and `skip` (paths in `root`) are left out; and so,
    with a warning, are names that are no text: neither a journal nor a viewer could name them.
    """

    def __init__(self, root: Path, suffixes: Sequence[str], skip: Collection[str] = ()) -> None:
        self._root, self._suffixes, self._skip = root, tuple(suffixes), frozenset(skip)
        self._folders: dict[str, _Folder] = {}
        self._files: tuple[str, ...] = ()
        self._next = 0.0
        self._lock = threading.Lock()
        self._version = 0
        self._nameless: set[str] = set()

    def files(self, now: bool = False) -> tuple[str, ...]:
        """Paths, sorted. `now`: look also right after the last look."""
        return self.versioned(now)[1]

    def versioned(self, now: bool = False) -> tuple[int, tuple[str, ...]]:
        """A number that rises when the files change, and the files that belong to it."""
        with self._lock:
            started = time.monotonic()
            if now or started >= self._next:
                self._look()
                self._next = time.monotonic() + _REST * (time.monotonic() - started)
            return self._version, self._files

    def _look(self) -> None:
        known, self._folders = self._folders, {}
        todo = [""]
        while todo:
            name = todo.pop()
            folder = self._read(name, known.get(name))
            if folder is not None:
                self._folders[name] = folder
                todo += folder.folders
        if self._folders != known:
            files = tuple(sorted(f for folder in self._folders.values() for f in folder.files))
            if files != self._files:
                self._files = files
                self._version += 1

    def _read(self, name: str, known: _Folder | None) -> _Folder | None:
        try:
            stamp = os.stat(self._root / name).st_mtime_ns
            if known is not None and known.settled and known.stamp == stamp:
                return known
            files, folders = [], []
            with os.scandir(self._root / name) as entries:
                for entry in entries:
                    path = f"{name}/{entry.name}" if name else entry.name
                    if entry.name.startswith(".") or path in self._skip:
                        continue
                    if not self._is_text(path):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.name.lower().endswith(self._suffixes):
                        files.append(path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        return _Folder(stamp, time.time_ns() - stamp > _SETTLED_NS, tuple(files), tuple(folders))

    def _is_text(self, path: str) -> bool:
        try:
            path.encode()
        except UnicodeEncodeError:
            if path not in self._nameless:
                logger.warning("Left out: expected a name in UTF-8, but got %s; rename it", ascii(path))
            self._nameless.add(path)
            return False
        return True
