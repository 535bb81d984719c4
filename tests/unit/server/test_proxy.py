import io
import json
from types import SimpleNamespace

import httpx
import pytest
from dicom import stow_answer
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from monailabel.endpoints import proxy as stock

from lib.server.proxy import Pacs, proxy_router, stored_segmentations

PACS = Pacs("http://pacs:8042/dicom-web", {"qido": "", "wado": "", "stow": ""}, ("user", "secret"))
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


class Body(httpx.AsyncByteStream):
    """A body that arrives in pieces of three bytes."""

    def __init__(self, content):
        self._content = content

    async def __aiter__(self):
        for start in range(0, len(self._content), 3):
            yield self._content[start : start + 3]


def through(answer, pacs=PACS, stored=None):
    """A client of the proxy, and the requests that reach the PACS, which `answer` answers."""
    asked = []

    async def pacs_answers(request):
        asked.append((request, await request.aread()))
        said = answer(request)
        return httpx.Response(said.status_code, headers=said.headers, stream=Body(said.content))

    app = FastAPI()
    taken = (lambda uid, who: stored.append(uid)) if stored is not None else lambda uid, who: None
    app.include_router(proxy_router(pacs, taken, httpx.MockTransport(pacs_answers)))
    return TestClient(app), asked


def test_a_search_keeps_its_query_and_uses_the_credentials_of_the_server():
    client, asked = through(lambda r: httpx.Response(200, json=[]))
    query = "PatientName=a*&limit=5&includefield=00080060&includefield=00081030"
    answer = client.get(
        f"/proxy/dicom/qido/studies?{query}", headers={"Cookie": "mine=1", "Authorization": "Bearer mine"}
    )
    assert answer.json() == []
    request, _ = asked[0]
    assert str(request.url) == f"http://pacs:8042/dicom-web/studies?{query}"
    assert request.headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert "cookie" not in request.headers


def test_metadata_belongs_to_wado_whatever_it_was_asked_under():
    pacs = Pacs("http://pacs", {"qido": "q", "wado": "w", "stow": "s"})
    client, asked = through(lambda r: httpx.Response(200, json=[]), pacs)
    client.get("/proxy/dicom/qido/studies/1/series")
    client.get("/proxy/dicom/qido/studies/1/series/2/metadata")
    client.post("/proxy/dicom/wado/studies", content=b"x")
    assert [r.url.path for r, _ in asked] == ["/q/studies/1/series", "/w/studies/1/series/2/metadata", "/s/studies"]


def test_links_in_json_are_turned_to_this_server_and_pixels_are_left_alone():
    link = b"http://pacs:8042/dicom-web/studies/1"
    kinds = {"/dicom-web/studies": "application/dicom+json", "/dicom-web/studies/1": "application/octet-stream"}
    client, _ = through(lambda r: httpx.Response(200, content=link, headers={"content-type": kinds[r.url.path]}))
    assert client.get("/proxy/dicom/qido/studies").content == b"http://testserver/proxy/dicom/wado/studies/1"
    assert client.get("/proxy/dicom/wado/studies/1").content == link


@pytest.mark.parametrize(
    "path", ["wado/..%2Fsystem", "wado/%252e%252e/system", "qido/system", "tools/find", "../system"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_but_dicomweb_reaches_the_pacs(path, method):
    client, asked = through(lambda r: httpx.Response(200))
    assert client.request(method, f"/proxy/dicom/{path}").status_code in (404, 405)
    assert asked == []


def test_the_stock_proxy_sends_everything_on_and_loses_queries(monkeypatch):
    """With the credentials of the server."""
    asked = []

    def get(url, auth, **_):
        asked.append((url, auth))
        return SimpleNamespace(raw=io.BytesIO(), status_code=200, headers={})

    monkeypatch.setattr(stock, "requests", SimpleNamespace(get=get))
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", PACS.address)
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_USERNAME", "user")
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_PASSWORD", "secret")
    app = FastAPI()
    app.include_router(stock.router)
    for path in ("wado/..%2Fsystem", "qido/studies?PatientID=1"):
        assert TestClient(app).get(f"/proxy/dicom/{path}").status_code == 200
    assert asked == [(f"{PACS.address}/{p}", PACS.credentials) for p in ("../system", "studies")]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (httpx.ConnectError("no"), 502, "cannot be reached"),
        (httpx.ReadTimeout("slow"), 504, "did not answer in time"),
        (401, 502, "refused this server's credentials"),
        (302, 502, "sends requests elsewhere"),
    ],
)
def test_a_pacs_that_does_not_answer_is_said_in_a_sentence(error, status, words):
    def answer(request):
        if isinstance(error, Exception):
            raise error
        return httpx.Response(error, headers={"location": "http://elsewhere/"})

    client, _ = through(answer)
    reply = client.get("/proxy/dicom/qido/studies")
    assert (reply.status_code, words in reply.json()["detail"]) == (status, True)


@pytest.mark.parametrize(("method", "status", "times"), [("GET", 200, 2), ("POST", 502, 1)])
def test_a_kept_connection_that_was_closed_is_opened_again_for_what_only_reads(method, status, times):
    asked = []

    def answer(request):
        asked.append(request)
        if len(asked) == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, json=[])

    client, _ = through(answer)
    assert client.request(method, "/proxy/dicom/qido/studies").status_code == status
    assert len(asked) == times


def test_storing_passes_the_body_on_and_tells_of_segmentations():
    said = stow_answer((SEG, "http://pacs/studies/1/series/2.5/instances/3"), ("1.2.3", "http://p/studies/1/series/9"))
    told = []
    client, asked = through(lambda r: httpx.Response(200, json=said), stored=told)
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    answer = client.post("/proxy/dicom/wado/studies", content=b"body", headers={"Content-Type": kind})
    assert answer.json() == said
    request, body = asked[0]
    assert (body, request.headers["content-type"]) == (b"body", kind)
    assert told == ["2.5"]


def test_a_refused_store_tells_of_nothing():
    told = []
    said = stow_answer((SEG, "http://pacs/studies/1/series/2.5/instances/3"))
    client, _ = through(lambda r: httpx.Response(409, json=said), stored=told)
    assert client.post("/proxy/dicom/stow/studies/1", content=b"x").status_code == 409
    assert told == []


def test_only_storing_is_a_post():
    client, asked = through(lambda r: httpx.Response(200))
    assert client.post("/proxy/dicom/wado/studies/1/series").status_code == 405
    assert asked == []


@pytest.mark.parametrize("answer", [b"", b"<xml/>", b"[]", b"{}", json.dumps([stow_answer()]).encode()])
def test_an_answer_without_segmentations_names_none(answer):
    assert list(stored_segmentations(answer)) == []
