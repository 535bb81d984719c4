"""OHIF as MONAI Label ships it, with this app's settings, script and style added to its one page."""

from __future__ import annotations

import re
from pathlib import Path

import monailabel
from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

SHIPPED = Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"
OWN = Path(__file__).resolve().parents[2] / "web" / "ohif"
_FONTS = re.compile(r"<link[^>]*https://fonts\.[^>]*>")
_SETTINGS = "app-config.js"
_HASHED = re.compile(r"\.[0-9a-f]{20}\.js|^[0-9a-f]{20}\.wasm")
_ADDED = '<link href="/ohif/loco/panel.css" rel="stylesheet"/><script type="module" src="/ohif/loco/panel.js"></script>'


def page_of(html: str) -> str:
    """OHIF's page with the app's script and style, and without fonts from elsewhere, which a clinic may not reach."""
    html = _FONTS.sub("", html)
    if "</head>" not in html:
        raise ValueError("expected OHIF's index.html to have a head, but it has none; reinstall monailabel")
    return html.replace("</head>", f"{_ADDED}</head>", 1)


def ohif_router(shipped: Path = SHIPPED, own: Path = OWN) -> APIRouter:
    """`/ohif/...`: the files of `shipped`, those of `own` under `/ohif/loco/`; every other path is OHIF's page.

    Nothing here tells of any patient, so it needs no login; the images do.
    """
    router = APIRouter()
    page = page_of((shipped / "index.html").read_text(encoding="utf-8"))
    files, added = StaticFiles(directory=shipped), StaticFiles(directory=own)

    @router.get("/ohif", include_in_schema=False)
    @router.get("/ohif/{path:path}", include_in_schema=False)
    async def ohif(request: Request, path: str = "") -> Response:
        if path == _SETTINGS:
            return _fresh(await added.get_response(_SETTINGS, request.scope))
        if path.startswith("loco/"):
            return _fresh(await added.get_response(path.removeprefix("loco/"), request.scope))
        if "." in path.rsplit("/", 1)[-1] and path != "index.html":
            response = await files.get_response(path, request.scope)
            if _HASHED.search(path):
                response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
            return response
        if path.startswith("assets/"):
            raise HTTPException(404, f"expected a file of OHIF, but there is no {path!r}")
        return _fresh(HTMLResponse(page))

    return router


def _fresh(response: Response) -> Response:
    """A browser asks each time, so that an update of the app is seen."""
    response.headers["Cache-Control"] = "no-cache"
    return response
