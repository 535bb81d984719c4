"""The JSON behind the page, over real state: nothing here is made up but the numbers of the scores."""

import time
from datetime import date

import pytest
from unit.desks import client_of, open_desk, publish, skip, submit

from lib.server.page import changes, versions
from lib.server.page.learning import common_cases
from lib.store.records import Version


@pytest.fixture
def desk(tmp_path):
    return open_desk(tmp_path)


@pytest.fixture
def client(desk):
    return client_of(desk)


# --- how far


def test_every_study_is_counted_once(desk, client):
    images = desk.studies.list_images()
    desk.journal.assign_splits(["frame_000", "frame_001", "frame_002"], 0.9, 0)
    aside = sum(side == "validation" for side in desk.journal.splits().values())
    for image in images[3:5]:
        submit(desk, image)
    assert desk.strategy({"client_id": "bob"}, desk.studies)
    skip(desk, images[-1], "unreadable")
    found = client.get("/loco/page/summary").json()
    assert aside == 2
    assert (found["total"], found["labelled"], found["set_aside"], found["left"]) == (12, 2, 2, 8)
    assert [lease["client"] for lease in found["leased"]] == ["bob"]
    assert found["leased"][0]["until"] > found["now"]
    assert [(g["reason"], g["count"], g["images"][0]["image"]) for g in found["skipped"]] == [
        ("unreadable", 1, images[-1])
    ]
    assert found["per_day"] == [{"day": date.today().isoformat(), "labels": 2, "images": 2}]
    assert found["rights"] == {"user": "", "login": False, "write": True, "admin": True}
    assert found["classes"][0]["name"] == "polyp"


def test_a_held_image_is_not_counted_as_skipped_and_a_labelled_one_neither(desk, client):
    held = desk.strategy({"client_id": "bob"}, desk.studies)["id"]
    other = next(i for i in desk.studies.list_images() if i != held)
    skip(desk, held)
    skip(desk, other)
    submit(desk, other)
    assert client.get("/loco/page/summary").json()["skipped"] == []


def test_minutes_per_label_come_from_serving_and_submitting(desk, client):
    now = time.time()
    for minutes in (2, 4, 9):
        served = desk.strategy({"client_id": "ann"}, desk.studies)["id"]
        with desk.journal.write() as connection:
            connection.execute("UPDATE picks SET ts = ? WHERE image = ?", (now - 60 * minutes, served))
        submit(desk, served)
    found = client.get("/loco/page/summary").json()["effort"]
    assert found["timed"] == 3
    assert found["minutes_per_label"] == pytest.approx(4, abs=0.5)
    assert found["labels"] is None
    assert found["minutes"] is None
    assert "there are 0" in found["sentence"]


def test_retraining_says_what_it_waits_for(desk, client):
    submit(desk, "frame_000")
    desk.retraining.tick(time.time())
    found = client.get("/loco/page/summary").json()["retraining"]
    assert (found["new_labels"], found["wanted_labels"], found["enabled"]) == (1, 5, True)
    assert found["waiting_for"] == "waiting for 4 more labels (1 of 5 are new)"


# --- is it learning


def test_versions_are_compared_on_the_cases_they_share(desk, client):
    publish(desk, {"a": 0.2, "b": 0.4, "c": 0.6}, labels=4)
    publish(desk, {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.0}, labels=8)
    found = client.get("/loco/page/learning").json()
    assert found["common_cases"] == 3
    assert [(v["labels"], v["comparable"], v["cases"]) for v in found["versions"]] == [(4, True, 3), (8, True, 3)]
    assert [v["dice"] for v in found["versions"]] == pytest.approx([0.4, 0.6]), "without d, which only the second saw"
    assert found["versions"][1]["per_class"]["polyp"] == pytest.approx({"mean": 0.6, "sd": 0.1, "cases": 3})
    assert "2 versions on the same 3 validation cases" in found["sentence"]


def version_with(*cases):
    details = {"cases": {case: {"polyp": 0.5} for case in cases}}
    return Version("frame", 1, "", "", None, 0.5, len(cases), details, False, 0.0)


def test_an_old_version_on_few_cases_does_not_take_the_others_their_cases():
    old, newer, newest = version_with("a", "b", "c"), version_with(*"abcdefg"), version_with(*"abcdefgh")
    assert common_cases([old, newer, newest]) == set("abcdefg")
    assert common_cases([old, version_with(*"abcd")]) == set("abc")
    assert common_cases([newest]) == frozenset()
    assert common_cases([version_with("a", "b"), version_with("a", "b")]) == frozenset(), "too few to tell them apart"


def test_a_version_that_was_measured_on_nothing_is_shown_as_it_is(desk, client):
    publish(desk)
    (version,) = client.get("/loco/page/learning").json()["versions"]
    assert (version["dice"], version["comparable"], version["per_class"]) == (None, False, {})


