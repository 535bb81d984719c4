"""A real training, read back from TensorBoard's event files and from MLflow's database."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from monailabel.interfaces.utils.app import app_instance, clear_cache
from PIL import Image
from studies import write_frames
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[2]
TERMS = {"loss", "loss_sup", "loss_unsup", "loss_contrast", "mask_ratio", "learning_rate"}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The app, its model folder and its studies after a training with MLflow on: 2 epochs of 2 steps."""
    root = tmp_path_factory.mktemp("followed")
    ids = write_frames(root / "studies", root / "truth", 8)
    (root / "app").mkdir()
    (root / "app" / "main.py").write_text((ROOT / "apps/loco/main.py").read_text())
    clear_cache()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        conf = {"labels": "lesion", "epochs": "2", "iterations": "2"}
        app = app_instance(app_dir=str(root / "app"), studies=str(root / "studies"), conf=conf)
        for image in ids[:6]:
            app.datastore().save_label(image, str(root / "truth" / f"{image}.png"), "final", {"client_id": "ann"})
        app.train({"model": "frame", "tracking": ["mlflow"]})
        yield app, app._project.model("frame"), root
    torch.set_num_threads(threads)


def events_of(folder):
    (events,) = folder.root.glob("train/events_*")
    return EventAccumulator(str(events), {"images": 0, "scalars": 0, "tensors": 0}).Reload()


def history(events):
    """(step, value) of each curve."""
    return {tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def run_of(folder):
    client = MlflowClient(f"sqlite:///{folder.root / 'mlruns.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("frame").experiment_id])
    return client, run


def test_tensorboard_holds_each_term_each_step_and_dice_each_epoch(followed):
    app, folder, _ = followed
    curves = history(events_of(folder))
    every_step = {f"train/{t}" for t in TERMS} | {"threshold/background", "threshold/lesion"}
    assert every_step <= curves.keys()
    for tag in every_step:
        assert [s for s, _ in curves[tag]] == [1, 2, 3, 4], tag
    assert [s for s, _ in curves["validation/mean_dice"]] == [2, 4]
    stats = app.info()["train_stats"]["frame"]
    assert curves["validation/dice_lesion"][-1][1] == pytest.approx(stats["eval"]["metrics"]["val_dice_lesion"])
    assert curves["train/loss"][-1][1] == pytest.approx(stats["train"]["metrics"]["loss"])
    assert 0 <= curves["train/mask_ratio"][0][1] <= 1


def test_pictures_show_the_label_of_validation_cases(followed):
    app, folder, root = followed
    events = events_of(folder)
    held_out = sorted(tag.removeprefix("cases/") for tag in events.Tags()["images"])
    assert held_out == sorted(g for g, side in app._project.journal.splits().items() if side == "validation")
    shown = events.Images(f"cases/{held_out[0]}")
    assert {image.step for image in shown} <= {2, 4}
    picture = np.asarray(Image.open(io.BytesIO(shown[-1].encoded_image_string)))
    truth = np.asarray(Image.open(root / "truth" / f"{held_out[0]}.png"))
    scale = picture.shape[0] // truth.shape[0]
    assert picture.shape == (truth.shape[0] * scale, truth.shape[1] * scale, 3)
    drawn = (picture == (86, 180, 233)).all(-1) | (picture == (255, 255, 255)).all(-1)
    rows, columns = np.argwhere(truth).T
    expected = (
        rows.min() * scale,
        rows.max() * scale + scale - 1,
        columns.min() * scale,
        columns.max() * scale + scale - 1,
    )
    rows, columns = np.argwhere(drawn).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == expected


def test_mlflow_holds_the_same_and_says_what_became_of_it(followed):
    _, folder, _ = followed
    client, run = run_of(folder)
    events = events_of(folder)
    curves = history(events)
    for tag, expected in curves.items():
        kept = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, tag))
        assert np.array(kept) == pytest.approx(np.array(expected)), tag
    assert set(run.data.metrics) == set(curves)
    assert run.info.status == "FINISHED"
    assert (run.data.tags["loco.version"], run.data.tags["loco.live"]) == ("1", "True")
    assert (run.data.params["method"], run.data.params["labels"], run.data.params["steps"]) == ("loco", "lesion", "4")
    pictures = [a.path for a in client.list_artifacts(run.info.run_id, "images") if a.path.endswith(".png")]
    assert len(pictures) == sum(len(events.Images(tag)) for tag in events.Tags()["images"])


def test_a_training_is_done_when_the_tracking_server_is_gone(followed, monkeypatch, caplog):
    app, folder, _ = followed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    app.train({"model": "frame", "tracking": "mlflow", "max_epochs": 1, "iterations_per_epoch": 1})
    assert app.info()["train_stats"]["frame"]["status"] == "done"
    assert caplog.text.count("The training goes on without MLflow, which failed") == 1
    assert len(list(folder.root.glob("train/events_*"))) == 2


def test_a_training_that_fails_is_marked_as_failed(followed, monkeypatch):
    app, folder, _ = followed
    monkeypatch.setattr(app._trainers["frame"], "train_iteration_update", lambda context: _failing)
    with pytest.raises(RuntimeError, match="the device went away"):
        app.train({"model": "frame", "tracking": "mlflow"})
    client = MlflowClient(f"sqlite:///{folder.root / 'mlruns.db'}")
    runs = client.search_runs([client.get_experiment_by_name("frame").experiment_id])
    assert sorted(r.info.status for r in runs) == ["FAILED", "FINISHED"]


def _failing(engine, batch):
    raise RuntimeError("the device went away")
