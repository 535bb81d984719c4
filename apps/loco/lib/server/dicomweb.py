"""DICOMweb of a folder of studies, for OHIF without a PACS: search, metadata, frames, whole instances, storing SEGs."""

from __future__ import annotations

import io
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pydicom
from fastapi import APIRouter, Depends, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from requests_toolbelt.multipart.decoder import (
    ImproperBodyPartContentException,
    MultipartDecoder,
    NonMultipartContentTypeException,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lib.server.auth import annotator_of
from lib.server.catalogue import SeriesEntry
from lib.server.dicompaths import PREFIX, Resource, resource_of
from lib.server.metadata import file_of, frames_of, metadata_of
from lib.server.qido import INSTANCE, SERIES, STUDY, found, json_of, picked, studies_of

logger = logging.getLogger(__name__)

_JSON = "application/dicom+json"
_STORE_LIMIT = 512 * 1024 * 1024
_CANNOT_UNDERSTAND = 0xC000
_REFUSED = 0x0122
"""Failure reasons of storing: not readable, and SOP class not supported."""

Catalogue = Callable[[], Mapping[str, SeriesEntry]]
Store = Callable[[Dataset, str], Any]


def dicomweb_router(catalogue: Catalogue, store: Store) -> APIRouter:
    """`/proxy/dicom/{qido|wado|stow}/...` answered from a catalogue, the same paths as with a PACS.

    Args:
        catalogue: all series by UID, as they are now.
        store: keeps one instance for whoever is logged in ("" without a login); raises `ValueError` with a sentence for one
            that it does not take.
    """
    reader = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
    router = APIRouter(dependencies=[reader])

    @router.get(PREFIX + "/{service}/{path:path}", include_in_schema=False)
    def get(request: Request, service: str, path: str) -> Response:
        resource = resource_of(path)
        address = f"{request.base_url}{PREFIX.lstrip('/')}/wado"
        if resource.search:
            return _searched(catalogue(), resource, request.query_params.multi_items(), address)
        return _retrieved(catalogue(), resource)

    @router.post(PREFIX + "/{service}/{path:path}", include_in_schema=False)
    async def post(request: Request, service: str, path: str, user: User = reader) -> Response:
        if not resource_of(path).stores:
            raise HTTPException(405, f"expected instances sent to studies, but got {path!r}; only storing is a POST")
        body = await _limited(request)
        kind, who = request.headers.get("content-type", ""), annotator_of(user, "")
        return await run_in_threadpool(_stored, body, kind, store, who)

    return router


def _searched(
    entries: Mapping[str, SeriesEntry], resource: Resource, query: Sequence[tuple[str, str]], address: str
) -> Response:
    chosen = [e for e in entries.values() if resource.study in (None, e.header.StudyInstanceUID)]
    if resource.search == "studies":
        rows, levels = studies_of(e.header for e in chosen), ("StudyInstanceUID",)
    elif resource.search == "series":
        keywords = (*STUDY, *SERIES, "NumberOfSeriesRelatedInstances")
        rows, levels = [picked(e.header, keywords) for e in chosen], ("StudyInstanceUID", "SeriesInstanceUID")
    else:
        chosen = [e for e in chosen if resource.series in (None, e.header.SeriesInstanceUID)]
        rows = [picked(ds, (*STUDY, *SERIES, *INSTANCE)) for e in chosen for ds in e.load()]
        levels = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    try:
        rows = found(rows, query)
    except ValueError as e:
        raise HTTPException(400, f"expected numbers as limit and offset, but {e}; correct the search") from e
    names = ("studies", "series", "instances")
    places = ["/".join(f"{n}/{row[k].value}" for n, k in zip(names, levels, strict=False)) for row in rows]
    return _json([json_of(row, f"{address}/{place}") for row, place in zip(rows, places, strict=True)])


def _retrieved(entries: Mapping[str, SeriesEntry], resource: Resource) -> Response:
    chosen = [e for uid, e in entries.items() if resource.series in (None, uid)]
    datasets = [ds for e in chosen if e.header.StudyInstanceUID == resource.study for ds in e.load()]
    if resource.instance:
        datasets = [ds for ds in datasets if ds.SOPInstanceUID == resource.instance]
    if not datasets:
        raise HTTPException(404, f"expected an image of this folder, but there is no {resource.path}; reload the list")
    if resource.part == "metadata":
        return _json([json_of(metadata_of(ds)) for ds in datasets])
    if resource.part:
        raise HTTPException(404, f"expected metadata, frames or instances, but got {resource.part}; ask for frames")
    if resource.frames:
        frames = frames_of(datasets[0])
        if max(resource.frames) > len(frames) or min(resource.frames) < 1:
            raise HTTPException(404, f"expected a frame of 1 to {len(frames)}, but got {resource.frames}")
        kind = f"application/octet-stream; transfer-syntax={datasets[0].file_meta.TransferSyntaxUID}"
        return _multipart([frames[number - 1] for number in resource.frames], kind)
    return _multipart([file_of(ds) for ds in datasets], "application/dicom")


async def _limited(request: Request) -> bytes:
    """The body of a request. Raises `HTTPException` 413 as soon as it is longer than any segmentation."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _STORE_LIMIT:
            raise HTTPException(413, f"expected at most {_STORE_LIMIT >> 20} MB; store fewer instances at once")
    return bytes(body)


def _stored(body: bytes, kind: str, store: Store, who: str) -> Response:
    """Store each instance of a multipart body. 200 when all were kept, 409 when none, 202 otherwise."""
    try:
        parts = [part.content for part in MultipartDecoder(body, kind).parts]
    except (ImproperBodyPartContentException, NonMultipartContentTypeException, AttributeError) as e:
        raise HTTPException(400, "expected multipart/related DICOM instances, but got something else") from e
    kept, failed = [], []
    for content in parts:
        try:
            dataset = pydicom.dcmread(io.BytesIO(content))
        except (InvalidDicomError, EOFError, ValueError):
            failed.append(_reference(Dataset(), _CANNOT_UNDERSTAND))
            continue
        try:
            store(dataset, who)
            kept.append(_reference(dataset))
        except ValueError as e:
            logger.warning("An instance was not stored: %s", e)
            failed.append(_reference(dataset, _REFUSED))
    answer = Dataset()
    answer.ReferencedSOPSequence, answer.FailedSOPSequence = kept, failed
    status = 200 if kept and not failed else 202 if kept else 409
    return _json([json_of(answer)], status)


def _reference(dataset: Dataset, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.get("SOPClassUID", "")
    item.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    if failure is not None:
        item.FailureReason = failure
    return item


def _json(content: Iterable[Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type=_JSON, headers={"Cache-Control": "no-cache"})


def _multipart(parts: Iterable[bytes], kind: str) -> Response:
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    related = f'multipart/related; type="{kind.split(";")[0]}"; boundary={boundary}'
    return Response(body, headers={"Content-Type": related, "Cache-Control": "private, max-age=3600"})
