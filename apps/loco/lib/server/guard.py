"""What stands before every request: origins, sizes, doubled parameters, logins, and errors as sentences.

MONAI Label builds its application before the app exists and middleware can no longer be added to it. Its stack can be built
anew, though: `install` replaces the list of middleware and the stack while the server starts, before the first request.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.server.errors import handlers

logger = logging.getLogger(__name__)

_SAFE = ("GET", "HEAD", "OPTIONS")
IN_MEMORY_BYTES = 16 * 2**20
"""Largest body of a request that is no upload: parameters, a login."""
_NO_FILES = ("/auth", "/loco/")
_FRAMES = "frame-ancestors 'self'"


@dataclass(frozen=True)
class GuardSettings:
    """`--conf cors_origins | max_upload_mb`."""

    origins: tuple[str, ...] = ()
    """Other web pages that may use this server, as https://viewer.hospital.example."""
    max_upload_bytes: int = 4096 * 2**20


def install(app: FastAPI, settings: GuardSettings, inner: Sequence[Middleware] = ()) -> None:
    """Put the guard around `app`, in the place of MONAI Label's CORS rule that lets every web page in.

    Args:
        app: the application of the running server.
        settings: what the operator allows.
        inner: further middleware, called after the guard has let a request pass.
    """
    limit = Middleware(BodyLimits, uploads=settings.max_upload_bytes)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(settings.origins),
        allow_credentials=True,
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type"],
    )
    app.user_middleware[:] = [Middleware(Guard, settings=settings), limit, cors, *inner]
    app.exception_handlers.update(handlers())
    app.middleware_stack = app.build_middleware_stack()


class BodyLimits:
    """Uploads, which go to disk or to the PACS as they come, may be large; what is held in memory whole may not."""

    def __init__(self, app: ASGIApp, uploads: int) -> None:
        self._upload = RequestBodyLimitMiddleware(app, max_body_size=uploads)
        self._other = RequestBodyLimitMiddleware(app, max_body_size=min(uploads, IN_MEMORY_BYTES))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        upload = scope["type"] == "http" and _is_upload(scope)
        await (self._upload if upload else self._other)(scope, receive, send)


class Guard:
    """Refuses what no viewer sends, and tells browsers what they may do with the answer."""

    def __init__(self, app: ASGIApp, settings: GuardSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            status, sentence = refusal
            await JSONResponse({"detail": sentence}, status)(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if scope["method"] not in _SAFE and origin and not self._may_write(origin, headers.get("host", "")):
            return 403, (
                f"expected a request of this server's own pages, but it comes from {origin[:100]}; "
                "name the origin with --conf cors_origins if it is yours"
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.max_upload_bytes:
            return 413, (
                f"expected at most {self._settings.max_upload_bytes // 2**20} MB, but got {int(length) // 2**20} MB; "
                "send less or raise --conf max_upload_mb"
            )
        doubled = None if "/proxy/" in scope["path"] else _doubled(scope.get("query_string", b""))
        if doubled:
            return 400, f"expected each parameter once, but got {doubled[:40]!r} more than once; send one of them"
        return None

    def _may_write(self, origin: str, host: str) -> bool:
        return origin in self._settings.origins or (origin != "null" and urlsplit(origin).netloc == host)


def _is_upload(scope: Scope) -> bool:
    """A form with files for MONAI Label's endpoints, or instances to store; the login takes none."""
    path = scope["path"]
    form = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/")
    return "/proxy/" in path or (form and not path.startswith(_NO_FILES))


def _doubled(query: bytes) -> str | None:
    """A parameter that comes twice; of DICOMweb queries, which may repeat theirs, the proxy takes care."""
    seen: set[str] = set()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in seen:
            return name
        seen.add(name)
    return None


def _with_headers(send: Send) -> Send:
    """Browsers shall not guess types, show these pages inside others or tell other sites where they were."""
    extra = [
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", _FRAMES.encode()),
        (b"referrer-policy", b"same-origin"),
    ]

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            message = {**message, "headers": [*message.get("headers", []), *(h for h in extra if h[0] not in present)]}
        await send(message)

    return sender
