"""What all panels of the page look at: the studies, the journal and the parts of the running app."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from fastapi import HTTPException

from lib.activelearning.board import Board, View
from lib.activelearning.next_image import NextImage
from lib.core.spec import TaskSpec
from lib.infers.segmentation import Segmentation
from lib.server.datastores import Studies
from lib.server.labelfiles import FINAL
from lib.server.pacs import PacsStudies
from lib.server.retraining import Retraining
from lib.server.viewer import Viewer
from lib.store.journal import Journal
from lib.store.project import ModelFolder, Project

_OHIF = "/ohif/monai-label"
_PLACE = {
    "StudyInstanceUID": "StudyInstanceUIDs",
    "SeriesInstanceUID": "SeriesInstanceUIDs",
    "SOPInstanceUID": "initialSOPInstanceUID",
    "Frame": "frame",
}
"""What is known of an image, and how OHIF calls it in an address; the panel opens the next image the same way."""


@dataclass
class Desk:
    """The parts of one running app that the page shows.

    `strategy` is what stands behind the next image by default, `strategy_name` its name.
    """

    spec: TaskSpec
    project: Project
    studies: Studies
    viewer: Viewer
    board: Board
    strategy: NextImage
    strategy_name: str
    segmentation: Segmentation
    retraining: Retraining
    _addresses: dict[str, str | None] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Name of the model, which is the kind of its studies."""
        return self.spec.data.kind

    @property
    def labels(self) -> Mapping[str, int]:
        """Classes and their indices."""
        return self.spec.labels

    @property
    def journal(self) -> Journal:
        """Its journal."""
        return self.project.journal

    @property
    def folder(self) -> ModelFolder:
        """Files of its model."""
        return self.project.model(self.model)

    def view(self) -> View:
        """The studies as they were a moment ago."""
        return self.board.view(self.studies)

    def known(self, image: str) -> str:
        """The id itself. Raises `HTTPException` 404 when it is none of a study."""
        if not self.studies.known(image):
            raise HTTPException(
                404, f"expected the id of a study, but got {image[:200]!r}; refresh the list of studies"
            )
        return image

    def address(self, image: str) -> str | None:
        """Where OHIF shows a study; None when it cannot."""
        if image not in self._addresses:
            found = self.viewer.located({"id": image, **self.studies.get_image_info(image)})
            if not found.get("StudyInstanceUID"):
                return None  # it may be listed again
            place = {parameter: found[fact] for fact, parameter in _PLACE.items() if found.get(fact)}
            self._addresses[image] = f"{_OHIF}?{urlencode(place)}"
        return self._addresses[image]

    def mark(self, image: str, version: int) -> str:
        """Changes with the file of a study, with its label and with the model `version` that draws in it, 0 for none."""
        label = self.label_file(image)
        parts = (image, self._stamp(image), _stamp(label) if label else "", version)
        digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{version}.{digest}"

    def label_file(self, image: str) -> str | None:
        """File of the submitted label of a study."""
        return self.studies.get_label_uri(image, FINAL) or None

    def _stamp(self, image: str) -> str:
        """Of a file in a folder; instances in a PACS never change, and asking would fetch them."""
        return "" if isinstance(self.studies, PacsStudies) else _stamp(self.studies.get_image_uri(image))


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return "gone"
    return f"{found.st_mtime_ns} {found.st_size}"
