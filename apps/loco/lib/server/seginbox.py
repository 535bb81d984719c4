"""Labels as DICOM SEG in the PACS: those submitted here are stored there, those stored there by anybody are submissions."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from PIL import Image
from pydicom.dataset import Dataset
from requests import RequestException

from lib.core.images import CaseError, read_label
from lib.decisions import hashed_name, nameless
from lib.server.dicomseg import Author, SegHeader, SegReading, read_seg, seg_header, write_seg
from lib.server.labelfiles import FINAL
from lib.server.pacs import PacsStudies
from lib.server.pacsindex import Series
from lib.server.series import CaseOfSeries, Grid
from lib.store.records import SegRow

logger = logging.getLogger(__name__)

_FROM_PACS = "pacs"
"""Source of a label that is in the PACS already."""


@dataclass(frozen=True)
class Outcome:
    """What became of one SEG for one case; `reason` says why it was refused."""

    sop: str
    image: str
    taken: bool
    reason: str = ""


class PacsWithSegs(PacsStudies):
    """A DICOMweb server whose DICOM SEGs are the labels."""

    def attach(self, labels: Mapping[str, int], pattern: str) -> None:
        """Say which classes there are; SEGs that are there already are not read yet, see `take_new_segs`."""
        super().attach(labels, pattern)
        self._reading = threading.RLock()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label here and store it in the PACS. One that the PACS does not take now is stored there later."""
        image_id = self._own_id(image_id)
        super().save_label(image_id, label_filename, label_tag, label_info)
        if label_tag == FINAL:
            self.store_pending()
        return image_id

    def keep_label(
        self, image_id: str, file: str | Path, tag: str, found: Mapping[str, int], info: Mapping[str, Any]
    ) -> Path:
        """Keep a label. That it has to be stored in the PACS is written down first: a crash does not make it be forgotten."""
        with self._reading:
            if tag == FINAL and info.get("source") != _FROM_PACS:
                self._journal.put_seg(SegRow(f"pending {image_id}", "", image_id, "pending", "", time.time()))
            return super().keep_label(image_id, file, tag, found, info)

    def serve(self, every_s: float) -> None:
        """Begin to ask the PACS for new images and SEGs."""
        self.watcher = SegWatcher(self, every_s)
        self.watcher.start()

    def store_pending(self) -> int:
        """Store in the PACS what it did not take yet. Returns how many labels still wait."""
        with self._reading:
            waiting = self._journal.segs("pending")
            left = len(waiting)
            for row in waiting:
                try:
                    self._store(row)
                    left -= 1
                except (HTTPException, OSError, CaseError) as e:  # requests' errors are OSErrors
                    self._wait(row, e)
                    if _is_silent(e):
                        break  # asking for the others as well would only take time
        return left

    def still_to_do(self, image_id: str) -> str:
        """As for all studies; and what the PACS does not have yet of a label that was saved."""
        image_id = self._own_id(image_id)
        if note := super().still_to_do(image_id):
            return note
        waits = any(row.image == image_id for row in self._journal.segs("pending"))
        return "The label is kept here; the PACS did not take it yet, it is stored there later." if waits else ""

    def _wait(self, row: SegRow, error: Exception) -> None:
        """Note why a label is not in the PACS yet; each reason is logged once."""
        reason = str(error.detail) if isinstance(error, HTTPException) else str(error)
        if reason != row.detail:
            image = hashed_name(row.image)
            logger.warning("The label of %s is kept here and not in the PACS yet: %s", image, nameless(error))
            self._journal.put_seg(replace(row, detail=reason))

    def take_new_segs(self, authors: Mapping[str, str] | None = None) -> list[Outcome]:
        """Read every SEG series that was not seen yet, oldest first, one SEG at a time in memory.

        `authors`: of series whose author is known better than from their files, as they were stored with a login.
        One that the PACS lists but does not serve is left for the next time. Raises `HTTPException` 503 when it is silent.
        """
        with self._reading, self.answering():
            seen: dict[str, int] = {}
            for row in self._journal.segs():
                seen[row.series] = seen.get(row.series, 0) + 1
            new = [s for uid, s in self.index.segs.items() if seen.get(uid, 0) < max(1, s.instances)]
            known = {row.sop.partition(" ")[0] for row in self._journal.segs()}
            found = sorted((header for s in new for header in self._headers(s)), key=lambda header: header.written)
            new_headers = (header for header in found if header.sop not in known)
            return [o for header in new_headers for o in self._fetched(header, (authors or {}).get(header.series, ""))]

    def _headers(self, series: Series) -> list[SegHeader]:
        try:
            found = self.client.retrieve_series_metadata(series.study, series.uid)
        except RequestException as e:
            self.index.left_out(series.uid, e)
            return []
        return [replace(seg_header(Dataset.from_json(h)), study=series.study, series=series.uid) for h in found]

    def _fetched(self, header: SegHeader, author: str) -> list[Outcome]:
        try:
            seg = self.client.retrieve_instance(header.study, header.series, header.sop)
        except RequestException as e:
            self.index.left_out(header.series, e)
            return []
        return self.submit_seg(seg, author)

    def seg_stored(self, series_uid: str, author: str = "") -> list[Outcome]:
        """A SEG series was stored a moment ago, with a login by `author`: read it now. Raises `HTTPException` 503.

        Returns what became of it.
        """
        self.refresh()
        if series_uid not in self.index.segs:
            return []
        return self.take_new_segs({series_uid: author})

    def submit_seg(self, seg: Dataset, author: str = "") -> list[Outcome]:
        """Take a SEG as a submission for each case that it speaks of. One that was seen before changes nothing.

        `author`: who drew it, "" when only the file says so.
        """
        header = seg_header(seg)
        with self._reading:
            if header.sop in {row.sop.partition(" ")[0] for row in self._journal.segs()}:
                return []
            try:
                outcomes = self._take(seg, header, author)
            except (ValueError, TypeError, AttributeError, LookupError) as e:  # also CaseError
                why = str(e) if isinstance(e, CaseError) else f"expected a DICOM SEG, but: {e}; store it again"
                outcomes = [Outcome(header.sop, header.image_series, taken=False, reason=why)]
            for outcome in outcomes:
                status = "taken" if outcome.taken else "refused"
                row = SegRow(header.sop, header.series, outcome.image, status, outcome.reason, time.time())
                self._journal.put_seg(row)
                log = logger.info if outcome.taken else logger.warning
                log("A SEG for %s was %s %s", hashed_name(outcome.image), status, outcome.reason)
            return outcomes

    def _take(self, seg: Dataset, header: SegHeader, author: str) -> list[Outcome]:
        if header.image_series not in self.index.images:
            raise CaseError(
                f"SEG {header.sop}",
                f"expected it to refer to a listed series, but got {header.image_series or 'none'}; store the images first",
            )
        with self.answering():
            cases = self.index.cases_of(header.image_series)
        readings = [(case, read_seg(seg, case.grid, self._labels)) for case in cases]
        addressed = [(case, reading) for case, reading in readings if reading.addressed]
        if not addressed:
            raise CaseError(
                f"SEG {header.sop}", "expected a frame on one of its images, but there is none; draw it again"
            )
        for case, reading in addressed:
            self._keep_seg(case, reading, header, author)
        return [Outcome(header.sop, case.id, taken=True) for case, _ in addressed]

    def _keep_seg(self, case: CaseOfSeries, reading: SegReading, header: SegHeader, author: str) -> None:
        info = {"client_id": author or header.creator or "pacs", "source": _FROM_PACS, "SOPInstanceUID": header.sop}
        with tempfile.TemporaryDirectory(prefix="loco-seg-") as folder:
            file = Path(folder) / ("label.png" if case.picture else "label.nii.gz")
            if case.picture:
                Image.fromarray(np.ascontiguousarray(reading.classes[:, :, 0].T)).save(file)
            else:
                nib.save(nib.Nifti1Image(reading.classes, case.grid.affine()), file)
            self.keep_label(case.id, file, FINAL, reading.found, info)

    def _store(self, row: SegRow) -> None:
        case, file = self.case(row.image), self.get_label_uri(row.image, FINAL)
        if file:
            info = self.get_label_info(row.image, FINAL)
            version = str(info.get("model_version") or "")
            author = Author(str(info.get("client_id") or ""), int(version) if version.isdigit() else None)
            classes = read_label(file).array[0].numpy().astype(np.uint8).reshape(case.grid.shape)
            with self.answering():
                source = self.index.headers(case.series)[0]
                seg = _written(row.image, classes, case.grid, source, self._labels, author)
                sop, series = str(seg.SOPInstanceUID), str(seg.SeriesInstanceUID)
                # known as ours before it can be noticed
                self._journal.put_seg(SegRow(sop, series, row.image, "own", "", time.time()))
                try:
                    self.client.store_instances([seg])
                except OSError:
                    self._journal.drop_seg(sop)
                    raise
        self._journal.drop_seg(row.sop)


