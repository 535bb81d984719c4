"""All routes of the app itself, in the order in which they answer."""

from __future__ import annotations

from fastapi import APIRouter

from lib.server.health import health_router
from lib.server.history import history_router
from lib.server.leases import picking_router
from lib.server.page.desk import Desk
from lib.server.page.routers import page_routers
from lib.server.training import training_router


def own_routers(desk: Desk, studies: str) -> list[APIRouter]:
    """The routers of one running app; `studies` is its `--studies`."""
    return [
        health_router(desk.model, desk.journal, desk.folder, studies),
        history_router(desk.journal),
        picking_router(desk.model, desk.studies, desk.journal),
        training_router(),
        *page_routers(desk, studies),
        *desk.viewer.routers(),
    ]
