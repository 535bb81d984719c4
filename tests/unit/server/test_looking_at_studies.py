"""Looking at the studies before there is a model, on real files."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter
from studies import write_frames
from unit.helpers import spec_of

from lib.activelearning.board import Board
from lib.activelearning.next_image import NextImage
from lib.core.cases import PATIENT_PATTERN
from lib.server import coldstart
from lib.server.coldstart import ColdStart
from lib.server.folder import FolderStudies
from lib.store.journal import Journal
from lib.store.project import Project


@pytest.fixture
def studies(tmp_path):
    """24 frames of fine texture, of which one is blurred, one is almost white and one is black; and a file that is no picture."""
    root = tmp_path / "studies"
    write_frames(root, tmp_path / "truth", 24)
    random = np.random.default_rng(0)
    for path in sorted(root.glob("*.png")):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB")).astype(np.float32)
        grain = random.normal(size=pixels.shape[:2])[..., None]
        image = Image.fromarray((0.8 * pixels + 12 * grain + 20).clip(0, 255).astype(np.uint8))
        if path.stem == "frame_004":
            image = image.filter(ImageFilter.GaussianBlur(4))
        if path.stem == "frame_009":
            image = Image.fromarray((np.asarray(image).astype(int) + 230).clip(0, 255).astype(np.uint8))
        if path.stem == "frame_015":
            image = Image.new("RGB", image.size)
        image.save(path)
    (root / "frame_012.png").write_bytes(b"no picture")
    return root


def test_studies_that_come_later_are_described_too(tmp_path, monkeypatch):
    monkeypatch.setattr(coldstart, "_AGAIN_S", 0.01)
    (tmp_path / "studies").mkdir()
    project = Project(Journal(tmp_path / "studies/loco.sqlite"), tmp_path / "model" / "project")
    cold = ColdStart("frame", spec_of(), project, FolderStudies(tmp_path / "studies", project.journal))
    cold.start()
    try:
        for number in (1, 2):
            write_frames(tmp_path / f"from/{number}", tmp_path / "truth", number)
            for file in (tmp_path / f"from/{number}").glob("*.png"):
                shutil.copy(file, tmp_path / "studies" / f"{number}_{file.name}")
            ids = {p.stem for p in (tmp_path / "studies").glob("*.png")}
            deadline = time.monotonic() + 60
            while project.journal.scored_images("frame", 0) != ids and time.monotonic() < deadline:
                time.sleep(0.05)
            assert project.journal.scored_images("frame", 0) == ids
    finally:
        cold.stop()


def test_of_a_large_pool_a_sample_is_described(studies, tmp_path, monkeypatch):
    monkeypatch.setattr(coldstart, "MAX_STUDIES", 8)
    project = Project(Journal(studies / "loco.sqlite"), tmp_path / "model" / "project")
    cold = ColdStart("frame", spec_of(), project, FolderStudies(studies, project.journal))
    first = cold.look()
    described = project.journal.scored_images("frame", 0)
    assert first == 8
    assert described != set(sorted(FolderStudies(studies, project.journal).list_images())[:8]), (
        "of all, not the first ones"
    )
    assert sum(cold.look() for _ in range(3)) <= 8 - len(described), "another one in place of one that is no picture"
    assert cold.look() == 0


def test_every_readable_study_is_described_once_and_bad_ones_come_last(studies, tmp_path, caplog):
    project = Project(Journal(studies / "loco.sqlite"), tmp_path / "model" / "project")
    datastore = FolderStudies(studies, project.journal)
    spec = spec_of()
    datastore.attach(spec.labels, PATIENT_PATTERN)
    cold = ColdStart("frame", spec, project, datastore)
    assert cold.look() == 24
    assert "frame_012" in caplog.text
    described = [image for block in project.journal.score_blocks("frame", 0) for image in block.images]
    assert len(described) == len(set(described)) == 23
    assert cold.look() == 1, "only what could not be described is looked at again"
    strategy = NextImage("low_contrast", Board("frame", project, PATIENT_PATTERN, 1, 0), 0.1)
    replies = [strategy({"client_id": f"annotator {i}"}, datastore) for i in range(24)]
    assert sorted(reply["id"] for reply in replies) == sorted(datastore.list_images())
    last = {reply["id"]: reply["reason"] for reply in replies[-3:]}
    assert last == {
        "frame_004": "blurred: nothing else is left",
        "frame_009": "over-exposed: nothing else is left",
        "frame_015": "next to nothing to see: nothing else is left",
    }
