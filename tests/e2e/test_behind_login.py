"""The real server with MONAI Label's login switched on: nothing answers without a token, everything with the right one."""

from __future__ import annotations

import pytest
import requests
from board import Board
from browser import browser_of_its_own, needs_chromium
from playwright.sync_api import expect
from realm import open_realm, token
from server import ROOT, Server
from studies import write_frames

OPEN = {"/auth/", "/auth/token", "/loco/login", "/loco/health", "/favicon.ico"}


@pytest.fixture(scope="module")
def realm():
    server = open_realm()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def servers(tmp_path_factory, realm):
    """This app and a stock server behind the same login, each with the same studies of its own."""
    root = tmp_path_factory.mktemp("login")
    environment = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.url}
    both = {}
    for name, source in (("loco", ROOT / "apps/loco"), ("stock", ROOT / "tests/stock")):
        folder = root / name
        write_frames(folder / "studies", folder / "truth", 3)
        conf = {"labels": "lesion", "auto_retrain": "false"} if name == "loco" else {}
        both[name] = Server(folder / "studies", folder / "server.log", source, environment, **conf)
        both[name].launch()
    yield {name: one.wait_until_up() for name, one in both.items()}
    for one in both.values():
        one.stop()


@pytest.fixture(scope="module")
def server(servers):
    return servers["loco"]


def bearer(realm, *roles):
    return {"Authorization": f"Bearer {token(realm, realm_access={'roles': list(roles)})}"}


def addresses(server, realm):
    """Every operation of the document, and what the document leaves out."""
    document = server.get("/openapi.json", headers=bearer(realm, "monailabel-admin")).json()
    listed = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    hidden = [
        "/",
        "/docs",
        "/openapi.json",
        "/static/favicon.ico",
        "/ohif/",
        "/proxy/dicom/qido/studies",
        "/train/",
        "/loco/",
    ]
    return [*listed, *(("GET", path) for path in hidden), ("POST", "/reload"), ("DELETE", "/model/frame")]


def test_every_address_asks_for_a_token(server, realm):
    operations = addresses(server, realm)
    assert len(operations) > 35
    for method, path in operations:
        url = server.url + path.replace("{", "").replace("}", "")
        status = requests.request(method, url, timeout=30, allow_redirects=False).status_code
        assert status == 401 or path in OPEN, f"{method} {path} answered {status}"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/static/favicon.ico"])
def test_the_stock_login_leaves_pages_open(servers, path):
    found = {name: server.get(path, allow_redirects=False).status_code for name, server in servers.items()}
    assert found == {"stock": 200, "loco": 401}


def test_the_stock_login_lets_nobody_in(servers, realm):
    admin = bearer(realm, "monailabel-admin", "monailabel-reviewer", "monailabel-annotator", "monailabel-user")
    found = {name: server.get("/info/", headers=admin).status_code for name, server in servers.items()}
    assert found == {"stock": 401, "loco": 200}


def test_an_annotator_annotates_and_does_not_administrate(server, realm):
    annotator = bearer(realm, "monailabel-annotator")
    assert server.get("/info/", headers=annotator).status_code == 200
    picked = server.post("/activelearning/random", json={"client_id": "x"}, headers=annotator).json()["id"]
    body = {"image": picked, "client_id": "x"}
    assert server.post("/loco/renew", json=body, headers=annotator).status_code == 200, "the name is that of the token"
    bob = {"Authorization": f"Bearer {token(realm, preferred_username='bob')}"}
    for path in ("/loco/renew", "/loco/release"):
        stolen = server.post(path, json={"image": picked, "client_id": "ann"}, headers=bob)
        assert stolen.status_code == 409, "nobody gives back what another one holds"
    label = server.studies.parent / "truth" / f"{picked}.png"
    url = f"{server.url}/datastore/label?image={picked}"
    assert requests.put(url, files={"label": label.open("rb")}, headers=annotator, timeout=60).status_code == 200
    (version,) = server.get("/loco/labels", params={"image": picked}, headers=annotator).json()
    assert version["client"] == "ann", "the name comes from the token"
    assert server.get(f"/loco/labels/{version['id']}/file", headers=annotator).content == label.read_bytes()
    assert (
        requests.put(url, files={"label": label.open("rb")}, headers=bearer(realm, "monailabel-user")).status_code
        == 403
    )
    assert server.post("/train/frame", json={}, headers=annotator).status_code == 403
    assert requests.put(f"{server.url}/model/frame", files={"file": b"x"}, headers=annotator).status_code == 403
    assert (
        requests.put(
            f"{server.url}/model/frame", files={"file": b"x"}, headers=bearer(realm, "monailabel-admin")
        ).status_code
        == 400
    )


def test_a_browser_logs_in_and_sees_ohif(server, realm):
    realm.token = token(realm)
    browser = requests.Session()
    asked = browser.get(f"{server.url}/ohif/", headers={"Accept": "text/html"})
    assert "<h1>Log in</h1>" in asked.text
    form = {"username": "ann", "password": "right", "next": "/ohif/"}
    page = browser.post(f"{server.url}/loco/login", data=form)
    assert (page.status_code, page.url) == (200, f"{server.url}/ohif/")
    assert "OHIF" in page.text
    assert browser.get(f"{server.url}/info/").status_code == 200
    assert "<title>LoCo</title>" in browser.get(f"{server.url}/loco/").text
    rights = browser.get(f"{server.url}/loco/page/summary").json()["rights"]
    assert rights == {"user": "ann", "login": True, "write": True, "admin": False}


@needs_chromium
@pytest.mark.parametrize("role", ["user", "annotator", "admin"])
def test_the_page_offers_what_the_role_may_do(server, realm, role):
    truth = server.studies.parent / "truth" / "frame_000.png"  # a training needs a label
    url, annotator = f"{server.url}/datastore/label?image=frame_000", bearer(realm, "monailabel-annotator")
    assert requests.put(url, files={"label": truth.open("rb")}, headers=annotator, timeout=60).status_code == 200
    realm.token = token(realm, realm_access={"roles": [f"monailabel-{role}"]})
    with browser_of_its_own() as browser:
        board = Board(browser.new_page(), server.url)
        page = board.page
        page.goto(f"{server.url}/loco/")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("right")
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#about")).to_contain_text("logged in as ann")
        card = page.locator("#next .study").first
        expect(card.locator("[data-part=open]")).to_be_visible()
        for part in ("pin", "skip"):
            expect(card.locator(f"[data-part={part}]")).to_be_visible(visible=role != "user")
        expect(board.panel("training", "start")).to_be_visible(visible=role == "admin")
        assert board.errors == []

        page.context.clear_cookies()
        expect(page.locator("#connection")).to_have_text("Logged out. Log in")
        page.locator("#connection").get_by_role("link", name="Log in").click()
        expect(page.get_by_label("Password")).to_be_visible()
        assert page.url.endswith("next=%2Floco%2F")
