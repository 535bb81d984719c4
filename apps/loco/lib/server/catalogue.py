"""The series of a folder of studies: DICOM files as they are, pictures and volumes presented as DICOM, stored SEGs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pydicom
from monailabel.interfaces.datastore import Datastore
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from lib.core.files import replacing
from lib.core.images import CaseError, is_picture, read_header, read_image
from lib.progressbar import track
from lib.server.asdicom import Identity, datasets_of, header_of
from lib.server.dicompaths import SEGMENTATIONS
from lib.store.project import JOURNAL

logger = logging.getLogger(__name__)

_KEPT_CASES = 4
"""Cases whose DICOM form stays in memory: the one that is looked at and those before it."""
_FRESH_S = 2.0


@dataclass(frozen=True)
class SeriesEntry:
    """One series. `header` has study and series attributes; `load` gives its instances with their pixels."""

    header: Dataset
    load: Callable[[], list[Dataset]]


class DicomFolder:
    """DICOM files below a folder, of any names and nesting. Nothing is written. Each file's header is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, tuple[int, Dataset | None]] = {}
        self._lock = threading.Lock()
        self._loaded = lru_cache(maxsize=_KEPT_CASES)(_read_all)

    def series(self) -> dict[str, SeriesEntry]:
        """All series by their UID, as the files are now."""
        with self._lock:
            self._look()
            files: dict[str, list[tuple[Path, int]]] = {}
            headers: dict[str, Dataset] = {}
            for path, (stamp, header) in self._known.items():
                if header is not None:
                    files.setdefault(header.SeriesInstanceUID, []).append((path, stamp))
                    headers[header.SeriesInstanceUID] = header
        return {uid: self._entry(headers[uid], tuple(sorted(paths))) for uid, paths in files.items()}

    def _entry(self, header: Dataset, files: tuple[tuple[Path, int], ...]) -> SeriesEntry:
        row = Dataset()
        row.update(header)
        row.NumberOfSeriesRelatedInstances = len(files)
        return SeriesEntry(row, partial(self._loaded, files))

    def _look(self) -> None:
        present = {}
        for path in _files_below(self._root):
            with suppress(FileNotFoundError):  # a link to nowhere, or gone since it was listed
                present[path] = path.stat().st_mtime_ns
        for gone in self._known.keys() - present.keys():
            del self._known[gone]
        changed = [path for path, stamp in present.items() if self._known.get(path, (None, None))[0] != stamp]
        for path in track(changed, "Reading DICOM headers", say=logger.info):
            self._known[path] = (present[path], _header(path))


class PresentedImages:
    """Pictures and volumes of a datastore as DICOM."""

    def __init__(self, datastore: Datastore, project: str, patient_of: Callable[[str], str]) -> None:
        """`project` names the studies for good; `patient_of`: image id to patient."""
        self._datastore, self._project, self._patient_of = datastore, project, patient_of
        self._identities: dict[str, Identity] = {}
        self._headers: dict[str, tuple[str, Dataset | None]] = {}
        self._loaded = lru_cache(maxsize=_KEPT_CASES)(self._load)

    def identity(self, image: str) -> Identity:
        """Identifiers of an image."""
        if image not in self._identities:
            self._identities[image] = Identity.of(self._project, image, self._patient_of(image))
        return self._identities[image]

    def series(self) -> dict[str, SeriesEntry]:
        """All images by the UID of their series; those that cannot be read are left out."""
        entries = {}
        for image in self._datastore.list_images():
            identity = self.identity(image)
            header = self._header(identity, self._datastore.get_image_uri(image))
            if header is not None:
                entries[identity.series] = SeriesEntry(header, partial(self._loaded, identity))
        return entries

    def image_of(self, series: str) -> str | None:
        """The image that is presented as a series."""
        return next((i for i in self._datastore.list_images() if self.identity(i).series == series), None)

    def pictures_of(self, study: str) -> list[str]:
        """Series of a study of pictures; empty when one of its images is a volume."""
        images = [i for i in self._datastore.list_images() if self.identity(i).study == study]
        pictures = all(is_picture(self._datastore.get_image_uri(i)) for i in images)
        return [self.identity(i).series for i in images] if pictures else []

    def instances(self, image: str) -> list[Dataset]:
        """An image as DICOM instances."""
        return self._loaded(self.identity(image))

    def _header(self, identity: Identity, path: str) -> Dataset | None:
        known = self._headers.get(identity.image)
        if known is None or known[0] != path:
            try:
                known = (path, header_of(identity, path, read_header(path)))
            except CaseError as e:
                logger.warning("Not shown in OHIF: %s", e)
                known = (path, None)
            self._headers[identity.image] = known
        return known[1]

    def _load(self, identity: Identity) -> list[Dataset]:
        path = self._datastore.get_image_uri(identity.image)
        return datasets_of(identity, path, read_image(path))


class StoredSegmentations(DicomFolder):
    """Segmentations that viewers sent, one file each, in a folder of the app's own."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._target = root

    def store(self, dataset: Dataset) -> None:
        """Keep a segmentation. Raises `ValueError` for anything else: the studies themselves are never added to.

        Its UID becomes the name of a file, so that one that is none is refused too.
        """
        if dataset.get("SOPClassUID") not in SEGMENTATIONS:
            raise ValueError("only segmentations are stored here; copy images into the folder of studies")
        if not UID(str(dataset.get("SOPInstanceUID", ""))).is_valid:
            raise ValueError("expected a SOP Instance UID of numbers and dots, but got something else; store it anew")
        self._target.mkdir(parents=True, exist_ok=True)
        with replacing(self._target / f"{dataset.SOPInstanceUID}.dcm") as file:
            pydicom.dcmwrite(file, dataset, write_like_original=False)


class Merged:
    """Series of several parts; of two with the same UID the first counts. Looks again after `_FRESH_S` seconds."""

    def __init__(self, *parts: DicomFolder | PresentedImages) -> None:
        self._parts = parts
        self._seen: tuple[float, dict[str, SeriesEntry]] | None = None

    def __call__(self) -> Mapping[str, SeriesEntry]:
        """All series by UID. A viewer asks for each frame by itself, so the folder is not searched each time."""
        seen, now = self._seen, time.monotonic()
        if seen is None or now - seen[0] > _FRESH_S:
            entries: dict[str, SeriesEntry] = {}
            for part in self._parts:
                for uid, entry in part.series().items():
                    entries.setdefault(uid, entry)
            seen = self._seen = (now, entries)
        return seen[1]

    def forget(self) -> None:
        """Look again at the next request."""
        self._seen = None


def _files_below(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        shown = (n for n in sorted(names) if not n.startswith(".") and n != "DICOMDIR" and not is_journal(n))
        yield from (Path(folder, name) for name in shown)


def is_journal(name: str) -> bool:
    """Whether a file is the journal or lies beside it for SQLite.

    No other code of a process may open and close it: that gives up the locks of all of the process's connections, and another
    process then takes the write-ahead log for abandoned and deletes it.
    """
    return name.startswith(JOURNAL)


def _header(path: Path) -> Dataset | None:
    """Header of a DICOM file; None for every other file, and for one without the identifiers that a list needs."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, ValueError, EOFError):
        return None
    needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    if not all(header.get(keyword) for keyword in needed):
        return None
    header.Modality = header.get("Modality") or "OT"
    return header


def _read_all(files: tuple[tuple[Path, int], ...]) -> list[Dataset]:
    datasets = [pydicom.dcmread(path) for path, _ in files]
    return sorted(datasets, key=lambda d: int(d.get("InstanceNumber") or 0))
