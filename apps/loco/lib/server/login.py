"""With MONAI Label's login on: every address asks for a token, and browsers get theirs as a cookie that no script can read."""

from __future__ import annotations

import html
import logging
import re
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urlsplit

import requests
from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jwt import InvalidTokenError
from monailabel.config import settings
from monailabel.endpoints.user.auth import User, token_uri
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lib.server.auth import Tokens, role_names

logger = logging.getLogger(__name__)

COOKIE = "loco_token"
_OPEN = re.compile(r"/auth/?|/auth/token/?|/loco/(login|logout|health)|/favicon\.ico")
"""What must answer before there is a token."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_FORM_LIMIT = 65536
_POLICY_VIOLATION = 1008
_USER, _ANNOTATOR, _REVIEWER, _ADMIN = range(4)
_NEEDED = (
    (re.compile(r"/model/.*"), "*", _ADMIN),
    (re.compile(r"/logs/.*"), "*", _ADMIN),
    (re.compile(r"/loco/.*"), "write", _ANNOTATOR),
    (re.compile(r"/proxy/dicom/.*"), "write", _ANNOTATOR),
)
"""Roles above that of a user, where MONAI Label asks for less than it documents or nothing; first match counts."""


class LoginGate:
    """Middleware: no request passes without a verified token and the role that its address asks for."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket") or _OPEN.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        token = _token_of(scope)
        try:
            user = await to_thread.run_sync(self._tokens.user, token) if token else None
        except InvalidTokenError as e:
            logger.warning("A token was refused: %s", e)
            user = None
        if scope["type"] == "websocket" and (user is None or _missing_role(scope, user)):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif user is None:
            await _unknown(scope)(scope, receive, send)
        elif _missing_role(scope, user):
            detail = f"expected the role {_missing_role(scope, user)}, but {user.username} does not have it; ask for it"
            await JSONResponse({"detail": detail}, 403)(scope, receive, send)
        else:
            headers = MutableHeaders(scope=scope)
            headers["authorization"] = f"Bearer {token}"
            scope.setdefault("state", {})["loco_user"] = user
            await self._app(scope, receive, send)


def _token_of(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    # by hand: http.cookies stops at the first cookie that it cannot read, and those of other programs on this host come along
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value.strip('"') for name, _, value in pairs if name == COOKIE), None) or None


def _missing_role(scope: Scope, user: User) -> str | None:
    """The role that an address asks for and the user lacks."""
    kind = "read" if scope.get("method", "GET") in _SAFE else "write"
    path = scope["path"]
    rank = next((r for pattern, on, r in _NEEDED if on in ("*", kind) and pattern.fullmatch(path)), _USER)
    needed = role_names()[rank]
    return None if needed in user.roles else needed


def _unknown(scope: Scope) -> Response:
    """A page to log in for people, 401 for programs."""
    headers = Headers(scope=scope)
    if scope.get("method") == "GET" and "text/html" in headers.get("accept", ""):
        query = scope.get("query_string", b"").decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"/loco/login?next={quote(target, safe='')}", 303)
    detail = "expected a valid token, but got none; log in at /loco/login or send `Authorization: Bearer`"
    return JSONResponse({"detail": detail}, 401, headers={"WWW-Authenticate": "Bearer"})


def login_router(tokens: Tokens) -> APIRouter:
    """The page to log in, and the exchange of a password or a token for the cookie."""
    router = APIRouter(include_in_schema=False)

    @router.get("/loco/login")
    def page(next: str = "/") -> HTMLResponse:
        return HTMLResponse(_page(_local(next)))

    @router.post("/loco/login")
    async def log_in(request: Request) -> Response:
        body = await request.body()
        form = {k: v[0] for k, v in parse_qs(body[:_FORM_LIMIT].decode("utf-8", "replace")).items()}
        target = _local(form.get("next", "/"))
        try:
            token = form.get("token") or await run_in_threadpool(
                _fetch, form.get("username", ""), form.get("password", "")
            )
            claims = await run_in_threadpool(tokens.claims, token)
        except (InvalidTokenError, PermissionError) as e:
            logger.warning("A login was refused: %s", e)
            return HTMLResponse(_page(target, "Name and password were not accepted."), 401)
        answer = RedirectResponse(target, 303)
        answer.set_cookie(
            COOKIE,
            token,
            expires=_utc(claims["exp"]),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.post("/loco/logout")
    def log_out() -> Response:
        answer = RedirectResponse("/loco/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return router


def _fetch(username: str, password: str) -> str:
    """A token for a password. Raises `PermissionError` when the realm gives none."""
    form = {
        "client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID, "grant_type": "password", "scope": "openid",
        "username": username, "password": password,
    }  # fmt: skip
    try:
        answer = requests.post(token_uri(), data=form, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
        token = answer.json().get("access_token") if answer.ok else None
    except (requests.RequestException, ValueError, AttributeError) as e:
        raise HTTPException(503, "expected the login server to answer, but it did not; try again later") from e
    if not isinstance(token, str):
        raise PermissionError(f"the realm answered {answer.status_code}")
    return token


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)


def _local(target: str) -> str:
    """Where to go after the login: an address of this server, whatever a link says."""
    parts = urlsplit(target)
    local = not parts.scheme and not parts.netloc and target.startswith("/") and target[:2] not in ("//", "/\\")
    return target if local and "\\" not in target and target.isprintable() else "/"


def _page(target: str, message: str = "") -> str:
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px system-ui;display:grid;place-content:center;min-height:90vh}}label,input,button{{display:block;
width:18rem;margin:.3rem 0;font:inherit}}[role=alert]{{color:#b00020}}</style></head><body><main><h1>Log in</h1>
<p role="alert">{html.escape(message)}</p><form method="post" action="/loco/login">
<input type="hidden" name="next" value="{html.escape(target, quote=True)}">
<label for="u">Name</label><input id="u" name="username" autocomplete="username" required autofocus>
<label for="p">Password</label><input id="p" name="password" type="password" autocomplete="current-password" required>
<button>Log in</button></form></main></body></html>"""
