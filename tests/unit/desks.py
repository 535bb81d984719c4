"""A running app without its server: real studies, journal, board and strategies, for tests of the page."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from studies import write_frames, write_volumes
from unit.helpers import SLICE, Threshold, spec_of

from lib.activelearning.board import Board
from lib.activelearning.next_image import NextImage
from lib.core.cases import PATIENT_PATTERN
from lib.core.checkpoint import Checkpoint, save_checkpoint
from lib.infers.segmentation import LiveModel, Segmentation
from lib.server.errors import handlers
from lib.server.folder import FolderStudies
from lib.server.page.desk import Desk
from lib.server.page.routers import page_routers
from lib.server.retraining import Retraining, RetrainSettings
from lib.server.viewer import Viewer
from lib.store.journal import Journal
from lib.store.project import Project
from lib.store.records import Score

TERMS = ("threshold_deficit", "margin", "feature_contrast")


class Seeing(Segmentation):
    """Finds the bright lesions of the generated studies; which version does so is what the journal calls live."""

    def live(self, device):
        checkpoint = Checkpoint(self.spec, {}, {}, version=self.journal.live_version(self.name).version)
        return LiveModel(checkpoint, SimpleNamespace(teacher=Threshold()), 0)


def open_desk(root, count=12, kind="frame", network=None):
    """A desk over `count` generated studies; `network`: weights whose state dict is kept as version files, else empty ones."""
    studies, truth = root / "studies", root / "truth"
    if kind == "frame":
        write_frames(studies, truth, count)
    else:
        write_volumes(studies, truth, count, (24, 20, 6), (1.0, 1.0, 6.0))
    spec = spec_of() if kind == "frame" else spec_of(replace(SLICE))
    project = Project(Journal(studies / "loco.sqlite"), root / "model" / "project")
    datastore = FolderStudies(studies, project.journal)
    datastore.attach(spec.labels, PATIENT_PATTERN)
    board = Board(kind, project, PATIENT_PATTERN, 1, 0)
    segmentation = Seeing(kind, spec, project.model(kind))
    segmentation.name, segmentation.spec, segmentation.journal = kind, spec, project.journal
    return Desk(
        spec=spec,
        project=project,
        studies=datastore,
        viewer=Viewer(datastore, str(studies), "project", dict(spec.labels), PATIENT_PATTERN),
        board=board,
        strategy=NextImage("low_contrast", board, 0.5),
        strategy_name="low_contrast",
        segmentation=segmentation,
        retraining=Retraining(kind, project.journal, datastore, RetrainSettings(True, 5, 10.0), lambda *task: {}),
    )


def client_of(desk):
    """A client of the page's routes, errors answered as the server does."""
    app = FastAPI(exception_handlers=handlers())
    for router in page_routers(desk, str(desk.studies)):
        app.include_router(router)
    return TestClient(app)


def submit(desk, image, client="ann", version=None):
    """Submit the truth of a study."""
    (truth,) = (desk.journal.path.parents[1] / "truth").glob(f"{image}.*")
    info = {"client_id": client, **({"model_version": version} if version else {})}
    desk.studies.save_label(image, str(truth), "final", info)


def publish(desk, cases=None, labels=10, dice=None, live=True, spec=None, weights=None, method="loco"):
    """A version with its file, its run and its Dice by case; the file is a checkpoint that is whole."""
    journal, model = desk.journal, desk.model
    run = journal.start_run(model, "new labels", journal.last_submission_id(), 1, time.time())
    journal.update_run(run, {"labelled": labels, "validation": 0, "method": method, "network": "tiny"}, time.time())
    journal.finish_run(run, "done", "", time.time())
    number = len(journal.versions(model)) + 1
    checkpoint = Checkpoint(spec or desk.spec, weights or {}, weights or {}, version=number)
    for path in (desk.folder.version(number), *([desk.folder.live] if live else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(checkpoint, path)
    cases = {image: {"polyp": value} for image, value in (cases or {}).items()}
    mean = dice if dice is not None else (float(np.mean([c["polyp"] for c in cases.values()])) if cases else None)
    details = {"reason": "because", "per_class": {"polyp": mean} if mean is not None else {}, "cases": cases}
    path = str(desk.folder.version(number))
    return journal.add_version(model, path, "f" * 64, run, mean, len(cases), details, live, time.time())


def score(desk, version, seed=0):
    """Random scores of all studies by a version, two thirds of them present."""
    rng, rows = np.random.default_rng(seed), []
    for number, image in enumerate(desk.studies.list_images()):
        names = TERMS if number % 3 else ("feature_contrast", "peak")
        state = "present" if number % 3 else "absent"
        terms = {f"polyp/{state}/{name}": float(rng.random()) for name in names}
        rows.append(Score(image, terms, rng.normal(size=6).astype(np.float16).tobytes()))
    desk.journal.put_scores(desk.model, version, rows, time.time())


def with_model(desk, labelled=4):
    """A live model that is usable and has scored all studies."""
    for image in desk.studies.list_images()[:labelled]:
        submit(desk, image)
    score(desk, publish(desk, {"a": 0.8, "b": 0.9, "c": 0.7}))


def skip(desk, image, reason="later", client="ann"):
    desk.journal.add_skip(image, client, reason, time.time(), reason in ("unreadable", "irrelevant", "duplicate"))
