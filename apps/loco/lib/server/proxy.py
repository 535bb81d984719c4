"""DICOMweb of the configured PACS for viewers in a browser, streamed; nothing of the PACS but DICOMweb is reachable."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import APIRouter, Depends, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lib.server.auth import annotator_of
from lib.server.dicompaths import PREFIX, SEGMENTATIONS, Resource, resource_of

logger = logging.getLogger(__name__)

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_SENT_ON = ("accept", "content-type", "content-length", "if-none-match", "range")
_SENT_BACK = ("content-type", "content-length", "content-range", "etag", "last-modified", "cache-control")
_JSON = "application/dicom+json"


@dataclass(frozen=True)
class Pacs:
    """A DICOMweb server: address without a slash at its end, paths of its services, credentials."""

    address: str
    prefixes: dict[str, str]
    credentials: tuple[str, str] | None = None

    @classmethod
    def configured(cls, studies: str) -> Pacs:
        """The server that `--studies` names, with MONAI Label's settings."""
        user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        prefixes = {
            "qido": settings.MONAI_LABEL_QIDO_PREFIX,
            "wado": settings.MONAI_LABEL_WADO_PREFIX,
            "stow": settings.MONAI_LABEL_STOW_PREFIX,
        }
        return cls(
            studies.rstrip("/"),
            {service: (prefix or "").strip("/") for service, prefix in prefixes.items()},
            (user, password) if user and password else None,
        )

    def address_of(self, service: str, resource: Resource, query: str) -> httpx.URL:
        """Where a resource lies. Metadata belongs to WADO and storing to STOW, whichever name it was asked under."""
        if resource.search is None:
            service = "wado"
        parts = [self.address, self.prefixes.get(service, ""), resource.path]
        url = "/".join(p for p in parts if p)
        return httpx.URL(f"{url}?{query}" if query else url)


def proxy_router(
    pacs: Pacs, seg_stored: Callable[[str, str], Any], transport: httpx.AsyncBaseTransport | None = None
) -> APIRouter:
    """`/proxy/dicom/{qido|wado|stow}/...` answered by a PACS.

    Args:
        pacs: the server.
        seg_stored: called in a worker thread with the SeriesInstanceUID of each segmentation that was stored, and who
            is logged in ("" without a login).
        transport: replaces the network, for tests.
    """
    reader = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
    router = APIRouter(dependencies=[reader])
    client = httpx.AsyncClient(auth=pacs.credentials, timeout=_TIMEOUT, transport=transport, trust_env=False)

    @router.get(PREFIX + "/{service}/{path:path}", include_in_schema=False)
    async def get(request: Request, service: str, path: str) -> Response:
        resource = _checked(service, path)
        url = pacs.address_of(service, resource, request.url.query)
        answer = await _ask(client, client.build_request("GET", url, headers=_sent_on(request)))
        own = f"{request.base_url}{PREFIX.lstrip('/')}/wado".encode()
        return _streamed(answer, (_services_root(pacs).encode(), own))

    @router.post(PREFIX + "/{service}/{path:path}", include_in_schema=False)
    async def post(request: Request, service: str, path: str, user: User = reader) -> Response:
        resource = _checked(service, path)
        if not resource.stores:
            raise HTTPException(405, f"expected instances sent to studies, but got {path!r}; only storing is a POST")
        url = pacs.address_of("stow", Resource(resource.path, search="studies"), "")
        headers = {**_sent_on(request), "accept": _JSON}
        answer = await _ask(client, client.build_request("POST", url, headers=headers, content=request.stream()))
        body = await answer.aread()
        await answer.aclose()
        stored = list(stored_segmentations(body)) if answer.is_success else []
        later = BackgroundTask(_tell, seg_stored, stored, annotator_of(user, "")) if stored else None
        return Response(body, answer.status_code, _sent_back(answer), background=later)

    return router


