"""The queue behind the page, over real state: what comes next and why, and what is pinned."""

import time
from dataclasses import replace

import numpy as np
import pytest
from unit.desks import client_of, open_desk, skip, submit, with_model

from lib.server.page.models import QueuePage
from lib.server.page.queue import FORECAST


@pytest.fixture
def desk(tmp_path):
    return open_desk(tmp_path)


@pytest.fixture
def client(desk):
    return client_of(desk)


def queue(client, **query):
    answer = client.get("/loco/page/queue", params=query)
    assert answer.status_code == 200, answer.text
    return QueuePage(**answer.json())


def test_the_queue_is_what_the_strategy_then_serves(desk, client):
    with_model(desk)
    foreseen = queue(client).entries
    for number, entry in enumerate(foreseen, start=1):
        served = desk.strategy({"client_id": f"annotator {number}"}, desk.studies)
        assert (served["id"], served["reason"], entry.place) == (entry.image, entry.reason, number)
    assert len(foreseen) == 8 <= FORECAST
    assert {entry.kind for entry in foreseen} > {"random control"}
    assert [e.control for e in foreseen] == [e.kind == "random control" for e in foreseen]
    assert all(e.lease.client.startswith("annotator") for e in queue(client).entries)


def test_before_a_model_coverage_says_why(desk, client):
    found = queue(client)
    assert (found.version, found.total) == (0, 12)
    assert all(entry.reason for entry in found.entries)


def test_bars_hold_terms_and_where_they_stand(desk, client):
    with_model(desk)
    pool = desk.view().pool
    (entry,) = [e for e in queue(client).entries if e.image == "frame_005"]
    assert [bar.name for bar in entry.bars] == ["threshold_deficit", "margin", "feature_contrast"]
    margins = pool.terms["polyp/present/margin"]
    margin = float(margins[pool.images.index("frame_005")])
    assert entry.bars[1].value == pytest.approx(margin, abs=1e-4)
    others = [float(m) for m in margins if m == m]
    assert entry.bars[1].share == pytest.approx(sum(m < margin for m in others) / (len(others) - 1), abs=1e-4)
    assert entry.stratum == "polyp/present"


@pytest.mark.parametrize(("sort", "value"), [("margin", lambda e: e.bars[1].value), ("image", lambda e: e.image)])
def test_it_is_sorted_by_the_server_over_all_pages(desk, client, sort, value):
    with_model(desk)
    pages = [queue(client, sort=sort, descending=True, stratum="polyp/present", offset=o, limit=2) for o in (0, 2, 4)]
    entries = [e for page in pages for e in page.entries]
    assert pages[0].count == len(entries) == 6
    assert [value(e) for e in entries] == sorted((value(e) for e in entries), reverse=True)
    assert len({e.image for e in entries}) == 6


def test_images_without_the_term_come_last_in_both_directions(desk, client):
    with_model(desk)
    for descending in (False, True):
        found = queue(client, sort="peak", descending=descending).entries
        have = [any(bar.name == "peak" for bar in e.bars) for e in found]
        assert have == sorted(have, reverse=True)
        assert any(have)


def test_a_term_that_no_model_gives_any_more_sorts_nothing(desk, client):
    """The reader's choice may be older than the scores."""
    cold = queue(client)
    assert "margin" not in cold.sorts
    assert [e.image for e in queue(client, sort="margin").entries] == [e.image for e in cold.entries]


def test_search_and_state(desk, client):
    images = desk.studies.list_images()
    skip(desk, images[0], "duplicate")
    desk.journal.pin(images[1], "ann", time.time())
    held = desk.strategy({"client_id": "bob"}, desk.studies)["id"]
    assert held == images[1], "what is pinned is served first"
    assert [e.image for e in queue(client, search="FRAME_00").entries] != []
    assert [e.image for e in queue(client, search="_011").entries] == ["frame_011"]
    assert queue(client, search="nothing").count == 0
    assert [e.image for e in queue(client, state="skipped").entries] == [images[0]]
    assert [e.image for e in queue(client, state="leased").entries] == [held]
    assert [e.image for e in queue(client, state="pinned").entries] == [images[1]]
    assert queue(client, state="free").count == 10
    assert queue(client).entries[-1].kind == "skipped", "images that were passed by come last"


def test_what_can_hardly_be_judged_comes_last_and_says_why(desk, client, monkeypatch):
    with_model(desk)
    view = desk.view()
    place = next(iter(np.flatnonzero(view.free)))
    image = view.pool.images[place]
    monkeypatch.setattr(desk.board, "view", lambda studies: replace(view, unfit={int(place): "over-exposed"}))
    last = queue(client).entries[-1]
    assert (last.image, last.kind, last.reason) == (
        image,
        "poor image",
        "over-exposed: comes when nothing else is left",
    )
    assert image not in [entry.image for entry in queue(client, state="free").entries]
    desk.journal.pin(image, "ann", time.time())
    assert queue(client).entries[0].image == image


def test_a_queue_that_nothing_changed_is_not_made_again(desk, client, monkeypatch):
    made = []
    forecast = desk.strategy.forecast
    monkeypatch.setattr(desk.strategy, "forecast", lambda *a: made.append(1) or forecast(*a))
    view = desk.view()
    monkeypatch.setattr(desk.board, "view", lambda datastore: view)
    queue(client)
    queue(client, offset=4)
    assert len(made) == 1
    desk.journal.pin("frame_003", "ann", time.time())
    assert queue(client).entries[0].image == "frame_003"
    assert len(made) == 2


@pytest.mark.parametrize(
    "query",
    [{"offset": -1}, {"limit": 0}, {"limit": 1000}, {"sort": "beauty"}, {"state": "lost"}, {"search": "x" * 999}],
)
def test_unusable_parameters_are_a_sentence(client, query):
    answer = client.get("/loco/page/queue", params=query)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("expected")


def test_a_pinned_image_is_first_and_says_by_whom(desk, client):
    with_model(desk)
    last = queue(client).entries[-1].image
    assert client.post("/loco/page/pin", json={"image": last, "client_id": "ann"}).json()["client"] == "ann"
    entry = queue(client).entries[0]
    assert (entry.image, entry.kind, entry.place) == (last, "pinned", 1)
    served = desk.strategy({"client_id": "bob"}, desk.studies)
    assert (served["id"], served["kind"]) == (last, "pinned")
    assert served["reason"] == entry.reason == "pinned by ann: wanted before all others"
    assert client.post("/loco/page/unpin", json={"image": last}).json()["image"] == last
    assert client.post("/loco/page/unpin", json={"image": last}).status_code == 404


def test_what_cannot_be_served_cannot_be_pinned(desk, client):
    submit(desk, "frame_000")
    groups = {"frame_001": "validation"}
    with desk.journal.write() as connection:
        connection.executemany("INSERT INTO splits VALUES (?, ?)", groups.items())
    for image, status in (("frame_000", 409), ("frame_001", 409), ("nobody", 404), ("", 400)):
        answer = client.post("/loco/page/pin", json={"image": image})
        assert (answer.status_code, isinstance(answer.json()["detail"], str)) == (status, True)
    assert desk.journal.pins() == []
