"""A realm on this machine that signs real tokens; MONAI Label's login as it comes, and as this app runs it."""

from __future__ import annotations

import io
import json

import httpx
import jwt
import numpy as np
import pydicom
import pytest
from cryptography.hazmat.primitives import serialization
from dicom import picture_series, stow_answer
from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from jwt import InvalidTokenError
from monailabel.config import settings
from monailabel.endpoints.user import auth as stock
from pydicom.uid import SegmentationStorage
from realm import KEY, OTHER_KEY, open_realm, token
from starlette.middleware import Middleware

from lib.server.auth import TokenRule, Tokens, role_names, rule_of, with_lower_roles
from lib.server.dicomweb import dicomweb_router
from lib.server.guard import GuardSettings, install
from lib.server.login import COOKIE, LoginGate, login_router
from lib.server.proxy import Pacs, proxy_router
from lib.server.web import add_routes

STOCK_FROM_TOKEN = stock.from_token


@pytest.fixture
def realm(monkeypatch):
    server = open_realm()
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", server.url)
    stock.open_id_configuration.cache.clear()
    stock.get_public_key.cache.clear()
    yield server
    server.shutdown()


@pytest.fixture
def tokens(realm):
    return Tokens(rule_of({}))


def test_the_stock_login_refuses_every_token_and_ours_takes_a_real_one(realm, tokens):
    signed = token(realm)
    with pytest.raises(InvalidTokenError, match="algorithms"):
        STOCK_FROM_TOKEN(signed)
    user = tokens.user(signed)
    assert (user.username, user.roles) == ("ann", ["monailabel-user", "monailabel-annotator"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "http://other"}, {"aud": "account"}, {"exp": 1}, {"drop": ("aud",)}, {"drop": ("exp",)}, {"drop": ("iss",)},
        {"key": OTHER_KEY}, {"kid": "k2"}, {"algorithm": "RS512"}, {"nbf": 2**40}, {"drop": ("preferred_username",)},
    ],
    ids=lambda wrong: "another key" if "key" in wrong else str(wrong),
)  # fmt: skip
def test_each_claim_and_the_signature_count(realm, tokens, wrong):
    with pytest.raises(InvalidTokenError):
        tokens.user(token(realm, **wrong))


def test_the_public_key_is_no_secret_to_sign_with(realm, tokens):
    """The old attack: HS256 with the public key as the secret; and no signature at all."""
    import base64
    import hashlib
    import hmac

    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(token(realm), options={"verify_signature": False})

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    for algorithm in ("HS256", "none"):
        text = part({"alg": algorithm, "kid": "k1"}) + b"." + part(claims)
        mac = base64.urlsafe_b64encode(hmac.new(pem, text, hashlib.sha256).digest()).rstrip(b"=")
        forged = text + b"." + (mac if algorithm == "HS256" else b"")
        with pytest.raises(InvalidTokenError):
            tokens.user(forged.decode())
    with pytest.raises(ValueError, match="expected algorithms of RS256"):
        Tokens(TokenRule("x", "y", ("HS256",)))


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "ü.ü.ü", "." * 50])
def test_rubbish_is_no_token(tokens, text):
    with pytest.raises(InvalidTokenError):
        tokens.user(text)


