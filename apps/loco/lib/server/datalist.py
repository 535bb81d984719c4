"""A datalist JSON as studies, in the form of the Medical Segmentation Decathlon, instead of a folder layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.core.images import SUFFIXES, CaseError, suffix_of
from lib.core.spec import SpecError
from lib.server.datastores import Studies
from lib.server.folder import new_ids
from lib.server.labelfiles import FINAL
from lib.store.journal import Journal

logger = logging.getLogger(__name__)


class ListedStudies(Studies):
    """Cases of a JSON file: `{"training": [{"image": ..., "label": ...}]}`, paths relative to it, `label` optional.

    The list is read again when it changes. Images and labels that it names are never changed; labels submitted here lie in
    `state`, and win.
    """

    def __init__(self, listed: Path, journal: Journal, state: Path) -> None:
        """Read the list. Raises `SpecError` when it is none."""
        super().__init__(journal, state / "labels")
        self._list = listed
        self._stamp = 0
        self._cases: dict[str, tuple[Path, Path | None]] = {}
        self._look()

    def list_images(self) -> list[str]:
        """Ids of all cases, sorted."""
        return sorted(self._look())

    def known(self, image_id: str) -> bool:
        """Whether there is such a case."""
        return image_id in self._look()

    def image_file(self, image_id: str) -> Path:
        """File of a case. Raises `HTTPException` 404 for an unknown id."""
        self._checked(image_id)
        return self._cases[image_id][0]

    def sync_journal(self) -> int:
        """Labels that the list names are copied to the submitted ones, once; then as in a folder."""
        submitted = self._files.of(FINAL)
        for image_id, (_, label) in self._look().items():
            if label is not None and image_id not in submitted and not self._journal.note("listed", image_id):
                self._files.put(image_id, FINAL, label)
                self._journal.put_note("listed", image_id, {"label": str(label)}, 0.0)
        return super().sync_journal()

    def attach(self, labels: Mapping[str, int], pattern: str) -> None:
        """Say which classes there are, and take the labels of the list."""
        super().attach(labels, pattern)
        self.sync_journal()

    def name(self) -> str:
        """Name of the list."""
        return self._list.name

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: cases come from the list."""
        raise HTTPException(405, f"expected no upload, since the studies are those of {self._list.name}; add it there")

    def remove_image(self, image_id: str) -> None:
        """Refused: cases come from the list."""
        raise HTTPException(405, f"expected no deletion, since the studies are those of {self._list.name}; edit it")

    def _facts(self, image_id: str) -> dict[str, Any]:
        path = self._cases[image_id][0]
        return {"name": f"{image_id}{suffix_of(path)}", "path": str(path)}

    def _look(self) -> dict[str, tuple[Path, Path | None]]:
        stamp = self._list.stat().st_mtime_ns
        if stamp != self._stamp:
            entries = read_datalist(self._list)
            known = self._journal.case_ids()
            self._journal.add_case_ids(new_ids([e for e in entries if e not in known], known.values()).items())
            ids = self._journal.case_ids()
            self._cases = {ids[relative]: paths for relative, paths in entries.items()}
            self._stamp = stamp
        return self._cases


def read_datalist(listed: Path) -> dict[str, tuple[Path, Path | None]]:
    """Image and label of each entry of `training`, by the image's path as the list writes it.

    Images that are missing or of another type are left out with a warning.

    Raises:
        SpecError: no JSON, or without such a list.
    """
    try:
        entries = json.loads(listed.read_text())["training"]
        named = [e if isinstance(e, dict) else {"image": str(e)} for e in entries]
        pairs = [(str(e["image"]), e.get("label")) for e in named]
    except (ValueError, KeyError, TypeError) as e:
        raise SpecError(
            f'expected {listed.name} to be a datalist, {{"training": [{{"image": "a.nii.gz", "label": "b.nii.gz"}}]}}, '
            f"but got {type(e).__name__}: {e}; correct it"
        ) from e
    found: dict[str, tuple[Path, Path | None]] = {}
    for image, label in pairs:
        path = (listed.parent / image).resolve()
        if not suffix_of(path) or not path.is_file():
            logger.warning("Left out: %s", CaseError(path, f"expected a file as one of {', '.join(SUFFIXES)}"))
            continue
        label_path = (listed.parent / str(label)).resolve() if label else None
        found[image] = (path, label_path if label_path is not None and label_path.is_file() else None)
    return found
