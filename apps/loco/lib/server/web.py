"""The app's own HTTP routes, put in front of MONAI Label's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI

logger = logging.getLogger(__name__)


def add_routes(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Let `routers` answer first, in their order; what they do not match goes on to the routes that are there.

    Works while the server runs (middleware does not): routes are looked up anew with each request. The OpenAPI document is
    made again. Call it in the server process only, from `on_init_complete`.
    """
    present: list[Any] = list(app.router.routes)
    for router in routers:
        app.include_router(router)
    added = app.router.routes[len(present) :]
    app.router.routes[:] = [*added, *present]
    app.openapi_schema = None
