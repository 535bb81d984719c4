"""The app as MONAI Label loads it, in this process, and what is done with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from monailabel.interfaces.utils.app import app_instance, clear_cache

ROOT = Path(__file__).resolve().parents[2]


def app_on(root: Path, studies: Path, **conf: object):
    """The app as MONAI Label loads it, with a model folder of its own."""
    app_dir = root / "app"
    if not app_dir.exists():
        shutil.copytree(ROOT / "apps/loco", app_dir, ignore=shutil.ignore_patterns("model", "logs", "__pycache__"))
    clear_cache()
    settings = {"labels": "lesion", "epochs": "1", "iterations": "2", **{k: str(v) for k, v in conf.items()}}
    return app_instance(app_dir=str(app_dir), studies=str(studies), conf=settings)


def submit(app, truth: Path, ids: list[str]) -> None:
    """Save truth labels as the endpoint does."""
    for image_id in ids:
        file = next(truth.glob(f"{image_id}.*"))
        app.datastore().save_label(image_id, str(file), "final", {"client_id": "ann"})


def train(app, **request: object) -> dict:
    """Run one training in this process; returns train_stats."""
    name = app._task.name
    app.train({"model": name, **request})
    return app.info()["train_stats"][name]


def infer(app, image_id: str, **request: object) -> tuple[str, dict]:
    """File and parameters of one inference."""
    reply = app.infer({"model": app._task.name, "image": image_id, "device": "cpu", **request})
    return reply["file"], reply["params"]


def with_milestones(app, change) -> None:
    """Let `change(milestones, context)` alter what happens along each training from now on."""
    trainer = app._trainers[app._task.name]
    original = trainer.milestones

    def changed(context):
        milestones = original(context)
        change(milestones, context)
        return milestones

    trainer.milestones = changed


def stopped_after_the_first_epoch(app) -> list[int]:
    """Stop a training after its first epoch; the numbers of its epochs and of those of later trainings."""
    epochs = []

    def stopping(milestones, context):
        done = milestones.epoch_done

        def epoch_done():
            done()
            epochs.append(app._trainers[app._task.name]._state.first_epoch + context.trainer.state.epoch)
            if len(epochs) == 1:
                raise KeyboardInterrupt

        milestones.epoch_done = epoch_done

    with_milestones(app, stopping)
    with pytest.raises(KeyboardInterrupt):
        train(app)
    return epochs
