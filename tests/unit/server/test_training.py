"""A stop that a start follows at once is the auto-update of 3D Slicer; alone it is meant."""

import threading

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.utils.async_tasks import utils

from lib.server import training


@pytest.fixture
def stopped(monkeypatch):
    """A training that seems to run; the event is set when it is killed."""
    event = threading.Event()
    task = {"id": "1", "status": "RUNNING"}
    monkeypatch.setitem(utils.background_tasks, "train", [task])
    monkeypatch.setitem(utils.background_processes, "train", {"1": object()})
    monkeypatch.setattr(training.train, "stop", lambda: event.set())
    monkeypatch.setattr(training.checks, "train_one", lambda asked: asked)
    monkeypatch.setattr(training.train, "run_model", lambda *args: {"started": args[0]})
    return event


def client(grace_s: float) -> TestClient:
    app = FastAPI()
    app.include_router(training.training_router(training.Stopping(grace_s)))
    return TestClient(app)


def test_a_stop_alone_is_carried_out(stopped):
    assert client(0.01).delete("/train/").json()["status"] == "RUNNING"
    assert stopped.wait(5)


def test_a_start_right_after_a_stop_lets_the_training_go_on(stopped):
    viewer = client(3600)
    viewer.delete("/train/")
    assert viewer.post("/train/frame", json={}).json() == {"id": "1", "status": "RUNNING"}
    assert not stopped.is_set()
    assert viewer.post("/train/frame", json={}).json() == {"started": "frame"}, "a start alone goes to MONAI Label"


def test_nothing_to_stop(stopped, monkeypatch):
    monkeypatch.setitem(utils.background_processes, "train", {})
    assert client(0.01).delete("/train/").json() is None
