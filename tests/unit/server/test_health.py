import os

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib.server import health
from lib.server.health import health_router
from lib.store.journal import Journal, JournalError
from lib.store.project import ModelFolder
from lib.store.records import SegRow


@pytest.fixture
def server(tmp_path):
    journal = Journal(tmp_path / "loco.sqlite")
    folder = ModelFolder(tmp_path)
    app = FastAPI()
    app.include_router(health_router("frame", journal, folder, str(tmp_path)))
    return TestClient(app), journal, folder


def test_a_new_server_is_well(server):
    client, _, _ = server
    found = client.get("/loco/health").json()
    assert (found["status"], found["reasons"], found["live_version"], found["training"]) == ("ok", [], None, "none")


def test_a_failed_training_and_a_missing_model_are_warnings_without_names(server):
    client, journal, folder = server
    journal.add_submission("Mustermann_Erika", "p", "l", "s", {}, "Dr. Who", None, 1.0)
    journal.add_version("frame", "p", "s", None, 0.5, 1, {}, True, 1.0)
    run = journal.start_run("frame", "why", 1, os.getpid(), 1.0)
    journal.finish_run(run, "failed", "CaseError: Mustermann_Erika.png: expected a picture", 2.0)
    answer = client.get("/loco/health")
    found = answer.json()
    assert (answer.status_code, found["status"]) == (200, "warning")
    assert found["reasons"] == ["the last training failed", "the file of the live model is missing"]
    assert (found["last_error"], found["labelled"], found["live_version"]) == ("CaseError", 1, 1)
    assert "Mustermann" not in answer.text
    assert "Who" not in answer.text
    folder.live.write_bytes(b"x")
    assert client.get("/loco/health").json()["reasons"] == ["the last training failed"]


def test_labels_that_the_pacs_did_not_take_are_a_warning(server):
    client, journal, _ = server
    journal.put_seg(SegRow("pending a", "", "a", "pending", "", 1.0))
    found = client.get("/loco/health").json()
    assert (found["status"], found["reasons"]) == ("warning", ["1 labels are kept here and not in the PACS yet"])


def test_little_room_is_a_warning(server, monkeypatch):
    client, _, _ = server
    monkeypatch.setattr(health, "LOW_DISK_BYTES", 2**70)
    assert "MB of disk are free" in client.get("/loco/health").json()["reasons"][0]


def test_a_journal_that_cannot_be_written_is_an_error(server, monkeypatch):
    client, journal, _ = server

    def fail(*_):
        raise JournalError("x")

    monkeypatch.setattr(journal, "set", fail)
    answer = client.get("/loco/health")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the journal cannot be written"])
