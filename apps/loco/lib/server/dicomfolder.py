"""A folder of DICOM files as `--studies`, no PACS installed: what the app asks of a DICOMweb server is answered from the files.

The files themselves are never changed. Segmentations are stored in a folder of the app's own below the studies.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from lib.core.images import SUFFIXES
from lib.server.catalogue import DicomFolder, Merged, StoredSegmentations, is_journal
from lib.server.metadata import metadata_of
from lib.server.qido import SERIES, STUDY, json_of, picked

logger = logging.getLogger(__name__)

STATE = ".loco"
"""Folder of the app below the studies; what begins with a dot is no study."""
SEGMENTATIONS = "segmentations"
_PREAMBLE = 128


def holds_dicom(root: Path) -> bool:
    """Whether the studies of a folder are DICOM files: it holds some, and at least as many as pictures and volumes.

    So the preview or the icons on a patient's disc do not take the place of what was scanned. Submitted labels do not count.
    """
    images, others = 0, []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "labels"]
        images += sum(name.lower().endswith(SUFFIXES) for name in names)
        others += [Path(folder, name) for name in names if not name.lower().endswith(SUFFIXES) and not is_journal(name)]
    wanted = max(1, images)
    found = sum(1 for _ in islice(filter(_is_dicom, others), wanted))
    if found and images:
        kinds = ["DICOM files", "pictures and volumes"]
        served, left = kinds if found == wanted else reversed(kinds)
        logger.warning(
            "%s and %s lie in one folder: the former are served, the latter are not; separate them", served, left
        )
    return found == wanted


class FolderClient:
    """The calls of a DICOMweb client that this app makes, with the names and results of dicomweb-client's."""

    def __init__(self, root: Path) -> None:
        self._stored = StoredSegmentations(root / STATE / SEGMENTATIONS)
        self.catalogue = Merged(DicomFolder(root), self._stored)
        self.base_url = str(root)

    def search_for_series(self, **_: Any) -> list[dict[str, Any]]:
        """All series, as they are now."""
        self.catalogue.forget()
        keywords = (*STUDY, *SERIES, "NumberOfSeriesRelatedInstances")
        return [json_of(picked(entry.header, keywords)) for entry in self.catalogue().values()]

    def retrieve_series_metadata(self, study: str, series: str) -> list[dict[str, Any]]:
        """Headers of a series."""
        return [json_of(metadata_of(ds)) for ds in self.retrieve_series(study, series)]

    def retrieve_series(self, study: str, series: str, **_: Any) -> list[Dataset]:
        """Instances of a series; none when it is gone."""
        entry = self.catalogue().get(series)
        return entry.load() if entry is not None else []

    def iter_series(self, study: str, series: str, **_: Any) -> Iterator[Dataset]:
        """Instances of a series, one after the other."""
        yield from self.retrieve_series(study, series)

    def retrieve_instance(self, study: str, series: str, instance: str, **_: Any) -> Dataset:
        """One instance. Raises `FileNotFoundError` when it is gone."""
        for ds in self.retrieve_series(study, series):
            if ds.SOPInstanceUID == instance:
                return ds
        raise FileNotFoundError(f"expected the DICOM instance {instance}, but its file is gone; put it back")

    def store_instances(self, datasets: Sequence[Dataset]) -> None:
        """Keep segmentations. Raises `ValueError` for anything else."""
        for ds in datasets:
            self._stored.store(ds)
        self.catalogue.forget()


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(_PREAMBLE)
            return file.read(4) == b"DICM"
    except OSError:
        return False
