"""Every version of every label, by its content: `<kept>/ab/abcdef….png`. Nothing here is ever changed or deleted by the app."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from lib.core.files import replacing
from lib.core.images import SUFFIXES, CaseError, read_label
from lib.store.journal import Journal
from lib.store.records import Reading, Submission

logger = logging.getLogger(__name__)

FOLDER = ".loco-labels"
"""Beside the journal; hidden, so that no viewer or datastore takes the copies for studies."""


class KeptLabels:
    """Copies of labels that stay when the label is replaced or removed."""

    def __init__(self, journal: Journal) -> None:
        self.root = journal.path.parent / FOLDER

    def keep(self, label: str | Path) -> tuple[str, str]:
        """Copy a label, on disk when this returns; equal labels share one copy. Returns its SHA-256 and the copy's name."""
        content = Path(label).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if str(label).lower().endswith(s)), ".bin")
        name = f"{digest[:2]}/{digest}{suffix}"
        if not self._is_whole(name, digest):
            with replacing(self.root / name) as copy:
                copy.write(content)
        return digest, name

    def path(self, submission: Submission | Reading) -> Path | None:
        """The copy of a version if it is there and whole, else None."""
        whole = submission.kept and self._is_whole(submission.kept, submission.sha256)
        return self.root / submission.kept if whole else None

    def _is_whole(self, name: str, digest: str) -> bool:
        file = self.root / name
        return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == digest


def restore_labels(journal: Journal, kept: KeptLabels) -> list[str]:
    """Bring back the label files that the journal lists and the folder lacks, or holds half or in an older version.

    Called when the server starts: what was answered with 200 counts, whatever happened to the folder since. A label that
    another program changed to something that can be read stays as it is.

    Returns:
        The images whose labels were restored.
    """
    restored = []
    for submission in journal.latest():
        copy, label = kept.path(submission), journal.label_file(submission)
        if copy is None or _is_good(label, submission, journal):
            continue
        try:
            with replacing(label) as target, copy.open("rb") as source:
                shutil.copyfileobj(source, target)
        except OSError as e:
            logger.error("The label of a study could not be brought back: %s", e)
            continue
        restored.append(submission.image)
    return restored


def _is_good(label: Path, submission: Submission, journal: Journal) -> bool:
    if not label.is_file():
        return False
    digest = hashlib.sha256(label.read_bytes()).hexdigest()
    if digest == submission.sha256:
        return True
    if digest in {s.sha256 for s in journal.history(submission.image)}:
        return False
    try:
        read_label(label)
    except CaseError:
        return False
    return True
