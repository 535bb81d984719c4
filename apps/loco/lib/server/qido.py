"""Searches of DICOMweb (QIDO-RS, DICOM PS3.18 section 10.6) over headers in memory: filters, paging, what a list shows."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyInstanceUID", "StudyID", "StudyDescription",
)  # fmt: skip
SERIES = (
    "Modality",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDate",
    "SeriesTime",
    "BodyPartExamined",
)
INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames")
_NOT_FILTERS = ("limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_DATES_AND_TIMES = ("DA", "TM", "DT")


def studies_of(series: Iterable[Dataset]) -> list[Dataset]:
    """One row per study from one header per series (with `NumberOfSeriesRelatedInstances`), by patient name."""
    studies: dict[str, list[Dataset]] = {}
    for header in series:
        studies.setdefault(header.StudyInstanceUID, []).append(header)
    rows = []
    for headers in studies.values():
        row = picked(headers[0], STUDY)
        row.ModalitiesInStudy = sorted({str(h.Modality) for h in headers})
        row.NumberOfStudyRelatedSeries = len(headers)
        row.NumberOfStudyRelatedInstances = sum(int(h.NumberOfSeriesRelatedInstances) for h in headers)
        rows.append(row)
    return sorted(rows, key=lambda row: str(row.get("PatientName", "")))


def picked(header: Dataset, keywords: Iterable[str]) -> Dataset:
    """A copy of some attributes; those of STUDY that are missing are there without a value, as lists expect."""
    row = Dataset()
    for keyword in keywords:
        if keyword in header:
            row[keyword] = header[keyword]
        elif keyword in STUDY:
            setattr(row, keyword, None)
    return row


def found(rows: Sequence[Dataset], query: Sequence[tuple[str, str]]) -> list[Dataset]:
    """Rows that match all filters of a query string, its page of them.

    Filters of attributes that the rows do not have are ignored, as the standard allows. Raises `ValueError` for a limit or
    an offset that is no number.
    """
    filters = {_keyword(name): value for name, value in query if name.lower() not in _NOT_FILTERS and value}
    kept = [
        row for row in rows if all(_matches(row, keyword, wanted) for keyword, wanted in filters.items() if keyword)
    ]
    paging = {name.lower(): int(value) for name, value in query if name.lower() in ("limit", "offset") and value}
    first = max(0, paging.get("offset", 0))
    return kept[first : first + max(0, paging["limit"])] if "limit" in paging else kept[first:]


def json_of(row: Dataset, address: str = "") -> dict[str, Any]:
    """DICOM JSON of a header; `address` becomes its RetrieveURL. Values that break the standard are left out."""
    content: Mapping[str, Any] = row.to_json_dict(suppress_invalid_tags=True)
    return {**content, **({"00081190": {"vr": "UR", "Value": [address]}} if address else {})}


def _keyword(name: str) -> str:
    """Attribute keyword of a filter, which may be given as a tag of eight digits; empty when it is none."""
    try:
        return keyword_for_tag(int(name, 16)) if len(name) == 8 and name[0] in "0123456789" else _known(name)
    except ValueError:
        return ""


def _known(name: str) -> str:
    return name if tag_for_keyword(name) is not None else ""


def _matches(row: Dataset, keyword: str, wanted: str) -> bool:
    if keyword not in row:
        return True
    element = row[keyword]
    values = element.value if element.VM > 1 else [element.value]
    texts = ["" if value is None else str(value) for value in values or [""]]
    if element.VR in _DATES_AND_TIMES and "-" in wanted:
        low, high = wanted.split("-", 1)
        return any(text and text >= low and (not high or text[: len(high)] <= high) for text in texts)
    patterns = wanted.replace("\\", ",").split(",") if element.VR in ("UI", "CS") else [wanted]
    return any(fnmatch.fnmatchcase(text.casefold(), _pattern(p)) for text in texts for p in patterns)


def _pattern(wanted: str) -> str:
    """A DICOM wildcard: only `*` and `?` are special."""
    return wanted.casefold().replace("[", "[[]")
