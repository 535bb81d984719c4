import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib.server.ohif import SHIPPED, ohif_router, page_of


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    app.include_router(ohif_router())
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("assets/images/CT-AAA.png", "image/png"),
        ("dicom-microscopy-viewer/dicomMicroscopyViewer.min.js", "text/javascript"),
        ("17dd54813d5acc10bf8f.wasm", "application/wasm"),
        ("app.bundle.css", "text/css"),
        ("app-config.js", "text/javascript"),
        ("loco/panel.js", "text/javascript"),
        ("loco/panel.css", "text/css"),
    ],
)
def test_files_in_any_folder_come_with_their_type(client, path, kind):
    answer = client.get(f"/ohif/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == kind


@pytest.mark.parametrize("path", ["", "/", "/index.html", "/viewer", "/monai-label?StudyInstanceUIDs=1.2"])
def test_pages_are_ohif_s_page_with_the_panel_and_nothing_from_elsewhere(client, path):
    page = client.get(f"/ohif{path}").text
    assert page.count("/ohif/loco/panel.js") == 1
    assert "/ohif/app.bundle" in page
    assert "https://" not in page


def test_settings_name_no_host(client):
    settings = client.get("/ohif/app-config.js").text
    assert "/proxy/dicom/qido" in settings
    assert "http:" not in settings


def test_bundles_are_kept_by_the_browser_and_pages_are_not(client):
    bundle = next(SHIPPED.glob("app.bundle.*.js")).name
    assert "immutable" in client.get(f"/ohif/{bundle}").headers["cache-control"]
    assert client.get("/ohif/").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["missing.js", "assets/missing", "loco/missing.js", "..%2fproxy.py", "loco/..%2f..%2fmain.py"]
)
def test_what_is_not_there_is_not_a_page(client, path):
    assert client.get(f"/ohif/{path}").status_code == 404


def test_a_page_without_a_head_is_refused():
    with pytest.raises(ValueError, match="reinstall"):
        page_of("<html></html>")