def _written(image: str, classes: np.ndarray, grid: Grid, *source: Any) -> Dataset:
    """`write_seg`, with one sentence for headers that no SEG can be made of; what they lack shows in many ways."""
    try:
        return write_seg(classes, grid, *source, datetime.now())
    except (ValueError, TypeError, AttributeError, LookupError) as e:
        raise CaseError(image, f"expected headers of which a SEG can be made, but: {e}; correct the series") from e


def _is_silent(error: Exception) -> bool:
    """Whether the PACS did not answer at all; one that answers may refuse this label and take the next."""
    cause = error.__cause__ if isinstance(error, HTTPException) else error
    return isinstance(cause, RequestException) and cause.response is None


class SegWatcher:
    """A thread that asks the PACS for new images and SEGs every few seconds."""

    def __init__(self, studies: PacsWithSegs, every_s: float) -> None:
        self._studies, self._every = studies, every_s
        self._stop = threading.Event()
        self._silent = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._watch, name="loco-pacs", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._stop.set()

    def look(self) -> None:
        """Ask once; a PACS that does not answer is said once until it does again."""
        try:
            with self._studies.answering():
                self._studies.index.refresh(remember=True)
            self._studies.store_pending()
            self._studies.take_new_segs()
            self._silent = False
        except HTTPException as e:
            if not self._silent:
                logger.warning("%s", e.detail)
            self._silent = True

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                logger.exception("Could not look for new segmentations; trying again")
            if self._stop.wait(self._every):
                return
