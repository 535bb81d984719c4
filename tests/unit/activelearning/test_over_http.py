"""Leases and skips over HTTP."""

import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from unit.activelearning.pools import ask, scored, strategy_of

from lib.activelearning.next_image import LEASE_S
from lib.server.leases import picking_router, used


@pytest.fixture
def http(project):
    studies = scored(project)
    app = FastAPI()
    app.include_router(picking_router("frame", studies, project.journal))
    return TestClient(app), studies


def test_skips_over_http(http, project):
    client, studies = http
    strategy = strategy_of(project)
    names = [entry["reason"] for entry in client.get("/loco/skip/reasons").json()["reasons"]]
    assert names == ["unreadable", "irrelevant", "duplicate", "unsure", "later"]
    image = ask(strategy, studies)["id"]
    answer = client.post("/loco/skip", json={"image": image, "client_id": "ann", "reason": "later"})
    assert answer.json() == {"image": image, "reason": "later", "for": "ann"}
    assert ask(strategy, studies)["id"] != image
    assert client.post("/loco/skip", json={"image": image, "client_id": "ann", "reason": "dull"}).status_code == 422
    unknown = client.post("/loco/skip", json={"image": "nothing", "client_id": "ann", "reason": "later"})
    assert (unknown.status_code, "expected the id of a study" in unknown.json()["detail"]) == (404, True)


def test_a_skipped_image_comes_when_nothing_else_is_left(http, project):
    client, studies = http
    strategy = strategy_of(project)
    image = ask(strategy, studies)["id"]
    client.post("/loco/skip", json={"image": image, "client_id": "ann", "reason": "unreadable"})
    served = []
    while reply := ask(strategy, studies, f"bob{len(served)}"):
        served.append(reply)
    assert [reply["id"] for reply in served].index(image) == len(served) - 1 == 29
    assert served[-1]["reason"] == "skipped before: nothing else is left"


def test_leases_over_http(http, project):
    client, studies = http
    image = ask(strategy_of(project), studies)["id"]
    (lease,) = client.get("/loco/leases").json()["leases"]
    assert (lease["image"], lease["client_id"]) == (image, "ann")
    assert 0 < lease["seconds_left"] <= LEASE_S
    assert client.post("/loco/renew", json={"image": image, "client_id": "ann"}).json()["seconds_left"] == LEASE_S
    other = client.post("/loco/renew", json={"image": image, "client_id": "bob"})
    assert (other.status_code, "to be held by bob" in other.json()["detail"]) == (409, True)
    assert client.post("/loco/release", json={"image": image, "client_id": "bob"}).status_code == 409
    assert client.post("/loco/release", json={"image": image, "client_id": "ann"}).json() == {"image": image}
    assert client.get("/loco/leases").json() == {"leases": []}
    (pick,) = client.get("/loco/picks").json()["picks"]
    assert (pick["image"], pick["client"], pick["details"]["stratum"]) == (image, "ann", "polyp/present")


def test_use_renews_a_lease(project):
    journal, now = project.journal, time.time()
    journal.lease(["a"], "ann", 5, now)
    used(journal, {"image": "a", "client_id": "bob"})
    assert journal.leases(now)[0].expires == pytest.approx(now + 5)
    used(journal, {"image": "a", "client_id": "ann"})
    assert journal.leases(now)[0].expires > now + LEASE_S - 5
