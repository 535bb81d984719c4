from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from lib.server.web import add_routes


def test_own_routes_answer_before_those_that_are_there_and_appear_in_the_document():
    app = FastAPI()
    app.get("/ohif/{path}")(lambda path: {"from": "stock"})
    app.get("/info")(lambda: {"from": "stock"})
    client = TestClient(app)
    assert "/loco/health" not in client.get("/openapi.json").json()["paths"]
    own = APIRouter()
    own.get("/ohif/index.html")(lambda: {"from": "loco"})
    own.get("/loco/health")(lambda: {"from": "loco"})
    add_routes(app, [own])
    assert client.get("/ohif/index.html").json() == {"from": "loco"}
    assert client.get("/ohif/other").json() == {"from": "stock"}
    assert client.get("/info").json() == {"from": "stock"}
    assert "/loco/health" in client.get("/openapi.json").json()["paths"]
