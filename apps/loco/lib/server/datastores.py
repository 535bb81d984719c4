"""Studies and their labels for MONAI Label: labels are checked, kept as files and journalled; nothing is kept in memory alone.

MONAI Label's own datastores rewrite one list of everything at each change, from several processes; here files are the truth
of what there is, and the journal of who did what.
"""

from __future__ import annotations

import tempfile
import threading
import time
import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.core.images import CaseError
from lib.server.journalled import JournalledLabels, opened
from lib.server.labelfiles import FINAL, LabelFiles
from lib.store.journal import Journal


class Studies(JournalledLabels):
    """What folder and PACS have in common. A subclass says which studies there are and where the file of one is."""

    looked_at_first: int | None = None
    """Studies that are opened before a model is chosen; None: as many as wanted."""
    fetches = False
    """Whether a study must be fetched and converted before it is a file."""

    def __init__(self, journal: Journal, labels_root: Path) -> None:
        self._journal, self._files = journal, LabelFiles(labels_root)
        self._submitting = threading.RLock()

    # ---- what a subclass says ----

    @abstractmethod
    def list_images(self) -> list[str]:
        """Ids of all studies, sorted."""

    @abstractmethod
    def image_file(self, image_id: str) -> Path:
        """File of a study, fetched and converted first where necessary.

        Raises:
            HTTPException: 404 for an unknown id, 422 for one that is no usable image, 503 when it cannot be fetched now.
        """

    @abstractmethod
    def _facts(self, image_id: str) -> dict[str, Any]:
        """What is known of a study without opening it: `name` and, for DICOM, patient, study and series."""

    def at_hand(self, image_id: str) -> bool:
        """Whether a study can be used without crowding out another one."""
        return True

    def prefetch(self, image_ids: list[str]) -> None:
        """These are likely to be wanted next; they are made ready in the background."""

    def serve(self, every_s: float) -> None:
        """In the server process only: begin to look for what is new every so many seconds."""

    # ---- images ----

    def get_image_uri(self, image_id: str) -> str:
        """File of a study; empty for an unknown id, which MONAI Label answers with 404."""
        return str(self.image_file(image_id)) if self.known(image_id) else ""

    def known(self, image_id: str) -> bool:
        """Whether there is such a study."""
        return image_id in self.list_images()

    def get_image(self, image_id: str, params: Any = None) -> Any:
        """Content of a study's file."""
        return opened(self.get_image_uri(image_id))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of a study, and what was noted of it."""
        return {**self._facts(image_id), **self._journal.note("image", image_id)} if self.known(image_id) else {}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note something of a study."""
        self._checked(image_id)
        self._journal.put_note("image", image_id, {**self._journal.note("image", image_id), **info}, time.time())

    # ---- all of it ----

    def name(self) -> str:
        """Name of the studies."""
        return "studies"

    def description(self) -> str:
        """What they are."""
        return type(self).__doc__ or ""

    def set_name(self, name: str) -> None:
        """Refused: the name is that of the folder or address."""
        raise HTTPException(405, "expected no new name, since studies are named by their place; move them instead")

    set_description = set_name

    def refresh(self) -> None:
        """Look for new studies and labels now."""
        self._files.by_tag(now=True)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Pairs of image and submitted label, as files."""
        files = self._files.of(FINAL)
        return [{"image": self.get_image_uri(i), "label": str(files[i])} for i in self.get_labeled_images()]

    def status(self) -> dict[str, Any]:
        """Counts of studies, submitted labels and labels of each tag."""
        tags = {tag: len(files) for tag, files in self._files.by_tag().items() if files}
        return {"total": len(self.list_images()), "completed": len(self.get_labeled_images()), "label_tags": tags}

    def json(self) -> dict[str, Any]:
        """Everything in the form that the plugins of 3D Slicer read."""
        notes, by_tag = self._journal.notes(), self._files.by_tag()
        objects = {}
        for image_id in self.list_images():
            facts = {**self._facts(image_id), **notes.get(("image", image_id), {})}
            objects[image_id] = {
                "image": {"ext": _rest(facts["name"], image_id), "info": facts},
                "labels": {
                    tag: {
                        "ext": _rest(files[image_id].name, image_id),
                        "info": notes.get((f"label/{tag}", image_id), {}),
                    }
                    for tag, files in by_tag.items()
                    if image_id in files
                },
            }
        return {"name": self.name(), "description": self.description(), "objects": objects}

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """ZIP of labelled studies with their labels. Raises `HTTPException` 404 when there are none."""
        pairs = self.datalist()[: limit_cases or None]
        if not pairs:
            raise HTTPException(404, "expected at least one submitted label, but there is none; submit a label first")
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as out:
            try:
                with zipfile.ZipFile(out, "w") as archive:
                    for pair in pairs:
                        for key, path in pair.items():
                            archive.write(path, arcname=f"{key}/{Path(path).name}")
            except BaseException:
                Path(out.name).unlink()
                raise
        return out.name


@contextmanager
def unusable_as_sentence(image_id: str) -> Iterator[None]:
    """A `CaseError` inside the block becomes `HTTPException` 422."""
    try:
        yield
    except CaseError as e:
        raise HTTPException(422, f"{image_id} cannot be opened. {e}") from e


def some_images(datastore: Studies, limit: int) -> list[str]:
    """Image files of up to `limit` studies, spread over the list, to look at before a model is chosen."""
    limit = min(limit, datastore.looked_at_first or limit)
    images = sorted(datastore.list_images())
    step = max(1, len(images) // limit)
    found = []
    for image_id in images[::step][:limit]:
        try:
            found.append(datastore.get_image_uri(image_id))
        except HTTPException:
            continue
    return [f for f in found if f]


def _rest(name: str, image_id: str) -> str:
    return name[len(image_id) :] if name.startswith(image_id) else Path(name).suffix
