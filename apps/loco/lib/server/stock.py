"""MONAI Label's endpoints again, each behind a check of its arguments and off the event loop.

Addresses, arguments and replies stay those of MONAI Label, since the stock function itself answers after the check.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from monailabel.config import settings
from monailabel.endpoints import (
    activelearning,
    batch_infer,
    datastore,
    infer,
    info,
    login,
    logs,
    model,
    scoring,
    session,
    train,
    wsi_infer,
)
from monailabel.interfaces.utils.app import app_instance

from lib.server import checks, uploads
from lib.server.models import upload_model
from lib.server.threads import Check, Lane, in_thread

_MODULES = (info, model, infer, batch_infer, train, activelearning, scoring, datastore, logs, session, login)
_CHECKS: dict[Callable[..., Any], Check] = {
    infer.api_run_inference: checks.inference,
    batch_infer.api_run: checks.batch,
    train.api_run: checks.train_all,
    scoring.api_run: checks.score_all,
    scoring.api_run_method: checks.score_one,
    activelearning.api_sample: checks.next_sample,
    datastore.api_add_image: checks.new_image,
    datastore.api_remove_image: checks.remove_image,
    datastore.api_check_image: checks.checksum,
    datastore.api_put_image_info: checks.new_info,
    datastore.api_save_label: checks.new_label,
    datastore.api_remove_label: checks.tag,
    datastore.api_check_label: checks.tag,
    datastore.api_download_label: checks.tag,
    datastore.api_get_label_info: checks.tag,
    datastore.api_put_label_info: checks.new_info,
    datastore.api_update_label_info: checks.new_label_params,
    datastore.api_download_dataset: checks.archive,
    session.api_create_session: checks.new_session,
    logs.api_get_logs: checks.plain_log,
    logs.gpu_info: checks.gpu_tool,
}
_LANES: dict[Callable[..., Any], Lane] = {
    infer.api_run_inference: "infer",
    datastore.api_save_label: "write",
    datastore.api_add_image: "write",
    session.api_create_session: "write",
    datastore.api_download_dataset: "write",
    model.api_update_model: "write",
}
_ELSEWHERE = (model.api_delete_model, train.api_run_model, train.api_stop)
"""Below, and in `lib.server.training`."""
_GONE = ("/reload", "/", "/docs", "/docs/oauth2-redirect")
_INSTEAD: dict[Callable[..., Any], Callable[..., Any]] = {
    model.api_update_model: upload_model,
    datastore.api_save_label: uploads.save_label,
    datastore.api_add_image: uploads.add_image,
    datastore.api_download_dataset: uploads.download_dataset,
    session.api_create_session: uploads.create_session,
}
"""Stock functions that cannot be made safe by looking at their arguments."""


def guarded_router() -> APIRouter:
    """All endpoints of MONAI Label that this app has a use for, guarded."""
    router = APIRouter()
    for module in _MODULES:
        if module is login and not settings.MONAI_LABEL_AUTH_ENABLE:
            continue
        for route in module.router.routes:
            if isinstance(route, APIRoute) and route.endpoint not in _ELSEWHERE:
                _add(router, route)
    router.delete("/model/{model}", include_in_schema=False)(_keep_model)
    router.get("/", include_in_schema=False)(_front_page)
    return router


def remove_stock_routes(app: FastAPI) -> None:
    """Take out what `guarded_router` stands for, whole-slide inference, and single addresses.

    `/reload` would stop the server for good. The pages of the API's documentation load scripts from other servers, which
    would run beside patients' images with the rights of whoever looks; the document itself, `/openapi.json`, stays.
    """
    replaced = {id(module.router) for module in (*_MODULES, wsi_infer)}
    app.router.routes[:] = [
        route
        for route in app.router.routes
        if id(getattr(route, "original_router", None)) not in replaced and getattr(route, "path", None) not in _GONE
    ]
    app.openapi_schema = None


def _add(router: APIRouter, route: APIRoute) -> None:
    endpoint = route.endpoint
    call = in_thread(
        endpoint, _LANES.get(endpoint, "quick"), _CHECKS.get(endpoint, checks.nothing), _INSTEAD.get(endpoint)
    )
    router.add_api_route(
        route.path,
        call,
        methods=sorted(route.methods),
        tags=route.tags,
        summary=route.summary,
        responses=route.responses,
        include_in_schema=route.include_in_schema,
        deprecated=route.deprecated,
        name=route.name,
    )


async def _front_page() -> RedirectResponse:
    return RedirectResponse("/loco/")


async def _keep_model(model: str) -> None:
    """Published models are kept: deleting the file of the live one would leave the viewers without a model."""
    known = os.path.basename(model) in app_instance()._infers
    if not known:
        raise HTTPException(404, "expected the name of a model, but there is none of this name; see /info/")
    raise HTTPException(403, "expected the live model to stay, but got its removal; upload another or train again")
