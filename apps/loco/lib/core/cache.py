"""Loaded cases on disk: read and resampled once per project, not once per epoch.

One file per case in one folder, under a name made of everything that decides its content, so that nothing has to be
invalidated. Any number of processes may use a folder at once: a file appears whole or not at all, one that is damaged or
gone counts as missing. Plain files, where a database would refuse network folders.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.core import cases, grid, images
from lib.core.cases import Record, load_case
from lib.core.files import replacing
from lib.core.spec import DataSpec

logger = logging.getLogger(__name__)

Item = dict[str, Tensor]

_ROOM = 0.9
"""Share of the limit that is left after files were removed, so that not every write has to look again."""
_LOOK_EVERY = 1 / 64
"""Share of the limit that one process writes before it looks at what the others have written."""
_ABANDONED_S = 3600.0
"""Age of a half-written file whose writer must have died."""


class CaseCache:
    """Tensors by key under `folder`, the least recently used removed when they exceed `limit` bytes.

    The limit is lowered to half of the disk that would be free without the cache. It may be exceeded by a sixty-fourth
    for each process that writes. A disk that takes no more files is said once; from then on nothing is written.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder, self._wanted = Path(folder), limit
        self._written = 0
        self._room: int | None = None
        """Bytes that may be written before the folder is looked at again; None: not looked at yet."""
        self._refused = limit <= 0

    def __contains__(self, key: str) -> bool:
        """Whether there is a file of that key, which may be damaged."""
        return self._path(key).is_file()

    def get(self, key: str) -> Item | None:
        """The tensors of a key; None when they are not there or damaged."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as file:
                item = {name: torch.from_numpy(file[name]) for name in file.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
            logger.warning("A cached case is damaged (%s) and is read anew", type(e).__name__)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return item

    def put(self, key: str, item: Mapping[str, Tensor]) -> None:
        """Keep tensors, if there is room for them. Never raises for the disk's sake."""
        size = sum(t.numel() * t.element_size() for t in item.values())
        if self._refused:
            return
        try:
            if self._room is None or self._written + size > self._room:
                self._make_room(size)
            if size > (self._room or 0):
                return
            with replacing(self._path(key), flush=False) as file:
                np.savez(file, **{name: tensor.numpy() for name, tensor in item.items()})
            self._written += size
        except OSError as e:
            self._refused = True
            logger.warning("Cases are no longer cached: %s cannot be written (%s)", self.folder, e.strerror or e)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _make_room(self, size: int) -> None:
        """Look at the folder; if `size` more bytes do not fit, remove the files that were not used for longest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = _files(self.folder)
        used = sum(n for _, n, _ in files)
        limit = min(self._wanted, (used + shutil.disk_usage(self.folder).free) // 2)
        if used + size > limit:
            for _, n, path in sorted(files):
                if used + size <= _ROOM * limit:
                    break
                path.unlink(missing_ok=True)
                used -= n
        self._written, self._room = 0, min(limit - used, max(size, int(limit * _LOOK_EVERY)))


class CaseStore:
    """Loads records onto the working grid, through the cache where there is one."""

    def __init__(self, data: DataSpec, classes: int, cache: CaseCache | None) -> None:
        self._data, self._classes, self._cache = data, classes, cache

    def __call__(self, record: Record) -> Item:
        """`image` C *working float32 and, for labelled records, `label` 1 *working uint8. Raises `CaseError`."""
        if self._cache is None:
            return self._load(record)
        key = key_of(record, self._data, self._classes)
        item = self._cache.get(key)
        if item is None:
            item = self._load(record)
            self._cache.put(key, item)
        return item

    def _load(self, record: Record) -> Item:
        case = load_case(record.image, record.label, self._data, self._classes)
        item = {"image": case.image.contiguous()}
        if case.label is not None:
            item["label"] = case.label.contiguous()
        return item


def key_of(record: Record, data: DataSpec, classes: int) -> str:
    """Name of a loaded case: it changes with its files, with what is made of them, and with the code that does."""
    files = [_stamp(p) for p in (record.image, record.label) if p]
    return hashlib.sha256(json.dumps([files, asdict(data), classes, _code()]).encode()).hexdigest()


def _stamp(path: str) -> Sequence[object]:
    try:
        stat = os.stat(path)
    except OSError:
        return [path]
    return [path, stat.st_mtime_ns, stat.st_size]


@functools.cache
def _code() -> str:
    """Digest of the modules that read a case."""
    digest = hashlib.sha256()
    for module in (cases, grid, images):
        digest.update(Path(module.__file__ or "").read_bytes())
    return digest.hexdigest()


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of every kept case; what a dead writer left is removed."""
    found = []
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue
            if entry.name.endswith(".npz"):
                found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
            elif entry.name.endswith(".tmp") and now - stat.st_mtime > _ABANDONED_S:
                Path(entry.path).unlink(missing_ok=True)
    return found
