"""The routes of the page, see the package."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from pydantic import Field

from lib.decisions import decided
from lib.server.page.changes import Watch
from lib.server.page.comparing import Comparing
from lib.server.page.desk import Desk
from lib.server.page.drawings import Drawings
from lib.server.page.files import files_router
from lib.server.page.learning import learning
from lib.server.page.models import (
    Bundle,
    Changes,
    Layer,
    Learning,
    Models,
    ModelVersion,
    Pin,
    PinRequest,
    QueuePage,
    QueueState,
    SubmissionsPage,
    Summary,
    Waiting,
    WorstCases,
)
from lib.server.page.queue import Query, Queue
from lib.server.page.submissions import Submitted
from lib.server.page.summary import summary
from lib.server.page.versions import Versions

PREFIX = "/loco/page"
_RETRY_S = "1"

Offset = Annotated[int, Field(ge=0, le=10**7)]
Limit = Annotated[int, Field(ge=1, le=200)]
Text = Annotated[str, Field(max_length=200)]
Number = Annotated[int, Field(ge=1, le=10**7)]


class SentenceRoute(APIRoute):
    """A route that answers unusable parameters with 400 and one sentence."""

    def get_route_handler(self) -> Callable:
        """The handler, with FastAPI's list of errors turned into a sentence about the first."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as e:
                raise HTTPException(400, _sentence(e)) from e

        return answer


def page_routers(desk: Desk, place: str) -> list[APIRouter]:
    """The page's files and its JSON; `place` is `--studies` of the server."""
    drawings, comparing, versions = Drawings(desk), Comparing(desk), Versions(desk, place)
    panels = _panels(desk, Queue(desk, drawings), Submitted(desk, drawings, comparing))
    return [
        files_router(),
        panels,
        _live(Watch(desk, drawings, versions), desk, drawings),
        _pins(desk),
        _models(versions),
    ]


def _router(*dependencies: Any) -> APIRouter:
    return APIRouter(prefix=PREFIX, tags=["Page"], route_class=SentenceRoute, dependencies=list(dependencies))


def _panels(desk: Desk, queue: Queue, submitted: Submitted) -> APIRouter:
    router, reader = _router(), Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))

    @router.get("/summary", summary="How far the project is")
    def of_project(user: User = reader) -> Summary:
        return summary(desk, user)

    @router.get("/learning", summary="Dice by version, and the training", dependencies=[reader])
    def of_versions() -> Learning:
        return learning(desk)

    @router.get("/queue", summary="What comes next and why", dependencies=[reader])
    def of_queue(
        offset: Offset = 0,
        limit: Limit = 24,
        sort: Text = "next",
        descending: bool = False,
        search: Text = "",
        state: QueueState = "waiting",
        stratum: Text = "",
    ) -> QueuePage:
        return queue.page(Query(offset, limit, sort, descending, search, state, stratum))

    @router.get("/submissions", summary="What came back, newest first", dependencies=[reader])
    def of_submissions(offset: Offset = 0, limit: Limit = 24, search: Text = "") -> SubmissionsPage:
        return submitted.page(offset, limit, search)

    @router.get("/worst", summary="Validation cases where the live model is worst", dependencies=[reader])
    def of_worst(limit: Limit = 12) -> WorstCases:
        return submitted.worst(limit)

    return router


def _live(watch: Watch, desk: Desk, drawings: Drawings) -> APIRouter:
    router = _router(Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)))

    @router.get("/changes", summary="A mark per panel", response_model=Changes, responses={304: {"model": None}})
    def changes(request: Request) -> Response:
        found = watch.changes()
        return _unless_known(request, JSONResponse(found.model_dump()), found.model_dump_json())

    @router.get(
        "/thumbnail",
        summary="A layer of a study as a picture",
        response_class=Response,
        responses={
            200: {"content": {"image/webp": {}, "image/png": {}}},
            202: {"model": Waiting},
            204: {"description": "There is nothing in this layer."},
        },
    )
    def thumbnail(request: Request, image: Text, layer: Layer = "image", v: Text = "") -> Response:
        mark = v or drawings.mark(desk.known(image))
        content = drawings.layer(desk.known(image), layer, mark)
        if content is None:
            detail = "This picture is being drawn; ask again in a moment."
            return JSONResponse({"detail": detail}, 202, headers={"Retry-After": _RETRY_S, "Cache-Control": "no-store"})
        if not content:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        kind = "image/webp" if layer == "image" else "image/png"
        return _unless_known(request, Response(content, media_type=kind), hashlib.sha256(content).hexdigest())

    return router


def _pins(desk: Desk) -> APIRouter:
    router, writer = _router(), Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))

    @router.post("/pin", summary="Serve an image before all others")
    def pin(body: PinRequest, user: User = writer) -> Pin:
        image, view = desk.known(body.image), desk.view()
        place = view.places.get(image)
        if image in desk.journal.labelled_images() or (place is not None and view.labelled[place]):
            raise HTTPException(409, "expected an image without a label, but this one has one; open it to change that")
        if place is not None and not view.free[place]:
            raise HTTPException(
                409, "expected an image to train on, but its patient is set aside for validation; pin another one"
            )
        client = user.username if settings.MONAI_LABEL_AUTH_ENABLE else body.client_id
        desk.journal.pin(image, client, time.time())
        decided("pinned", image=image, client=client)
        return next(Pin(image=p.image, client=p.client, since=p.ts) for p in desk.journal.pins() if p.image == image)

    @router.post("/unpin", summary="Let an image wait for its turn again")
    def unpin(body: PinRequest, user: User = writer) -> Pin:
        known = next((p for p in desk.journal.pins() if p.image == body.image), None)
        if known is None or not desk.journal.unpin(body.image):
            raise HTTPException(404, "expected a pinned image, but this one is not pinned (any more); look again")
        decided("unpinned", image=body.image, client=user.username)
        return Pin(image=known.image, client=known.client, since=known.ts)

    return router


def _models(versions: Versions) -> APIRouter:
    reader = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
    admin = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
    router = _router()

    @router.get("/models", summary="The versions of the model", dependencies=[reader])
    def of_models() -> Models:
        return versions.all()

    @router.post("/models/{version}/live", summary="Let an earlier version serve", dependencies=[admin])
    def go_live(version: Number) -> ModelVersion:
        return versions.go_live(version)

    @router.post("/models/{version}/bundle", status_code=202, summary="Make the MONAI bundle", dependencies=[admin])
    def make_bundle(version: Number) -> Bundle:
        return versions.make_bundle(version)

    @router.get("/models/{version}/bundle", summary="How far the MONAI bundle is", dependencies=[reader])
    def bundle(version: Number) -> Bundle:
        return versions.bundle(version)

    @router.get(
        "/models/{version}/bundle.zip",
        summary="The MONAI bundle",
        dependencies=[admin],
        response_class=FileResponse,
        responses={200: {"content": {"application/zip": {}}}},
    )
    def bundle_file(version: Number) -> FileResponse:
        file = versions.bundle_file(version)
        return FileResponse(file, filename=file.name, media_type="application/zip")

    return router


def _unless_known(request: Request, answer: Response, content: str) -> Response:
    """The answer with an ETag, or 304 when the client has it."""
    tag = f'"{hashlib.sha256(content.encode()).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    answer.headers.update(headers)
    return answer


def _sentence(error: RequestValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return f"expected a usable {name}, but got {str(first.get('input'))[:100]!r}: {first['msg']}; correct it"
