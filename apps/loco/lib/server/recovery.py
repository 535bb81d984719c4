"""After a start: what a crash left behind is put in order, before anybody is answered."""

from __future__ import annotations

import logging

from monailabel.interfaces.datastore import Datastore

from lib.core.files import remove_leftovers
from lib.decisions import decided
from lib.server.kept import KeptLabels, restore_labels
from lib.store.journal import Journal
from lib.store.project import ModelFolder
from lib.trainers.publish import adopt_live

logger = logging.getLogger(__name__)

_LEFT_BEHIND_S = 3600
"""An unfinished file of this age is nobody's work in progress."""


def recover(model: str, folder: ModelFolder, journal: Journal, datastore: Datastore) -> None:
    """List the live model if a crash came between its file and its entry, and bring back labels that were answered with 200.

    Args:
        model: name of the model.
        folder: its files.
        journal: what was answered.
        datastore: looks at its folder again when labels came back.
    """
    adopt_live(model, folder, journal)
    kept = KeptLabels(journal)
    restored = restore_labels(journal, kept)
    for image in restored:
        decided("restored", image=image, why="its label file was missing or not whole")
    if restored:
        logger.warning("%d label files were missing or not whole and were brought back", len(restored))
        datastore.refresh()
    for place in (folder.root, kept.root):
        remove_leftovers(place, _LEFT_BEHIND_S)
