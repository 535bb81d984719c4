"""Routes about the next image: who holds which, pass one by, hold one longer, give one back.

Leases are renewed by use: asking for the next image again, inference on the image, and `POST /loco/renew`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import Datastore
from pydantic import BaseModel, Field

from lib.activelearning.next_image import LEASE_S
from lib.server.auth import annotator_of
from lib.store.journal import Journal

SkipReason = Literal["unreadable", "irrelevant", "duplicate", "unsure", "later"]
SKIP_REASONS: dict[SkipReason, str] = {
    "unreadable": "the image cannot be read or is of no use: not offered again to anyone until nothing else is left",
    "irrelevant": "the image does not belong to this project: the same",
    "duplicate": "almost the same as an image that has a label: the same",
    "unsure": "I cannot decide: not offered to me again; an image that two annotators cannot decide on, to nobody",
    "later": "not now: not offered to me again until nothing else is left",
}
"""Why an image can be passed by, and what follows."""
_FOR_ALL = ("unreadable", "irrelevant", "duplicate")


class Held(BaseModel):
    """An image and the annotator who holds it; an anonymous client is ""."""

    image: str = Field(min_length=1)
    client_id: str = Field("", max_length=200)
    """With the login on, who is logged in counts, whatever stands here."""


class Skip(Held):
    """An image that an annotator passes by."""

    reason: SkipReason


def used(journal: Journal, request: Mapping[str, Any]) -> None:
    """An annotator did something with an image: if they hold it, they hold it for another half hour."""
    journal.renew(str(request.get("image") or ""), request.get("client_id"), LEASE_S, time.time())


def picking_router(model: str, datastore: Datastore, journal: Journal) -> APIRouter:
    """The routes of one model: `/loco/skip`, `/loco/leases`, `/loco/renew`, `/loco/release`, `/loco/picks`."""
    reader = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
    router = APIRouter(prefix="/loco", tags=["Next image"], dependencies=[reader])

    @router.get("/skip/reasons", summary=f"{RBAC_USER}Why an image can be passed by")
    def reasons() -> dict[str, Any]:
        return {"reasons": [{"reason": name, "meaning": text} for name, text in SKIP_REASONS.items()]}

    @router.post("/skip", summary=f"{RBAC_USER}Pass an image by, with a reason")
    def skip(body: Skip, user: User = reader) -> dict[str, Any]:
        _known(datastore, body.image)
        body.client_id = annotator_of(user, body.client_id)
        for_all = body.reason in _FOR_ALL
        journal.add_skip(body.image, body.client_id, body.reason, time.time(), for_all)
        return {"image": body.image, "reason": body.reason, "for": "all" if for_all else body.client_id}

    @router.get("/leases", summary=f"{RBAC_USER}Who holds which image")
    def leases() -> dict[str, Any]:
        now = time.time()
        rows = journal.leases(now)
        return {
            "leases": [
                {"image": x.image, "client_id": x.client, "since": x.since, "seconds_left": round(x.expires - now)}
                for x in rows
            ]
        }

    @router.post("/renew", summary=f"{RBAC_USER}Hold an image for another half hour")
    def renew(body: Held, user: User = reader) -> dict[str, Any]:
        body.client_id = annotator_of(user, body.client_id)
        if not journal.renew(body.image, body.client_id, LEASE_S, time.time()):
            raise HTTPException(409, _not_held(body))
        return {"image": body.image, "seconds_left": LEASE_S}

    @router.post("/release", summary=f"{RBAC_USER}Give an image back without a label")
    def release(body: Held, user: User = reader) -> dict[str, Any]:
        body.client_id = annotator_of(user, body.client_id)
        if not journal.release(body.image, body.client_id):
            raise HTTPException(409, _not_held(body))
        return {"image": body.image}

    @router.get("/picks", summary=f"{RBAC_USER}What was served lately, to whom and why")
    def picks(limit: Annotated[int, Field(ge=1, le=1000)] = 50) -> dict[str, Any]:
        return {"model": model, "picks": [vars(pick) for pick in journal.picks(limit)]}

    return router


def _known(datastore: Datastore, image: str) -> None:
    if image not in datastore.list_images():
        raise HTTPException(404, f"expected the id of a study, but got {image!r}; refresh the list of studies")


def _not_held(body: Held) -> str:
    who = body.client_id or "an anonymous client"
    return f"expected {body.image!r} to be held by {who}, but it is not (any more); ask for the next image"
