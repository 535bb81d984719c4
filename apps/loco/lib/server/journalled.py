"""Labels of all kinds of studies: checked, kept as files and journalled; also those that came behind the server's back."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore

from lib.core.images import CaseError, class_indices, read_label
from lib.decisions import decided, hashed_name, nameless
from lib.server.kept import KeptLabels
from lib.server.labelfiles import FINAL, LabelFiles
from lib.server.labels import checked_label, label_info_of, sha256_of
from lib.server.names import checked_tag
from lib.store.journal import Journal
from lib.studies import group_of

logger = logging.getLogger(__name__)


class JournalledLabels(Datastore):
    """The labels of a datastore, which keeps `_files` and a `_journal`. `attach` must be called before labels are saved."""

    _journal: Journal
    _files: LabelFiles
    _submitting: threading.RLock

    def attach(self, labels: Mapping[str, int], pattern: str) -> None:
        """Say which classes there are and how patients are told apart."""
        self._labels, self._pattern = dict(labels), pattern

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label; one that another annotator's has overtaken is kept as a second reading (see `Readings`).

        Raises `HTTPException` 404 for an unknown image and 400 with a sentence for an unusable label.
        """
        self._checked(image_id)
        checked_tag(label_tag)
        info = dict(label_info or {})
        image = self.image_file(image_id)
        try:
            kept, found = checked_label(label_filename, image, self._labels, label_info_of(info))
        except CaseError as e:
            raise HTTPException(400, f"The label of {image_id} was not saved. {e}") from e
        try:
            if label_tag == FINAL and self._journal.is_overtaken(image_id, _client_of(info)):
                self._keep_reading(image_id, kept, found, info)
            else:  # takes its locks itself: those of a PACS have an order
                self.keep_label(image_id, kept, label_tag, found, info)
        finally:
            if kept != label_filename:
                Path(kept).unlink(missing_ok=True)
        return image_id

    def keep_label(
        self, image_id: str, file: str | Path, tag: str, found: Mapping[str, int], info: Mapping[str, Any]
    ) -> Path:
        """Keep a label file that lies on its image's grid in class indices, and journal it when it is final.

        A final label is copied and journalled before it takes the place of an earlier one: after a crash in between, the
        next start puts it there, and when it cannot be put there the entry is taken back.
        """
        with self._submitting:
            path = self._files.place(image_id, tag, file)
            entry = self._journal_label(image_id, path, file, found, info) if tag == FINAL else None
            try:
                self._files.put(image_id, tag, file)
            except OSError:
                if entry is not None and not self._lies_there(entry):
                    self._journal.withdraw(entry)
                raise
            note = {**info, "ts": int(time.time()), "name": path.name}
            self._journal.put_note(f"label/{tag}", image_id, note, time.time())
            if entry is not None:
                self._submitted(entry, image_id)
        return path

    def still_to_do(self, image_id: str) -> str:
        """What whoever saved a label last must know of it: that it does not count, when another one came first."""
        readings, latest = self._journal.readings(image_id), self._journal.history(image_id)
        if not readings or (latest and latest[0].ts > readings[0].ts):
            return ""
        return (
            "Somebody else labelled this image while you held it no longer: their label counts, yours is kept as another "
            "reading. Submit it again to put it in place of theirs."
        )

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; it no longer counts for retraining."""
        with self._submitting:
            self._files.remove(label_id, label_tag)
            self._journal.drop_note(f"label/{label_tag}", label_id)
            if label_tag == FINAL:
                self._journal.mark_removed(label_id, time.time())
                decided("removed", image=label_id)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """File of a label; empty without one."""
        return str(self._files.of(label_tag).get(label_id, ""))

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        """Content of a label's file."""
        return opened(self.get_label_uri(label_id, label_tag))

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tags of the labels of a study; a label has the id of its study."""
        return {tag: image_id for tag, files in self._files.by_tag().items() if image_id in files}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Id of a study's label, or empty."""
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What the viewer said of a label."""
        return self._journal.note(f"label/{label_tag}", label_id)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Note something of a label. Raises `HTTPException` 404 without one."""
        if label_id not in self._files.of(label_tag):
            raise HTTPException(404, f"expected a label {label_tag} of {label_id}, but there is none; submit it first")
        kind = f"label/{label_tag}"
        self._journal.put_note(kind, label_id, {**self._journal.note(kind, label_id), **info}, time.time())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Studies with a submitted label."""
        submitted = self._files.of(FINAL)
        return [i for i in self.list_images() if i in submitted]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Studies without one."""
        submitted = self._files.of(FINAL)
        return [i for i in self.list_images() if i not in submitted]

    def sync_journal(self) -> int:
        """Journal labels that came or went behind the server's back (copied into the folder). Returns how many came.

        A label counts as gone only when its file is, and the folder it lay in is not: a share that is not mounted for a
        while takes no label from anybody.
        """
        with self._submitting:
            files = self._files.by_tag(now=True)[FINAL]
            studies = set(self.list_images())
            known = {s.image: self._journal.label_file(s) for s in self._journal.submissions()}
            for image_id in known.keys() - files.keys():
                path = known[image_id]
                if path.parent.is_dir() and not path.exists():
                    self._journal.mark_removed(image_id, time.time())
            came = 0
            for image_id in sorted((files.keys() & studies) - known.keys()):
                try:
                    path = files[image_id]
                    self._submitted(self._journal_label(image_id, path, path, self._drawn_in(path), {}), image_id)
                    came += 1
                except OSError as e:
                    logger.warning(
                        "A label cannot be read and does not count: %s: %s", hashed_name(image_id), e.strerror
                    )
            return came

    def _journal_label(
        self, image_id: str, place: Path, file: str | Path, found: Mapping[str, int], info: Mapping[str, Any]
    ) -> int:
        """Copy the label `file` and journal it as what lies, or will lie, in `place`. Returns the number of the entry."""
        digest, kept = KeptLabels(self._journal).keep(file)
        return self._journal.add_submission(
            image_id,
            group_of(self, image_id, self._pattern),
            str(place),
            digest,
            found,
            _client_of(info),
            self._started_from(image_id, info),
            time.time(),
            kept,
        )

    def _drawn_in(self, label: Path) -> dict[str, int]:
        """Classes of a label that nobody submitted here; none of one that cannot be read, which training leaves out."""
        try:
            classes = class_indices(read_label(label).array, max(self._labels.values()) + 1, label)
        except CaseError as e:
            logger.warning("%s", nameless(e))
            return {}
        return {name: index for name, index in self._labels.items() if bool((classes == index).any())}

    def _keep_reading(self, image_id: str, file: str | Path, found: Mapping[str, int], info: Mapping[str, Any]) -> None:
        client, version = _client_of(info), self._started_from(image_id, info)
        digest, kept = KeptLabels(self._journal).keep(file)
        self._journal.add_reading(image_id, client, digest, found, version, time.time(), kept)
        decided("second reading", image=image_id, client=client, sha256=digest[:12])

    def _started_from(self, image_id: str, info: Mapping[str, Any]) -> int | None:
        """Version of the model that the annotator went on from, as they say or as they were given it."""
        given = str(info.get("model_version") or "")
        known = given.isdecimal() and len(given) < 10
        return int(given) if known else self._journal.start_of(image_id, _client_of(info))

    def _lies_there(self, entry: int) -> bool:
        """Whether a label is in its place, although an error came: flushing its folder may fail after that."""
        label = self._journal.submission(entry)
        if label is None:
            return False
        file = self._journal.label_file(label)
        return file.is_file() and sha256_of(file) == label.sha256

    def _submitted(self, entry: int, image_id: str) -> None:
        self._journal.release(image_id)
        label = self._journal.submission(entry)
        facts = {"classes": len(label.labels), "sha256": label.sha256[:12], "model": label.model_version}
        decided("submitted", image=image_id, client=label.client, **facts)

    @abstractmethod
    def known(self, image_id: str) -> bool:
        """Whether there is such a study."""

    @abstractmethod
    def image_file(self, image_id: str) -> Path:
        """File of a study."""

    def _checked(self, image_id: str) -> None:
        if not self.known(image_id):
            raise HTTPException(404, f"expected the id of a study, but got {image_id!r}; refresh the list of studies")


def _client_of(info: Mapping[str, Any]) -> str:
    """Who submits; empty for somebody without a name."""
    return str(info.get("client_id") or info.get("user") or "")


def opened(path: str) -> Any:
    """Content of a file, or None for an empty path."""
    return open(path, "rb") if path else None