def test_a_realm_that_is_gone_lets_nobody_in(realm, tokens, monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", "http://127.0.0.1:9")
    with pytest.raises(InvalidTokenError, match="expected keys of"):
        tokens.user("a.b.c")


def test_a_higher_role_has_the_lower_ones():
    user, annotator, reviewer, admin = role_names()
    assert with_lower_roles([admin], role_names()) == [user, annotator, reviewer, admin]
    assert with_lower_roles([annotator, "guest"], role_names()) == [user, annotator, "guest"]
    assert with_lower_roles([], role_names()) == []


@pytest.fixture
def client(realm, tokens, tmp_path):
    """Routes of every kind, as the running server has them."""
    (tmp_path / "app.js").write_text("1")
    app = FastAPI()
    app.mount("/static", StaticFiles(directory=tmp_path))
    own = APIRouter()
    for path in ("/info/", "/ohif/{path:path}", "/proxy/dicom/qido/studies", "/loco/state", "/loco/health", "/logs/"):
        own.get(path)(lambda: {})
    own.put("/model/frame")(lambda: {})
    own.post("/loco/skip")(lambda: {})
    with TestClient(app, follow_redirects=False) as client:
        install(app, GuardSettings(), [Middleware(LoginGate, tokens=tokens)])
        add_routes(app, [login_router(tokens), own])
        yield client


CLOSED = [
    "/info/", "/ohif/", "/ohif/assets/x.js", "/proxy/dicom/qido/studies", "/loco/state", "/logs/", "/static/app.js",
    "/docs", "/redoc", "/openapi.json", "/", "/nothing", "/loco/health/../state", "/loco/login/x",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_every_address_asks_for_a_token(client, path):
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer x.y.z"}).status_code == 401


def test_open_are_the_login_and_the_health(client):
    assert client.get("/loco/login").status_code == 200
    assert client.get("/loco/health").status_code == 200


def test_roles_are_asked_where_the_stock_server_does_not(client, realm):
    def status(method, path, role):
        signed = token(realm, realm_access={"roles": [role]})
        return client.request(method, path, headers={"Authorization": f"Bearer {signed}"}).status_code

    user, annotator, reviewer, admin = role_names()
    assert status("GET", "/info/", "guest") == 403
    assert status("GET", "/info/", user) == 200
    assert status("POST", "/loco/skip", user) == 403
    assert status("POST", "/loco/skip", annotator) == 200
    stored = [status("POST", "/proxy/dicom/stow/studies", role) for role in (user, annotator)]
    assert (stored[0], stored[1] == 403) == (403, False), "a segmentation in the PACS is a submission"
    assert [status("PUT", "/model/frame", r) for r in (user, annotator, reviewer, admin)] == [403, 403, 403, 200]
    assert [status("GET", "/logs/", r) for r in (reviewer, admin)] == [403, 200]


@pytest.mark.parametrize("of", ["folder", "PACS"])
def test_a_segmentation_is_by_who_is_logged_in(realm, tokens, of):
    by = []

    async def pacs_answers(request):
        return httpx.Response(200, json=stow_answer((SegmentationStorage, "http://pacs/studies/1/series/2")))

    app = FastAPI()
    app.dependency_overrides[stock.get_current_user] = lambda: tokens.user(token(realm))
    pacs = Pacs("http://pacs", {})
    app.include_router(
        dicomweb_router(dict, lambda ds, who: by.append(who))
        if of == "folder"
        else proxy_router(pacs, lambda uid, who: by.append(who), httpx.MockTransport(pacs_answers))
    )
    file = io.BytesIO()
    ds = picture_series("ES", [np.zeros((4, 4, 3), np.uint8)])[0]
    pydicom.dcmwrite(file, ds, write_like_original=False)
    answer = TestClient(app).post(
        "/proxy/dicom/stow/studies",
        content=b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file.getvalue() + b"\r\n--x--\r\n",
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'},
    )
    assert answer.status_code == 200
    assert by == ["ann"]


def test_ohif_works_behind_the_login(client, realm):
    """A browser is sent to the page, gets a cookie that no script reads, and goes on where it wanted."""
    realm.token = token(realm)
    sent = client.get("/ohif/?StudyInstanceUIDs=1.2", headers={"Accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (
        303,
        "/loco/login?next=%2Fohif%2F%3FStudyInstanceUIDs%3D1.2",
    )
    assert 'value="/ohif/?StudyInstanceUIDs=1.2"' in client.get(sent.headers["location"]).text
    form = {"username": "ann", "password": "wrong", "next": "/ohif/?StudyInstanceUIDs=1.2"}
    assert client.post("/loco/login", data=form).status_code == 401
    answer = client.post("/loco/login", data={**form, "password": "right"})
    assert (answer.status_code, answer.headers["location"]) == (303, form["next"])
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/"))
    assert client.get("/ohif/").status_code == client.get("/proxy/dicom/qido/studies").status_code == 200
    assert client.post("/loco/skip", headers={"Origin": "http://evil.example"}).status_code == 403
    client.post("/loco/logout")
    assert client.get("/ohif/").status_code == 401


def test_a_token_of_another_login_becomes_a_cookie(client, realm):
    assert client.post("/loco/login", data={"token": token(realm)}).cookies.get(COOKIE)
    assert client.post("/loco/login", data={"token": token(realm, aud="x")}).status_code == 401


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:1", "x", "/a\nb"]
)
def test_the_login_leads_nowhere_else(client, realm, target):
    answer = client.post("/loco/login", data={"token": token(realm), "next": target})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("other", ['a={"x":1, "y":2}', "grafana=a b", "flag", "x[1]=2", "u=m\u00fcller"])
def test_odd_cookies_of_other_programs_on_the_host_do_not_hide_ours(client, realm, other):
    cookie = f"{other}; {COOKIE}={token(realm)}; last=1".encode()
    assert client.get("/info/", headers={"Cookie": cookie}).status_code == 200


def test_a_broken_cookie_is_no_login(client):
    assert client.get("/info/", headers={"Cookie": f"{COOKIE}=a;b=\x01"}).status_code == 401
