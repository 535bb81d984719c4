import errno

import pytest
from fastapi import APIRouter, FastAPI, Request, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from starlette.middleware import Middleware

from lib.core.images import CaseError
from lib.server import guard
from lib.server.errors import status_of
from lib.server.guard import GuardSettings, install
from lib.server.web import add_routes
from lib.store.schema import JournalError

FRIEND, FOE = "https://viewer.example", "https://evil.example"


@pytest.fixture
def client(monkeypatch):
    """An application as MONAI Label builds it, guarded only when it has started."""
    stock = Middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"])
    app = FastAPI(middleware=[stock])
    app.get("/info/")(lambda: {"name": "x"})
    app.put("/upload")(_size)
    with TestClient(app) as client:
        assert client.get("/info/", headers={"Origin": FOE}).headers["access-control-allow-origin"] == FOE, (
            "as it comes"
        )
        monkeypatch.setattr(guard, "IN_MEMORY_BYTES", 100)
        install(app, GuardSettings((FRIEND,), max_upload_bytes=1000))
        own = APIRouter()
        own.get("/loco/fails")(_fail)
        add_routes(app, [own])
        yield client


async def _length(request: Request):
    return len(await request.body())


def _size(file: UploadFile):
    return {"size": len(file.file.read())}


def _fail(kind: str):
    raise {"disk": OSError(errno.ENOSPC, "full"), "case": CaseError("a.png", "expected a picture, but no")}[kind]


def test_only_named_origins_may_read(client):
    assert "access-control-allow-origin" not in client.get("/info/", headers={"Origin": FOE}).headers
    assert client.get("/info/", headers={"Origin": FRIEND}).headers["access-control-allow-origin"] == FRIEND
    asked = {"Origin": FOE, "Access-Control-Request-Method": "PUT"}
    assert client.options("/upload", headers=asked).status_code == 400
    assert client.options("/upload", headers={**asked, "Origin": FRIEND}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (FOE, 403),
        ("null", 403),
        (FRIEND, 200),
        ("http://testserver", 200),
        (None, 200),
        ("http://testserver.evil", 403),
    ],
)
def test_forms_of_other_pages_write_nothing(client, origin, status):
    headers = {"Origin": origin} if origin else {}
    answer = client.put("/upload", files={"file": b"abc"}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "name the origin with --conf cors_origins" in answer.json()["detail"]


def test_sizes_are_limited_whether_said_or_not(client):
    said = client.put("/upload", files={"file": b"x" * 2000})
    assert said.status_code == 413
    assert "raise --conf max_upload_mb" in said.json()["detail"]
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    assert (
        client.put("/upload", content=iter([head, b"x" * 2000, b"\r\n--b--\r\n"]), headers=boundary).status_code == 413
    )
    assert client.put("/upload", content=iter([head, b"x" * 20, b"\r\n--b--\r\n"]), headers=boundary).json() == {
        "size": 20
    }


def test_what_is_held_in_memory_is_limited_more_than_uploads(client):
    """Whether its length is announced or not."""

    def pieces():
        yield from [b"x" * 50] * 3

    client.app.post("/loco/login")(_length)
    client.app.post("/json")(_length)
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for path, headers in (("/json", {"Content-Type": "application/json"}), ("/loco/login", form)):
        assert client.post(path, content=b"x" * 101, headers=headers).status_code == 413
        assert client.post(path, content=pieces(), headers=headers).status_code == 413
        assert client.post(path, content=b"x" * 99, headers=headers).json() == 99
    assert client.put("/upload", files={"file": b"x" * 500}).json() == {"size": 500}, "an upload may be larger"


def test_a_parameter_comes_once_but_in_dicom_queries(client):
    assert client.get("/info/?a=1&b=2").status_code == 200
    for query in ("a=1&a=2", "a&a", "%61=1&a=2"):
        assert client.get(f"/info/?{query}").status_code == 400
    assert client.get("/proxy/dicom/qido/studies?includefield=1&includefield=2").status_code == 404, "not refused here"


def test_browsers_are_told_not_to_guess(client):
    headers = client.get("/info/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"


def test_errors_become_sentences(client):
    answer = client.get("/loco/fails?kind=disk")
    assert (answer.status_code, "free some space" in answer.json()["detail"]) == (507, True)
    answer = client.get("/loco/fails?kind=case")
    assert (answer.status_code, answer.json()["detail"]) == (400, "a.png: expected a picture, but no")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImageNotFoundException("x"), 404),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "x"), 400),
        (JournalError("x"), 503),
        (OSError(errno.EROFS, "x"), 503),
        (OSError(errno.EDQUOT, "x"), 507),
        (ConnectionError("x"), 503),
    ],
)
def test_each_kind_has_its_status(error, status):
    assert status_of(error)[0] == status
