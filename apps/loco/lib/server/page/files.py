"""`/loco/` and its files, as they lie in the repository: nothing from elsewhere may be loaded, and nothing runs inline."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, RedirectResponse, Response

OWN = Path(__file__).resolve().parents[3] / "web" / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served; no other file is, whatever lies in the folder."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)


def files_router(own: Path = OWN) -> APIRouter:
    """`/loco`, `/loco/` and `/loco/static/...`. Like OHIF's page they tell of no patient; the JSON does, and asks for rights."""
    router = APIRouter(include_in_schema=False)
    root = own.resolve()

    @router.get("/loco")
    def home() -> Response:
        return RedirectResponse("/loco/", 308)

    @router.get("/loco/")
    def page() -> Response:
        return _file(root, "index.html")

    @router.get("/loco/static/{path:path}")
    def static(path: str) -> Response:
        return _file(root, path)

    return router


def _file(root: Path, path: str) -> Response:
    """A file below `root`. Raises `HTTPException` 404 for any other, links that lead out of it among them."""
    file = (root / path).resolve() if "\0" not in path else root
    if not file.is_relative_to(root) or file.suffix not in TYPES or not file.is_file():
        raise HTTPException(404, "expected a file of the page, but there is none of this name; open /loco/")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return FileResponse(file, media_type=TYPES[file.suffix], headers=headers)
