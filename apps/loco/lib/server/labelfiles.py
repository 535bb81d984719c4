"""Submitted labels as files: `<root>/<tag>/<id><suffix>`, one per study and tag, whoever put it there."""

from __future__ import annotations

import shutil
from pathlib import Path

from lib.core.files import replacing
from lib.core.images import SUFFIXES, suffix_of
from lib.server.files import FileTree

FINAL = "final"
TAGS = (FINAL, "original")


def id_of_path(path: str) -> str:
    """Id that a path in the studies asks for: its parts without the suffix, joined by two underscores.

    >>> id_of_path("video7/case.1.JPG")
    'video7__case.1'
    """
    parts = [p for p in path.replace("\\", "/").split("/") if p not in ("", ".", "..")]
    suffix = suffix_of(path)
    joined = "__".join(parts)
    return joined[: -len(suffix)] if suffix else joined


class LabelFiles:
    """Labels of all tags below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for tag in TAGS:
            (root / tag).mkdir(parents=True, exist_ok=True)
        self._tree = FileTree(root, SUFFIXES)
        self._seen: tuple[int, dict[str, dict[str, Path]]] = (-1, {})

    def of(self, tag: str) -> dict[str, Path]:
        """Label files of a tag by the id of their study."""
        return self.by_tag().get(tag, {})

    def by_tag(self, now: bool = False) -> dict[str, dict[str, Path]]:
        """All label files by tag and id."""
        version, files = self._tree.versioned(now)
        known, by_tag = self._seen
        if version != known:
            found: dict[str, dict[str, Path]] = {tag: {} for tag in TAGS}
            for file in files:
                tag, _, rest = file.partition("/")
                if rest:
                    found.setdefault(tag, {})[id_of_path(rest)] = self.root / file
            self._seen = version, found
            return found
        return by_tag

    def place(self, image_id: str, tag: str, source: str | Path) -> Path:
        """Where `put` copies a label."""
        return self.root / tag / f"{image_id}{suffix_of(source)}"

    def put(self, image_id: str, tag: str, source: str | Path) -> Path:
        """Copy a label to its place, whole or not at all; another one of the same study and tag makes way."""
        before = self.by_tag(now=True).get(tag, {}).get(image_id)
        target = self.place(image_id, tag, source)
        with replacing(target) as out, open(source, "rb") as content:
            shutil.copyfileobj(content, out)
        if before is not None and before != target:
            before.unlink(missing_ok=True)
        self.by_tag(now=True)
        return target

    def remove(self, image_id: str, tag: str) -> None:
        """Delete a label if it is there."""
        file = self.by_tag(now=True).get(tag, {}).get(image_id)
        if file is not None:
            file.unlink(missing_ok=True)
        self.by_tag(now=True)
