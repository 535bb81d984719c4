"""The watcher: what it starts, what it leaves alone, what it closes after a crash. Tasks are recorded, not run."""

import os
import subprocess
import sys

import pytest

from lib.server.retraining import Retraining, RetrainSettings
from lib.store.journal import Journal

NOW = 1_000_000.0


class Labels:
    """A datastore whose labels nobody changed behind the server's back."""

    def __init__(self):
        self.synced = 0
        self.images = ["a"]

    def list_images(self):
        return self.images

    def sync_journal(self):
        self.synced += 1
        return 0


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "loco.sqlite")


def watcher(journal, started, enabled=True):
    settings = RetrainSettings(enabled, after=2, idle_s=10.0)
    return Retraining("frame", journal, Labels(), settings, lambda *task: started.append(task))


def submit(journal, *images, now=NOW - 60):
    for image in images:
        journal.add_submission(image, image, f"{image}.png", "0" * 64, {"polyp": 1}, "ann", None, now)


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_starts_a_training_once_enough_labels_are_there(journal):
    started = []
    retraining = watcher(journal, started)
    submit(journal, "a")
    assert not retraining.tick(NOW).start
    assert retraining.waiting_for == "waiting for 1 more labels (1 of 2 are new)"
    submit(journal, "b")
    retraining.tick(NOW)
    assert [task[:2] for task in started] == [({"model": "frame", "reason": "2 new labels"}, "train")]
    assert retraining.tick(NOW).reason == "a training is running", "until MONAI Label says how it ended"


def test_a_scoring_pass_that_died_is_tried_again_but_not_for_ever(journal):
    started = []
    retraining = watcher(journal, started)
    for version, ends in ((1, ["ERROR"] * 5), (2, ["ERROR", "DONE", "ERROR"]), (3, ["STOPPED", "ERROR"])):
        journal.add_version("frame", "p", "s", None, 0.5, 1, {}, True, NOW)
        for status in ends:
            retraining.tick(NOW)
            request, kind, ended = started[-1]
            assert (request["model_version"], kind) == (version, "scoring")
            ended({"status": status})
    assert [task[0]["model_version"] for task in started] == [1, 1, 1, 2, 2, 3]


def test_a_spell_of_failures_is_logged_once(journal, monkeypatch, caplog):
    retraining = watcher(journal, [])
    ticks = iter([True, None, None, True, None])
    looked = []

    def tick(now):
        looked.append(now)
        if next(ticks) is None:
            raise OSError("full")

    monkeypatch.setattr(retraining, "tick", tick)
    monkeypatch.setattr(retraining, "_stop", type("Stop", (), {"wait": lambda self, s: len(looked) == 5})())
    retraining._watch()
    assert caplog.text.count("trying again") == 2


def test_switched_off_it_only_says_what_would_be_due(journal):
    started = []
    submit(journal, "a", "b")
    assert watcher(journal, started, enabled=False).tick(NOW).start
    assert started == []


def test_never_two_at_once_and_labels_of_the_meantime_start_the_next(journal):
    started = []
    retraining = watcher(journal, started)
    submit(journal, "a", "b")
    run = journal.start_run("frame", "2 new labels", journal.last_submission_id(), os.getpid(), 2e9)
    submit(journal, "c", "d")
    assert retraining.tick(NOW).reason == "a training is running"
    journal.finish_run(run, "done", "", NOW)
    retraining.tick(NOW)
    assert [task[0]["reason"] for task in started] == ["2 new labels"]


def test_a_run_whose_process_is_gone_is_closed_and_gone_on_with(journal):
    started = []
    submit(journal, "a", "b")
    run = journal.start_run("frame", "2 new labels", journal.last_submission_id(), dead_pid(), NOW)
    watcher(journal, started).tick(NOW)
    assert (journal.last_run().id, journal.last_run().status) == (run, "interrupted")
    assert [task[0]["reason"] for task in started] == ["going on with the interrupted training"]


def test_an_interrupted_training_goes_on_with_the_options_it_was_started_with(journal):
    started = []
    submit(journal, "a", "b")
    journal.keep_options("frame", {"max_epochs": 7, "method": "fixmatch"})
    retraining = watcher(journal, started)
    journal.start_run("frame", "started by hand", journal.last_submission_id(), dead_pid(), NOW)
    retraining.tick(NOW)
    assert started[0][0] == {
        "model": "frame", "reason": "going on with the interrupted training", "max_epochs": 7, "method": "fixmatch",
    }  # fmt: skip
    started[0][2]({"status": "DONE"})
    journal.finish_run(journal.start_run("frame", "x", 2, os.getpid(), NOW), "done", "", NOW)
    submit(journal, "c", "d")
    retraining.tick(NOW)
    assert started[1][0] == {"model": "frame", "reason": "2 new labels"}, "a new one has the server's own"


def test_a_new_live_model_is_scored_once(journal):
    started = []
    retraining = watcher(journal, started)
    for _ in range(2):
        journal.add_version("frame", "live.pt", "0" * 64, None, 0.5, 3, {}, True, NOW)
        retraining.tick(NOW)
        retraining.tick(NOW)
    scoring = [task for task in started if task[1] == "scoring"]
    assert [task[0]["model_version"] for task in scoring] == [1, 2]


def test_studies_that_come_later_are_scored_by_the_model_that_serves(journal):
    started = []
    retraining = watcher(journal, started)
    journal.add_version("frame", "live.pt", "0" * 64, None, 0.5, 3, {}, True, NOW)
    for images in (["a"], ["a", "b"], ["b"]):
        retraining._datastore.images = images
        for _ in range(20):
            retraining.tick(NOW)
    assert len(started) == 2, "when it went live, and when b came"


def test_labels_in_the_folder_are_looked_for_now_and_then(journal):
    retraining = watcher(journal, [])
    for _ in range(16):
        retraining.tick(NOW)
    assert retraining._datastore.synced == 2


@pytest.mark.parametrize(("status", "journalled"), [("STOPPED", "stopped"), ("ERROR", "failed")])
def test_a_training_that_ends_before_it_began_is_not_started_again_at_once(journal, status, journalled, monkeypatch):
    monkeypatch.setattr("lib.server.retraining.time.time", lambda: NOW)
    started = []
    retraining = watcher(journal, started)
    submit(journal, "a", "b")
    retraining.tick(NOW)
    callback = started[0][2]
    callback({"status": status})
    assert (journal.last_run().status, journal.last_run().last_submission) == (journalled, 2)
    assert not retraining.tick(NOW).start


def test_a_training_that_opened_its_run_speaks_for_itself(journal):
    started = []
    submit(journal, "a", "b")
    watcher(journal, started).tick(NOW)
    run = journal.start_run("frame", "2 new labels", 2, dead_pid(), NOW)
    started[0][2]({"status": "STOPPED"})
    assert [r.id for r in journal.runs()] == [run]


def test_labels_are_read_when_one_came_or_went(journal, monkeypatch):
    retraining, read = watcher(journal, []), []
    submissions = journal.submissions
    monkeypatch.setattr(journal, "submissions", lambda *of: read.append(of) or submissions(*of))
    retraining.tick(NOW)
    retraining.tick(NOW + 1)
    assert len(read) == 1
    submit(journal, "a")
    assert retraining.tick(NOW + 2).reason == "waiting for 1 more labels (1 of 2 are new)"
    journal.mark_removed("a", NOW + 3)
    assert retraining.tick(NOW + 4).reason == "waiting for the first label"
    assert len(read) == 3
