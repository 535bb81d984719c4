"""What a DICOMweb server holds: its series by what they are, asked for anew, never taken from a clock-driven cache."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomweb_client.api import DICOMClient
from pydicom.dataset import Dataset
from requests import RequestException

from lib.core.files import replacing
from lib.server.series import NOT_IMAGES, VOLUME_MODALITIES, CaseOfSeries, cases_of

logger = logging.getLogger(__name__)

_FIELDS = ("PatientID", "StudyDate", "StudyTime", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "RetrieveURL")
_ASKED = ("PatientID", "StudyDate", "StudyTime", "Modality", "NumberOfSeriesRelatedInstances")
_HEADERS_KEPT = 16


@dataclass(frozen=True)
class Series:
    """One series as the server lists it; `facts` are texts by DICOM keyword."""

    uid: str
    study: str
    modality: str
    instances: int
    facts: dict[str, str]


class PacsIndex:
    """Series of a server and the cases in them.

    Volumes of CT, MR, PT and NM have the id of their series and are listed without a look at their headers; other series are
    looked at once, and what they hold is remembered in `memory`.
    """

    def __init__(self, client: DICOMClient, modalities: Collection[str], memory: Path) -> None:
        self._client, self._modalities, self._memory = client, frozenset(modalities), memory
        self._lock = threading.RLock()
        self._headers: OrderedDict[str, list[Dataset]] = OrderedDict()
        self._known: dict[str, dict[str, Any]] = _remembered(memory)
        self._left_out: set[str] = set()
        self.images: dict[str, Series] = {}
        self.segs: dict[str, Series] = {}
        self.cases: dict[str, str] = {}
        """Series of each case id."""

    def refresh(self, remember: bool = False) -> None:
        """Ask the server what there is. `remember`: write down what was looked at; for one process only.

        A series that the server lists but does not serve is left out until it does; it holds up no other.

        Raises:
            requests.RequestException: the server does not answer as expected.
        """
        listed = [_series(found) for found in self._client.search_for_series(fields=list(_ASKED), get_remaining=True)]
        images = {s.uid: s for s in listed if self._wanted(s)}
        segs = {s.uid: s for s in listed if s.modality == "SEG"}
        with self._lock:
            before = dict(self._known)
            cases = {case: uid for uid, series in images.items() for case in self._case_ids(series)}
            self.images, self.segs, self.cases = images, segs, cases
            if remember and self._known != before:
                with replacing(self._memory) as out:
                    out.write(json.dumps(self._known).encode())

    def headers(self, uid: str) -> list[Dataset]:
        """Headers of all instances of a series. Raises `requests.RequestException`."""
        with self._lock:
            if uid not in self._headers:
                series = self.images[uid]
                found = self._client.retrieve_series_metadata(series.study, uid)
                self._headers[uid] = [Dataset.from_json(h) for h in found]
            self._headers.move_to_end(uid)
            while len(self._headers) > _HEADERS_KEPT:
                self._headers.popitem(last=False)
            return self._headers[uid]

    def case(self, case_id: str) -> CaseOfSeries | None:
        """A case with its planes; None when the series turns out to hold no such case, which is then no longer listed."""
        uid = self.cases[case_id]
        cases, why = _cases_in(uid, self.headers(uid))
        found = next((c for c in cases if c.id == case_id), None)
        if found is None:
            self._learn(uid, [c.id for c in cases], why)
        return found

    def cases_of(self, uid: str) -> list[CaseOfSeries]:
        """All cases of a series, with their planes."""
        return _cases_in(uid, self.headers(uid))[0]

    def left_out(self, uid: str, error: RequestException) -> None:
        """Say, once, that the server does not serve a series it lists. Raises `error` when it does not answer at all."""
        if error.response is None:
            raise error
        if uid not in self._left_out:
            logger.warning("Series %s is left out: the server lists it but does not serve it: %s", uid, error)
        self._left_out.add(uid)

    def _wanted(self, series: Series) -> bool:
        return series.modality in self._modalities if self._modalities else series.modality not in NOT_IMAGES

    def _case_ids(self, series: Series) -> list[str]:
        known = self._known.get(series.uid)
        if known is not None and known["instances"] == series.instances:
            return known["cases"]
        if known is None and series.modality in VOLUME_MODALITIES:
            return [series.uid]
        self._headers.pop(series.uid, None)
        try:
            found = self._client.retrieve_series_metadata(series.study, series.uid)
        except RequestException as e:
            self.left_out(series.uid, e)
            return known["cases"] if known is not None else []
        cases, why = _cases_in(series.uid, [Dataset.from_json(h) for h in found])
        self._known[series.uid] = {"instances": series.instances, "cases": [c.id for c in cases], "why": why}
        if why:
            logger.info("Series %s is not listed: %s", series.uid, why)
        return [c.id for c in cases]

    def _learn(self, uid: str, cases: list[str], why: str) -> None:
        logger.info("Series %s: %s", uid, why or f"it holds {len(cases)} pictures")
        with self._lock:
            self._known[uid] = {"instances": self.images[uid].instances, "cases": cases, "why": why}
            kept = {case: series for case, series in self.cases.items() if series != uid}
            self.cases = {**kept, **dict.fromkeys(cases, uid)}


def _cases_in(uid: str, headers: list[Dataset]) -> tuple[list[CaseOfSeries], str]:
    """`cases_of`; headers that are not what DICOM says are why there are none."""
    try:
        return cases_of(uid, headers)
    except (ValueError, TypeError, AttributeError, LookupError) as e:
        return [], f"its headers cannot be read ({type(e).__name__}: {e})"


def _series(found: dict[str, Any]) -> Series:
    header = Dataset.from_json(found)
    facts = {key: str(header.get(key) or ("" if key == "PatientID" else "UNK")) for key in _FIELDS}
    count = int(header.get("NumberOfSeriesRelatedInstances") or 0)
    modality = str(header.get("Modality") or "")
    return Series(str(header.SeriesInstanceUID), str(header.StudyInstanceUID), modality, count, facts)


def _remembered(memory: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):
        return {}
