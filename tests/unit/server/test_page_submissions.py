"""What came back against what the model had drawn."""

from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from unit.desks import client_of, open_desk, publish, submit

from lib.core.cases import load_case
from lib.core.checkpoint import load_checkpoint, restore_network
from lib.core.networks import build_network
from lib.core.predict import predict
from lib.server.page.comparing import Comparing

PATIENCE_S = 300


@pytest.fixture
def desk(tmp_path):
    return open_desk(tmp_path, 4)


def compared(desk, *ids):
    """Results of these submissions once they are there."""
    comparing = Comparing(desk)
    comparing.ask(desk.journal.submission(id) for id in ids)
    assert comparing.wait(PATIENCE_S)
    return [desk.journal.comparisons([id])[id] for id in ids]


def draft(desk, image, shift, version):
    """Store the truth, moved to the right, as the draft of a version. Returns how many pixels that changes."""
    path = desk.journal.path.parents[1] / "truth" / f"{image}.png"
    truth = np.asarray(Image.open(path))
    moved = np.roll(truth, shift, axis=1)
    file = path.parent / "draft.png"
    Image.fromarray(moved).save(file)
    desk.studies.save_label(image, str(file), "original", {"model": "frame", "params": {"model_version": version}})
    dice = 2 * (truth & moved).sum() / (truth.sum() + moved.sum())
    return int((truth != moved).sum()), float(dice), truth.size


def test_the_draft_is_compared_pixel_by_pixel(desk):
    changed, dice, size = draft(desk, "frame_000", 3, version=2)
    submit(desk, "frame_000", version=2)
    (result,) = compared(desk, 1)
    assert (result["changed"], result["pixels"]) == (changed, size)
    assert result["dice"]["polyp"] == result["mean"] == pytest.approx(dice, abs=1e-6)
    assert "draft" in result["source"]


def test_without_a_draft_the_version_that_was_used_draws_again(desk):
    network = build_network(desk.spec.network, 2)
    publish(desk, spec=desk.spec, weights=network.state_dict())
    submit(desk, "frame_001", version=1)
    (result,) = compared(desk, 1)
    checkpoint = load_checkpoint(desk.folder.version(1))
    image = desk.studies.get_image_uri("frame_001")
    case = load_case(image, None, desk.spec.data, 2)
    teacher = restore_network(checkpoint).eval().teacher
    before = predict(teacher, case, desk.spec.data, torch.device("cpu")).native_label().numpy()
    truth = np.asarray(Image.open(desk.journal.path.parents[1] / "truth" / "frame_001.png")).T
    assert result["changed"] == int((before != truth).sum())
    assert result["source"] == "version 1, which draws it again"


def test_what_cannot_be_compared_says_why(desk):
    submit(desk, "frame_000")
    submit(desk, "frame_001", version=7)
    alone, gone = compared(desk, 1, 2)
    assert "without a pre-label" in alone["sentence"]
    assert "Version 7" in gone["sentence"]


def test_a_draft_by_another_version_or_a_later_one_is_not_what_was_shown(desk):
    submit(desk, "frame_000", version=1)
    draft(desk, "frame_000", 2, version=2)
    submit(desk, "frame_000", version=1)
    assert all("no longer kept" in result["sentence"] for result in compared(desk, 1, 2))


def test_the_page_lists_every_version_newest_first(desk):
    client = client_of(desk)
    submit(desk, "frame_000", "ann")
    submit(desk, "frame_001", "bob")
    submit(desk, "frame_000", "eve")
    found = client.get("/loco/page/submissions").json()
    assert [(e["image"], e["client"], e["current"], e["versions"]) for e in found["entries"]] == [
        ("frame_000", "eve", True, 2), ("frame_001", "bob", True, 1), ("frame_000", "ann", False, 2),
    ]  # fmt: skip
    assert {e["kept"] for e in found["entries"]} == {True}
    place = parse_qs(urlsplit(found["entries"][0]["viewer"]).query)
    assert set(place) == {"StudyInstanceUIDs", "SeriesInstanceUIDs"}, "a study may hold several"
    assert client.get("/loco/page/submissions?search=BOB").json()["count"] == 1
    assert client.get("/loco/page/submissions?limit=1&offset=2").json()["entries"][0]["client"] == "ann"
    desk.studies.remove_label("frame_001", "final")
    assert client.get("/loco/page/submissions").json()["entries"][1]["removed"] is not None


def test_the_worst_cases_of_the_live_model_come_first(desk):
    client = client_of(desk)
    assert client.get("/loco/page/worst").json() == {"version": None, "cases": 0, "entries": []}
    publish(desk, {"frame_000": 0.9, "frame_001": 0.1, "frame_002": 0.5})
    found = client.get("/loco/page/worst?limit=2").json()
    assert (found["version"], found["cases"]) == (1, 3)
    assert [(e["image"], e["mean"]) for e in found["entries"]] == [("frame_001", 0.1), ("frame_002", 0.5)]
