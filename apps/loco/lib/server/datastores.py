"""MONAI Label's datastores, mended: labels are checked and journalled, files are written whole."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomweb_client.session_utils import create_session_from_user_pass
from fastapi import HTTPException
from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.core.files import replacing
from lib.core.images import PICTURE_SUFFIXES, SUFFIXES, CaseError
from lib.decisions import decided
from lib.server.kept import KeptLabels
from lib.server.labels import checked_label, label_info_of
from lib.server.names import checked_id, checked_tag, inside
from lib.store.journal import Journal
from lib.studies import group_of

logger = logging.getLogger(__name__)

_FROM_PACS = 3
PATTERNS = tuple(f"*{s}" for s in SUFFIXES) + tuple(f"*{s.upper()}" for s in PICTURE_SUFFIXES)


class JournalledLabels:
    """Mixin over a datastore: `save_label` checks, keeps and journals; `remove_label` journals.

    `attach` must be called once before labels are saved.
    """

    def attach(self, journal: Journal, labels: Mapping[str, int], pattern: str) -> None:
        """Say where submissions are journalled, which classes there are and how patients are told apart."""
        self._journal, self._labels, self._pattern = journal, dict(labels), pattern
        self._kept = KeptLabels(journal)
        self._submitting = threading.RLock()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label. Raises `HTTPException` 404 for an unknown image and 400 with a sentence for an unusable label."""
        if image_id not in self.list_images():
            raise HTTPException(404, f"expected the id of a study, but got {image_id!r}; refresh the list of studies")
        checked_tag(label_tag)
        info = dict(label_info or {})
        try:
            kept, found = checked_label(label_filename, self.get_image_uri(image_id), self._labels, label_info_of(info))
        except CaseError as e:
            raise HTTPException(400, f"The label of {image_id} was not saved. {e}") from e
        try:
            with self._submitting:
                before = self.get_label_uri(image_id, label_tag) if image_id in self.get_labeled_images() else ""
                label_id = super().save_label(image_id, kept, label_tag, info)
                after = LocalDatastore.get_label_uri(self, image_id, label_tag)
                if before and after and before != after:
                    Path(before).unlink(missing_ok=True)
                if label_tag == DefaultLabelTag.FINAL:
                    self._journal_label(image_id, after, found, info)
        finally:
            if kept != label_filename:
                Path(kept).unlink(missing_ok=True)
        return label_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; it no longer counts for retraining."""
        super().remove_label(label_id, label_tag)
        if label_tag == DefaultLabelTag.FINAL:
            self._journal.mark_removed(label_id, time.time())
            decided("removed", image=label_id)

    def sync_journal(self) -> int:
        """Journal labels that came or went behind the server's back (copied into the folder). Returns how many came.

        A label counts as gone only when its file is: the datastore's list is empty for a moment while it is refreshed.
        """
        with self._submitting:
            listed = set(LocalDatastore.get_labeled_images(self))
            known = {s.image: s.label for s in self._journal.submissions()}
            for image_id in known.keys() - listed:
                if not Path(known[image_id]).exists():
                    self._journal.mark_removed(image_id, time.time())
            came = 0
            for image_id in sorted(listed - known.keys()):
                uri = LocalDatastore.get_label_uri(self, image_id, DefaultLabelTag.FINAL)
                try:
                    self._journal_label(image_id, uri, {}, {})
                    came += 1
                except OSError as e:
                    logger.warning("The label of %s cannot be read and does not count: %s", image_id, e)
            return came

    def _journal_label(self, image_id: str, uri: str, found: Mapping[str, int], info: Mapping[str, Any]) -> None:
        given = str(info.get("model_version") or "")
        client = str(info.get("client_id") or info.get("user") or "")
        digest, kept = self._kept.keep(uri)
        self._journal.add_submission(
            image_id,
            group_of(self, image_id, self._pattern),
            str(uri),
            digest,
            found,
            client,
            int(given) if given.isdecimal() and len(given) < 10 else self._journal.start_of(image_id, client),
            time.time(),
            kept,
        )
        self._journal.release(image_id)
        decided("submitted", image=image_id, client=client, classes=len(found), sha256=digest[:12])


class FolderDatastore(JournalledLabels, LocalDatastore):
    """A folder of pictures and volumes. The list is written whole, so that a crash never leaves half of it."""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add a study. Raises `HTTPException` 400 for an id that is a path."""
        inside(self._datastore.image_path(), checked_id(image_id or Path(image_filename).name, "image id"))
        return super().add_image(image_id, image_filename, image_info)

    def _update_datastore_file(self, lock: bool = True) -> None:
        if lock:
            with FileLock(self._lock_file):
                self._write_whole()
        else:
            self._write_whole()

    def _write_whole(self) -> None:
        self._ignore_event_config = True
        path = Path(self._datastore_config_path)
        content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), default=str)
        with replacing(path) as file:
            file.write(content.encode())
        self._config_ts = path.stat().st_mtime


class PacsDatastore(JournalledLabels, DICOMWebDatastore):
    """Series of a DICOMweb server; labels submitted here count at once."""

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series with a label in the PACS or submitted through this server, each once."""
        stored = super().get_labeled_images()
        return sorted({*stored, *LocalDatastore.get_labeled_images(self)})

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """File of a label: the submitted one where there is one."""
        local = LocalDatastore.get_label_uri(self, label_id, label_tag)
        return local or super().get_label_uri(label_id, label_tag, image_id)


def open_folder(studies: str) -> FolderDatastore:
    """Datastore of a folder of studies. A list that cannot be read is set aside; the folder and the journal hold the truth."""
    set_aside_if_broken(Path(studies) / "datastore_v2.json")
    return FolderDatastore(
        studies,
        extensions=PATTERNS,
        auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )


def open_pacs(studies: str) -> PacsDatastore:
    """Datastore of a DICOMweb server."""
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    client = DICOMwebClientX(
        url=studies,
        session=create_session_from_user_pass(user, password) if user and password else None,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    return PacsDatastore(
        client,
        search_filter=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
        cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
        fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        convert_to_nifti=settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
    )


def set_aside_if_broken(path: Path) -> bool:
    """Rename a list of studies that is no such list, so that it is made again. Returns whether it was."""
    if not path.exists():
        return False
    try:
        LocalDatastoreModel.model_validate_json(path.read_text())
    except ValueError:
        aside = path.with_name(f"{path.name}.broken-{time.time_ns()}")
        path.replace(aside)
        logger.error(
            "The list of studies %s could not be read; it was set aside as %s and is made again", path.name, aside.name
        )
        return True
    return False


def some_images(datastore: Datastore, limit: int) -> list[str]:
    """Image files of up to `limit` studies, spread over the list, to look at before a model is chosen.

    Of a DICOMweb server only a few are looked at, since each must be fetched and converted first.
    """
    limit = min(limit, _FROM_PACS) if isinstance(datastore, PacsDatastore) else limit
    images = sorted(datastore.list_images())
    step = max(1, len(images) // limit)
    return [uri for uri in (datastore.get_image_uri(i) for i in images[::step][:limit]) if uri]
