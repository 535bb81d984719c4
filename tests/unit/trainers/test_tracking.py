import logging

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.core.cases import Case, Record
from lib.core.predict import Prediction
from lib.trainers import tracking as module
from lib.trainers.milestones import Drawn
from lib.trainers.places import MlflowPlace, TensorBoardPlace
from lib.trainers.tracking import Tracking, curves, tracking_address, tracking_choices


class Unwell:
    """A place that fails after its first numbers."""

    def __init__(self):
        self.calls = []

    def scalars(self, values, step):
        self.calls.append(step)
        if step > 1:
            raise OSError("No space left on device\nand more")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlruns.db'}"


def opened(address, project="p", going_on=False):
    return MlflowPlace(address, "frame", "run_1", project, going_on)


def statuses(address):
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("frame").experiment_id
    return {r.info.run_id: r.info.status for r in client.search_runs([experiment])}


def test_a_place_that_fails_is_left_out_with_one_sentence(tmp_path, caplog):
    unwell = Unwell()
    follow = Tracking({"MLflow": lambda: unwell, "TensorBoard": lambda: TensorBoardPlace(tmp_path)})
    for step in (1, 2, 3):
        follow.scalars({"train/loss": 1.0 / step}, step)
    follow.close("done")
    assert unwell.calls == [1, 2]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "The training goes on without MLflow, which failed (OSError: No space left on device)"
    ]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [s.step for s in events.Scalars("train/loss")] == [1, 2, 3]


def test_a_place_that_cannot_be_opened_is_left_out(tmp_path, caplog):
    (tmp_path / "file").touch()
    follow = Tracking({"TensorBoard": lambda: TensorBoardPlace(tmp_path / "file" / "events")})
    follow.scalars({"train/loss": 1.0}, 1)
    follow.pictures({"a": np.zeros((4, 4, 3), np.uint8)}, 1)
    assert caplog.text.count("The training goes on without TensorBoard") == 1


def test_a_stopped_run_is_gone_on_with_and_one_that_nobody_goes_on_with_is_closed(address):
    first = opened(address)
    first.facts({"seed": 1})
    first.scalars({"train/loss": 2.0}, 1)
    first.close("interrupted", {})
    again = opened(address, going_on=True)
    again.facts({"seed": 1, "method": "loco"})
    again.scalars({"train/loss": 1.0}, 2)
    again.close("done", {"version": 3})
    (run,) = statuses(address)
    client = MlflowClient(address)
    assert [(m.step, m.value) for m in client.get_metric_history(run, "train/loss")] == [(1, 2.0), (2, 1.0)]
    data = client.get_run(run).data
    assert data.params == {"seed": "1", "method": "loco"}
    assert data.tags["loco.version"] == "3"
    assert statuses(address) == {run: "FINISHED"}

    left = opened(address)._run
    other = opened(address, project="q")._run
    failed = opened(address)
    failed.close("failed", {})
    assert statuses(address) == {run: "FINISHED", left: "KILLED", other: "RUNNING", failed._run: "FAILED"}


def test_names_and_many_numbers(address):
    place = opened(address, project="names")
    for step in range(1100):
        place.scalars({"validation/dice_lesion (é, #1)": step / 1100}, step)
    place.picture("a#b.1", np.zeros((4, 6, 3), np.uint8), 7)
    place.close("done", {})
    client = MlflowClient(address)
    history = client.get_metric_history(place._run, "validation/dice_lesion _é_ _1_")
    assert sorted(m.step for m in history) == list(range(1100))
    assert [a.path for a in client.list_artifacts(place._run, "images") if "cases" in a.path and "a_b.1" in a.path]


def test_thresholds_are_named_by_class():
    assert curves({"loss": 1.0}, [], {"a": 1}) == {"train/loss": 1.0}
    named = {"threshold/background": 0.5, "threshold/b": 0.6, "threshold/a": 0.8}
    assert curves({}, [0.5, 0.6, 0.7, 0.8], {"a": 3, "b": 1}) == named, "numbers of classes may have gaps"


def test_the_address_is_monai_labels_then_mlflows_then_a_file_of_the_model(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_address(tmp_path) == f"sqlite:///{tmp_path}/mlruns.db"
    assert tracking_choices()[0] == "None"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    assert tracking_address(tmp_path) == "http://mlflow.example"
    monkeypatch.setattr(module.settings, "MONAI_LABEL_TRACKING_URI", "http://own.example")
    assert tracking_address(tmp_path) == "http://own.example"
    assert tracking_choices()[0] == "mlflow"
    monkeypatch.setattr(module.settings, "MONAI_LABEL_TRACKING_ENABLED", False)
    assert tracking_choices()[0] == "None"


def test_at_most_four_cases_are_drawn_and_one_that_cannot_be_is_left_out(caplog):
    drawn, probs = Drawn(), torch.zeros(2, 8, 8)
    for number in range(6):
        label = None if number == 1 else torch.zeros(1, 8, 8, dtype=torch.uint8)
        case = Case(torch.zeros(3, 8, 8), label, None)
        drawn(Record(f"c{number}", "", None, ""), case, Prediction(probs, None))
    assert list(drawn.pictures) == ["c0", "c2", "c3", "c4"]
    assert caplog.text.count("A validation case is not drawn") == 1
