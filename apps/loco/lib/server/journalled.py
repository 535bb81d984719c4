"""The journal's side of labels: what was submitted here, and what came or went behind the server's back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.decisions import decided
from lib.server.kept import KeptLabels
from lib.server.labelfiles import FINAL, LabelFiles
from lib.store.journal import Journal
from lib.studies import group_of

logger = logging.getLogger(__name__)


class JournalledLabels:
    """Mixin of a datastore that keeps `_files` and a `_journal`. `attach` must be called before labels are saved."""

    _journal: Journal
    _files: LabelFiles
    _submitting: threading.RLock

    def attach(self, labels: Mapping[str, int], pattern: str) -> None:
        """Say which classes there are and how patients are told apart."""
        self._labels, self._pattern = dict(labels), pattern

    def sync_journal(self) -> int:
        """Journal labels that came or went behind the server's back (copied into the folder). Returns how many came.

        A label counts as gone only when its file is, and the folder it lay in is not: a share that is not mounted for a
        while takes no label from anybody.
        """
        with self._submitting:
            files = self._files.by_tag(now=True)[FINAL]
            studies = set(self.list_images())
            known = {s.image: s.label for s in self._journal.submissions()}
            for image_id in known.keys() - files.keys():
                path = Path(known[image_id])
                if path.parent.is_dir() and not path.exists():
                    self._journal.mark_removed(image_id, time.time())
            came = 0
            for image_id in sorted((files.keys() & studies) - known.keys()):
                try:
                    self._journal_label(image_id, files[image_id], {}, {})
                    came += 1
                except OSError as e:
                    logger.warning("The label of %s cannot be read and does not count: %s", image_id, e)
            return came

    def _journal_label(self, image_id: str, file: Path, found: Mapping[str, int], info: Mapping[str, Any]) -> None:
        given = str(info.get("model_version") or "")
        client = str(info.get("client_id") or info.get("user") or "")
        digest, kept = KeptLabels(self._journal).keep(file)
        self._journal.add_submission(
            image_id,
            group_of(self, image_id, self._pattern),
            str(file),
            digest,
            found,
            client,
            int(given) if given.isdecimal() and len(given) < 10 else self._journal.start_of(image_id, client),
            time.time(),
            kept,
        )
        self._journal.release(image_id)
        decided("submitted", image=image_id, client=client, classes=len(found), sha256=digest[:12])