def test_the_training_shows_terms_thresholds_and_its_curve(desk, client):
    run = desk.journal.start_run("frame", "5 new labels", 0, 1, time.time())
    progress = {
        "method": "loco", "network": "n", "epoch": 2, "total_epochs": 4, "step": 6, "total_steps": 12, "labelled": 5,
        "unlabelled": 9, "validation": 3, "best_metric": 0.5, "seconds_left": 30.5, "thresholds": {"polyp": 0.8},
        "train": {"metrics": {"loss_sup": 1.5, "mask_ratio": 0.25}}, "history": [{"step": 3, "loss_sup": float("nan")}],
    }  # fmt: skip
    desk.journal.update_run(run, progress, time.time())
    found = client.get("/loco/page/learning").json()["training"]
    assert (found["status"], found["step"], found["steps"], found["seconds_left"]) == ("running", 6, 12, 30.5)
    assert (found["terms"], found["mask_ratio"], found["thresholds"]) == ({"loss_sup": 1.5}, 0.25, {"polyp": 0.8})
    assert found["history"] == [{"step": 3, "terms": {"loss_sup": None}}]
    desk.journal.finish_run(run, "failed", "no room", time.time())
    assert client.get("/loco/page/learning").json()["training"]["seconds_left"] is None


# --- models


def test_rolling_back_serves_the_older_file(desk, client):
    publish(desk, {"a": 0.5})
    publish(desk, {"a": 0.9})
    found = client.get("/loco/page/models").json()
    assert [(v["version"], v["live"], v["can_go_live"]) for v in found["versions"]] == [
        (2, True, False),
        (1, False, True),
    ]
    assert found["versions"][0]["size_bytes"] == desk.folder.version(2).stat().st_size
    assert client.post("/loco/page/models/1/live").json()["live"] is True
    assert desk.journal.live_version("frame").version == 1
    assert desk.folder.live.read_bytes() == desk.folder.version(1).read_bytes()


def test_a_version_without_its_file_cannot_serve_and_the_live_one_goes_on(desk, client):
    publish(desk)
    publish(desk)
    desk.folder.version(1).unlink()
    answer = client.post("/loco/page/models/1/live")
    assert (answer.status_code, desk.journal.live_version("frame").version) == (409, 2)
    assert client.get("/loco/page/models").json()["versions"][1]["can_go_live"] is False
    assert client.post("/loco/page/models/9/live").status_code == 404
    assert client.post("/loco/page/models/0/live").status_code == 400
    assert client.post("/loco/page/models/1/bundle").status_code == 409
    assert client.get("/loco/page/models/1/bundle.zip").status_code == 404


def test_an_export_that_fails_says_why_and_can_be_tried_again(desk, client, monkeypatch, tmp_path):
    command = tmp_path / "export.py"
    monkeypatch.setattr(versions, "EXPORT", command)
    version = publish(desk)
    command.write_text("import sys; sys.exit('Not exported: expected room on the disk, but it is full')")
    assert client.post(f"/loco/page/models/{version}/bundle").json()["state"] in ("waiting", "running")
    found = wait_for(client, version)
    assert (found["state"], found["href"]) == ("failed", None)
    assert found["detail"] == "expected room on the disk, but it is full"
    command.write_text(
        "import sys; from pathlib import Path; a = sys.argv\n"
        "assert '--zip' in a and a[a.index('--version') + 1] == '1'\n"
        "Path(a[a.index('--to') + 1], a[a.index('--name') + 1] + '.zip').write_bytes(b'archive')"
    )
    assert client.post(f"/loco/page/models/{version}/bundle").status_code == 202
    found = wait_for(client, version)
    assert (found["state"], found["size_bytes"]) == ("ready", 7)
    assert client.get(found["href"]).content == b"archive"


def wait_for(client, version):
    limit = time.monotonic() + 300
    while time.monotonic() < limit:
        found = client.get(f"/loco/page/models/{version}/bundle").json()
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.2)
    raise AssertionError("the export did not end")


# --- changes


def test_a_panel_is_marked_when_something_in_it_changes(desk, client, monkeypatch):
    monkeypatch.setattr(changes, "_FRESH_S", -1.0)

    def changed(act):
        before = client.get("/loco/page/changes").json()
        act()
        after = client.get("/loco/page/changes").json()
        return {name for name in before if before[name] != after[name]}

    assert changed(lambda: None) == set()
    assert changed(lambda: desk.journal.pin("frame_003", "ann", time.time())) == {"summary", "queue"}
    assert changed(lambda: desk.strategy({"client_id": "ann"}, desk.studies)) == {"summary", "queue"}
    assert changed(lambda: submit(desk, "frame_000")) == {"summary", "queue", "submissions"}
    assert changed(lambda: publish(desk)) == {"summary", "learning", "queue", "submissions", "models"}
    run = desk.journal.start_run("frame", "why", 0, 1, time.time())
    assert changed(lambda: desk.journal.update_run(run, {"step": 1}, time.time() + 1)) == {"learning"}


def test_nothing_is_sent_twice(client):
    first = client.get("/loco/page/changes")
    again = client.get("/loco/page/changes", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
