"""A folder of pictures and volumes at any depth: each file is one study with an id that it keeps."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.core.files import replacing
from lib.core.images import SUFFIXES, suffix_of
from lib.server.datastores import Studies
from lib.server.files import FileTree
from lib.server.labelfiles import id_of_path
from lib.store.journal import Journal

logger = logging.getLogger(__name__)

LABELS = "labels"
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_LONGEST = 150


class FolderStudies(Studies):
    """A folder of pictures and volumes. New files are noticed by themselves; the originals are never changed."""

    def __init__(self, root: str | Path, journal: Journal) -> None:
        self._root = Path(root).resolve()
        super().__init__(journal, self._root / LABELS)
        self._tree = FileTree(self._root, SUFFIXES, skip=(LABELS,))
        self._version = -1
        self._paths: dict[str, str] = {}
        self._ids: list[str] = []

    def list_images(self) -> list[str]:
        """Ids of all studies, sorted."""
        return list(self._look())

    def known(self, image_id: str) -> bool:
        """Whether there is such a study."""
        ids = self._look()
        place = bisect_left(ids, image_id)
        return place < len(ids) and ids[place] == image_id

    def image_file(self, image_id: str) -> Path:
        """File of a study. Raises `HTTPException` 404 for an unknown id."""
        self._checked(image_id)
        return self._root / self._paths[image_id]

    def refresh(self) -> None:
        """Look for new studies and labels now."""
        super().refresh()
        self._tree.files(now=True)

    def name(self) -> str:
        """Name of the folder."""
        return self._root.name

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy an uploaded study into the folder. Raises `HTTPException` 409 when another one has that name."""
        suffix = suffix_of(image_filename)
        if not suffix:
            raise HTTPException(400, f"expected an image as one of {', '.join(SUFFIXES)}, but got {image_filename!r}")
        name = safe_id(image_id or Path(image_filename).name[: -len(suffix)])
        target = self._root / f"{name}{suffix}"
        if target.exists() or self.known(name):
            raise HTTPException(409, f"expected a new study, but there is one called {name!r}; choose another name")
        with replacing(target) as out, open(image_filename, "rb") as content:
            shutil.copyfileobj(content, out)
        self.refresh()
        added = next(i for i, path in self._by_id().items() if path == target.name)
        if image_info:
            self.update_image_info(added, image_info)
        return added

    def remove_image(self, image_id: str) -> None:
        """Delete a study and its labels. Raises `HTTPException` 404 for an unknown id."""
        file = self.image_file(image_id)
        for tag in list(self.get_labels_by_image_id(image_id)):
            self.remove_label(image_id, tag)
        file.unlink(missing_ok=True)
        self.refresh()

    def _facts(self, image_id: str) -> dict[str, Any]:
        path = self._paths[image_id]
        return {"name": f"{image_id}{suffix_of(path)}", "path": str(self._root / path)}

    def _by_id(self) -> Mapping[str, str]:
        self._look()
        return self._paths

    def _look(self) -> list[str]:
        version, files = self._tree.versioned()
        if version != self._version:
            known = self._journal.case_ids()
            new = new_ids([f for f in files if f not in known], known.values())
            if new:
                self._journal.add_case_ids(new.items())
                known = self._journal.case_ids()
            self._paths = {known[f]: f for f in files}
            self._ids = sorted(self._paths)
            self._version = version
        return self._ids


def new_ids(paths: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Ids of files that have none yet, by path: the path without its suffix, and where that is taken a few digits more.

    Pictures come before volumes and, within them, in the order of the suffixes, so that two equal stems that are seen together
    get the same ids in every process.

    >>> new_ids(["a.png", "b/a.png"], [])
    {'a.png': 'a', 'b/a.png': 'b__a'}
    """
    used = set(taken)
    result: dict[str, str] = {}
    for path in sorted(paths, key=lambda p: (id_of_path(p), SUFFIXES.index(suffix_of(p)), p)):
        image_id = safe_id(id_of_path(path))
        if image_id in used:
            image_id = f"{image_id}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        used.add(image_id)
        result[path] = image_id
    return result


def safe_id(name: str) -> str:
    """A name that can be a file name on any system and part of an address.

    >>> safe_id("a:b?")
    'a_b_'
    """
    safe = _UNSAFE.sub("_", name).strip(". -") or "study"
    if len(safe.encode()) > _LONGEST:
        safe = safe[: _LONGEST // 3] + "-" + hashlib.sha256(safe.encode()).hexdigest()[:16]
    return safe
