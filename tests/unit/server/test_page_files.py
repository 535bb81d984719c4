"""The page's files: those and no others, with a policy that loads nothing from elsewhere."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib.server.page.files import OWN, files_router


@pytest.fixture
def client(tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>LoCo</title>")
    (page / "app.js").write_text("export {}")
    (page / "notes.py").write_text("secret = 1")
    (tmp_path / "outside.js").write_text("outside")
    (page / "link.js").symlink_to(tmp_path / "outside.js")
    app = FastAPI()
    app.include_router(files_router(page))
    return TestClient(app)


def test_the_page_and_its_files_are_typed_and_asked_for_each_time(client):
    for path, kind in (("/loco/", "text/html"), ("/loco", "text/html"), ("/loco/static/app.js", "text/javascript")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "../outside.js",
        "%2e%2e/outside.js",
        "..%2foutside.js",
        "link.js",
        "notes.py",
        "",
        "%00",
        "/etc/passwd",
        "nothing.js",
    ],
)
def test_nothing_else_is_served(client, path):
    answer = client.get(f"/loco/static/{path}")
    assert answer.status_code == 404
    assert "outside" not in answer.text.replace("outside.js", "")


def test_the_page_is_there():
    assert (OWN / "index.html").is_file()
