"""A project that was made through the REST API, and the page over it in a browser; both files of tests share it.

Screenshots lie in the tests' temporary folder under `shots/page`, or in $LOCO_SHOTS. The tests go on from one another's
state, in the order of the files; each of them holds whichever version went live and whatever the models predict.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from board import SCREENS, Board
from browser import browser_of_its_own
from playwright.sync_api import Browser
from server import Server
from studies import write_frames

from page.seeing import write_seeing_model
from page.state import FRAMES, LABELS, SETTINGS, answer, has_looked, label, serve, settle, train


@pytest.fixture(scope="package")
def root(tmp_path_factory) -> Path:
    """Studies with lesions, and their true outlines."""
    folder = tmp_path_factory.mktemp("page")
    write_frames(folder / "studies", folder / "truth", FRAMES, size=(120, 90))
    return folder


@pytest.fixture(scope="package")
def shots(root) -> Path:
    """Where screenshots go."""
    folder = Path(os.environ.get("LOCO_SHOTS", root / "shots")) / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="package")
def server(root) -> Iterator[Server]:
    """The real server, on nothing but images."""
    server = Server(root / "studies", root / "server.log", **SETTINGS).start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser; each test has a profile of its own."""
    with browser_of_its_own() as browser:
        yield browser


@pytest.fixture
def board(browser, server) -> Iterator[Board]:
    """The page on a common screen. Whatever the test did, the page itself did nothing wrong."""
    context = browser.new_context(**SCREENS["1440 light"], locale="en-GB", reduced_motion="reduce")
    board = Board(context.new_page(), server.url)
    yield board
    context.close()
    assert board.errors == []


@pytest.fixture(scope="package")
def project(server, root) -> dict[str, str]:
    """Labels by two annotators, one of them a corrected draft, an image passed by and one held; three versions.

    The first is uploaded and sees most lesions, so that there are contours and terms; the others are trained from it. Which
    of these is better is left to chance, so the last one is made live by hand.
    """
    for number in range(LABELS):
        client = ("ann", "ben")[number % 2]
        label(server, serve(server, client), root, client)
    with write_seeing_model(root).open("rb") as file:
        reply = requests.put(f"{server.url}/model/frame", files={"file": ("model.pt", file)}, timeout=120)
    assert reply.status_code == 200, reply.text
    has_looked(server)
    train(server)

    drafted = serve(server, "ann")
    wishes = {"params": '{"client_id": "ann"}'}
    draft = server.post("/infer/frame", params={"image": drafted, "output": "image"}, data=wishes)
    assert draft.status_code == 200, draft.text
    label(server, drafted, root, "ann")
    train(server)
    newest = answer(server, "models")["versions"][0]
    if not newest["live"]:
        assert server.post(f"/loco/page/models/{newest['version']}/live").status_code == 200
    settle(server)

    skipped = serve(server, "ben")
    server.post("/loco/skip", json={"image": skipped, "client_id": "ben", "reason": "unreadable"})
    return {"drafted": drafted, "skipped": skipped, "held": serve(server, "cleo")}
