"""Who may do what on the page while the login is on."""

import pytest
from monailabel.config import settings
from monailabel.endpoints.user import auth as stock
from unit.desks import client_of, open_desk, publish

from lib.server.auth import role_names, with_lower_roles
from lib.server.page import versions

USER, ANNOTATOR, REVIEWER, ADMIN = role_names()
READING = (
    "/loco/page/summary", "/loco/page/learning", "/loco/page/queue", "/loco/page/changes", "/loco/page/submissions",
    "/loco/page/worst", "/loco/page/models", "/loco/page/models/1/bundle", "/loco/page/thumbnail?image=frame_000",
)  # fmt: skip
WRITING = {
    "/loco/page/pin": ANNOTATOR,
    "/loco/page/unpin": ANNOTATOR,
    "/loco/page/models/1/live": ADMIN,
    "/loco/page/models/1/bundle": ADMIN,
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "EXPORT", tmp_path / "no command")  # an export takes minutes and is tested elsewhere
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    return open_desk(tmp_path, 2)


def client_as(desk, role):
    client = client_of(desk)
    roles = with_lower_roles([role], role_names()) if role else []
    client.app.dependency_overrides[stock.get_current_user] = lambda: stock.User(username="eve", roles=roles)
    return client


def test_every_route_asks_for_a_role(desk):
    client = client_as(desk, "")
    paths = client.app.openapi()["paths"]
    operations = [(method, path) for path, item in paths.items() for method in item]
    assert len(operations) >= len(READING) + len(WRITING) + 1
    for method, path in operations:
        assert client.request(method, path.replace("{version}", "1")).status_code == 403, f"{method} {path}"


@pytest.mark.parametrize("role", [USER, ANNOTATOR, REVIEWER, ADMIN])
def test_a_role_does_what_it_may_and_no_more(desk, role):
    publish(desk)
    client = client_as(desk, role)
    for path in READING:
        assert client.get(path).status_code in (200, 202), path
    held = with_lower_roles([role], role_names())
    for path, needed in WRITING.items():
        refused = client.post(path, json={"image": "nobody"}).status_code == 403
        assert refused == (needed not in held), path
    assert (client.get("/loco/page/models/1/bundle.zip").status_code == 403) == (role != ADMIN)
    rights = client.get("/loco/page/summary").json()["rights"]
    assert rights == {"user": "eve", "login": True, "write": role != USER, "admin": role == ADMIN}


def test_a_pin_is_by_whoever_is_logged_in_whatever_the_request_says(desk):
    client = client_as(desk, ANNOTATOR)
    pinned = client.post("/loco/page/pin", json={"image": "frame_000", "client_id": "somebody else"})
    assert pinned.json()["client"] == "eve"
