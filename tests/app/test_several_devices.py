"""MONAI Label's multi-GPU switch: its own way of starting processes, here on two "devices" that are both the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from app.running import app_on, submit
from monailabel.interfaces.utils.app import app_instance, clear_cache
from studies import write_frames

from lib.core.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def test_processes_are_started_train_together_and_publish(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 8)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text((ROOT / "apps/loco/main.py").read_text())
    clear_cache()
    conf = {"labels": "lesion", "epochs": "2", "iterations": "2"}
    app = app_instance(app_dir=str(tmp_path / "app"), studies=str(tmp_path / "studies"), conf=conf)
    for image in ids[:5]:
        app.datastore().save_label(image, str(tmp_path / "truth" / f"{image}.png"), "final", {"client_id": "ann"})
    trainer = sys.modules[type(app._trainers["frame"]).__module__]
    monkeypatch.setattr(trainer, "devices_of", lambda request: ["cpu", "cpu"])
    app.train({"model": "frame", "multi_gpu": True})

    stats = app.info()["train_stats"]["frame"]
    assert (stats["status"], stats["version"], stats["live"], stats["step"]) == ("done", 1, True, 4)
    assert stats["labelled"] + stats["validation"] == 5
    run = app._project.journal.last_run("frame")
    assert run.status == "done"
    assert len(app._project.journal.runs()) == 1
    folder = app._project.model("frame")
    assert load_checkpoint(folder.live).step == 4
    assert not folder.run.exists()
    assert len(list(app._project.cache.glob("*.npz"))) == stats["labelled"] + stats["unlabelled"]
    file, _ = [app.infer({"model": "frame", "image": ids[7], "device": "cpu"})[k] for k in ("file", "params")]
    assert Path(file).stat().st_size > 0


def test_a_method_for_one_process_is_refused_before_training(tmp_path, monkeypatch):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 2)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids[:1])
    trainer = sys.modules[type(app._trainers["frame"]).__module__]
    monkeypatch.setattr(trainer, "devices_of", lambda request: ["cpu", "cpu"])
    with pytest.raises(ValueError, match="expected one process for the method mccs, but got 2"):
        app.train({"model": "frame", "method": "mccs", "multi_gpu": True})
    assert app._project.journal.last_run("frame").status == "failed"


def test_the_number_of_processes_is_known_before_they_have_met(monkeypatch):
    from lib.trainers.ranks import processes_of

    assert processes_of({}) == processes_of({"devices": []}) == 1
    assert processes_of({"devices": ["cuda:0", "cuda:2", "cuda:3"]}) == 3
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes_of({"devices": []}) == 4


def test_without_two_gpus_there_is_one_process(caplog):
    from lib.trainers.ranks import devices_of

    assert devices_of({}) == devices_of({"multi_gpu": False, "gpus": "0,1"}) == []
    assert devices_of({"multi_gpu": True, "gpus": "0,1"}) == []
    assert "`multi_gpu` needs two GPUs" in caplog.text


@pytest.mark.parametrize(
    ("gpus", "devices"), [("all", ["cuda:0", "cuda:1", "cuda:2"]), ("0, 2", ["cuda:0", "cuda:2"]), ("1", [])]
)
def test_the_switch_names_devices(monkeypatch, gpus, devices):
    from lib.trainers.ranks import devices_of

    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert devices_of({"multi_gpu": "true", "gpus": gpus}) == devices


@pytest.mark.parametrize("gpus", ["0,3", "0,0", "0,x"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, gpus):
    from lib.trainers.ranks import devices_of

    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    with pytest.raises(ValueError, match="expected `gpus` to be all or different numbers from 0 to 2"):
        devices_of({"multi_gpu": True, "gpus": gpus})