def stored_segmentations(answer: bytes) -> Iterable[str]:
    """SeriesInstanceUIDs of the segmentations named in a STOW answer (DICOM JSON), each once."""
    try:
        data = json.loads(answer)
    except ValueError:
        return []
    found: dict[str, None] = {}
    for item in (data[0] if isinstance(data, list) and data else data or {}).get("00081199", {}).get("Value", []):
        sop_class = item.get("00081150", {}).get("Value", [""])[0]
        place = item.get("00081190", {}).get("Value", [""])[0]
        if sop_class in SEGMENTATIONS and "/series/" in place:
            found[place.split("/series/", 1)[1].split("/", 1)[0]] = None
    return list(found)


def _checked(service: str, path: str) -> Resource:
    if service not in ("qido", "wado", "stow"):
        raise HTTPException(404, f"expected one of qido, wado, stow, but got {service!r}")
    return resource_of(path)


async def _ask(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request and read the head of its answer; what goes wrong between here and the PACS becomes one sentence."""
    place = f"{request.url.scheme}://{request.url.netloc.decode()}"
    try:
        answer = await _sent(client, request)
    except httpx.TimeoutException as e:
        raise HTTPException(504, f"The PACS at {place} did not answer in time; try again or look after it") from e
    except httpx.TransportError as e:
        logger.warning("The PACS at %s cannot be reached: %s", place, e)
        raise HTTPException(502, f"The PACS at {place} cannot be reached; start it or correct --studies") from e
    if answer.status_code in (401, 403) or answer.is_redirect:
        await answer.aclose()
        if answer.is_redirect:
            raise HTTPException(502, f"The PACS at {place} sends requests elsewhere; correct the address in --studies")
        raise HTTPException(
            502, f"The PACS at {place} refused this server's credentials; correct its user and password"
        )
    return answer


async def _sent(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """A connection that was kept may have been closed by the PACS just now; what only reads is asked once more."""
    try:
        return await client.send(request, stream=True)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        if request.method != "GET":
            raise
        return await client.send(request, stream=True)


def _streamed(answer: httpx.Response, places: tuple[bytes, bytes]) -> Response:
    """The answer as it arrives. Links in JSON are turned to this server: a browser need not reach the PACS itself."""
    headers = _sent_back(answer)
    body: AsyncIterator[bytes] = answer.aiter_raw()
    if "json" in headers.get("content-type", ""):
        headers.pop("content-length", None)
        body = replaced(body, *places)
    return StreamingResponse(body, answer.status_code, headers, background=BackgroundTask(answer.aclose))


async def replaced(chunks: AsyncIterator[bytes], old: bytes, new: bytes) -> AsyncIterator[bytes]:
    """A stream with every `old` replaced by `new`, also where it lies across two chunks."""
    rest = b""
    async for chunk in chunks:
        rest += chunk
        *done, rest = rest.split(old)
        for part in done:
            yield part + new
        keep = len(old) - 1
        if len(rest) > keep:
            yield rest[: len(rest) - keep]
            rest = rest[len(rest) - keep :]
    yield rest


def _services_root(pacs: Pacs) -> str:
    return "/".join(p for p in (pacs.address, pacs.prefixes.get("wado", "")) if p)


def _sent_on(request: Request) -> dict[str, str]:
    """Headers that a PACS needs; no cookies, no login of this server. Bodies come uncompressed, to be passed on as they are."""
    return {**{h: request.headers[h] for h in _SENT_ON if h in request.headers}, "accept-encoding": "identity"}


def _sent_back(answer: httpx.Response) -> dict[str, str]:
    return {h: answer.headers[h] for h in _SENT_BACK if h in answer.headers}


def _tell(seg_stored: Callable[[str, str], Any], series: Iterable[str], who: str) -> None:
    for uid in series:
        try:
            seg_stored(uid, who)
        except (HTTPException, OSError, RuntimeError, ValueError):  # the PACS, a full disk, the journal, an odd header
            logger.exception("The segmentation %s was stored, but not taken as a label yet; trying again", uid)
