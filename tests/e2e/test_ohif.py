"""Annotating in OHIF in a real browser with no PACS: a folder of pictures, and one of DICOM files.

test_pacs.py does it on a PACS, test_slicer.py on NIfTI volumes. Screenshots lie in the temporary folder of the test, or
below $LOCO_SHOTS.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from browser import PATIENCE_MS, answer_with, chromium, needs_chromium, ohif
from dicom import AXIAL, CORONAL, ball_series, stacked
from PIL import Image
from playwright.sync_api import expect
from pydicom import dcmread, dcmwrite
from server import Server, voxels_of
from studies import write_frames

from lib.maskfile import write_mask
from lib.server.dicomseg import read_seg
from lib.server.series import cases_of
from lib.store.journal import Journal

WIDTH, HEIGHT = 96, 72
STRANGE_NAMES = ("ward 7/scan.1/IM{:03d}", "ward 7/scan.1/again/{:x}.bin", "export/{}.DCM")
SECOND_SERIES = "export/second/{}.DCM"
pytestmark = needs_chromium


def write_dicom(root: Path) -> list[list]:
    """Three studies in odd places, one of them coronal, the last with a second series. Returns the instances of each series."""
    studies = []
    for number, name in enumerate((*STRANGE_NAMES, SECOND_SERIES)):
        studies.append(ball_series(number, axes=CORONAL if number == 1 else AXIAL))
        for ds in studies[-1]:
            if name == SECOND_SERIES:
                ds.StudyInstanceUID, ds.SeriesNumber = studies[-2][0].StudyInstanceUID, 2
                ds.PatientID, ds.PatientName = studies[-2][0].PatientID, studies[-2][0].PatientName
            path = root / name.format(int(ds.InstanceNumber))
            path.parent.mkdir(parents=True, exist_ok=True)
            dcmwrite(path, ds, write_like_original=False)
    (root / "ward 7/notes.txt").write_text("no image")
    return studies


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server over coloured frames and one over DICOM files; they come up faster side by side."""
    frames, dicom = tmp_path_factory.mktemp("ohif_frames"), tmp_path_factory.mktemp("ohif_dicom")
    write_frames(frames / "studies", frames / "truth", 6, size=(WIDTH, HEIGHT))
    studies = write_dicom(dicom / "studies")
    by_hand = {"labels": "lesion", "epochs": 40, "iterations": 1, "auto_retrain": "false"}
    alone = {
        "labels": "lesion",
        "models": "slice",
        "epochs": 1,
        "iterations": 40,
        "retrain_after": 1,
        "retrain_idle": 0,
    }
    both = (
        Server(frames / "studies", frames / "server.log", **by_hand),
        Server(dicom / "studies", dicom / "server.log", **alone),
    )
    try:
        for server in both:
            server.launch()
        for server in both:
            server.wait_until_up()
        yield (both[0], frames), (both[1], dicom, studies)
    finally:
        for server in both:
            server.stop()


@pytest.fixture(scope="module")
def browser():
    with chromium() as context:
        yield context


def saved(root: Path, image: str) -> np.ndarray:
    return np.array(Image.open(root / f"studies/labels/final/{image}.png"))


def test_frames_of_a_folder_are_annotated(servers, browser):
    (server, root), _ = servers
    with ohif(browser, server.url, root / "shots/frames") as viewer:
        viewer.studies()
        viewer.page.get_by_text("frame_002", exact=True).first.click()
        viewer.page.get_by_text("Annotate with LoCo").wait_for()
        viewer.shot("1 study list")
        viewer.page.get_by_text("Annotate with LoCo").click()
        viewer.ready()
        assert viewer.part("image").inner_text() == "frame_002"
        viewer.press("run", "submit labels first")
        viewer.consents = False
        viewer.press("submit", "Nothing was submitted")
        assert not (root / "studies/labels/final/frame_002.png").exists()
        (question,) = viewer.questions
        assert "without any of the classes" in question
        viewer.consents = True

        painted = viewer.stroke((0.4, 0.5))
        assert painted.sum() > 100
        viewer.part("eraser").click()
        drawn = viewer.stroke((0.43, 0.5), 0.03).reshape(HEIGHT, WIDTH)
        assert 0 < drawn.sum() < painted.sum()
        viewer.shot("2 drawn and erased")
        viewer.press("submit", "label was submitted")
        np.testing.assert_array_equal(saved(root, "frame_002"), drawn)

        second = viewer.next()
        assert second != "frame_002"
        viewer.shot("3 next and why")
        lesion = np.array(Image.open(root / f"truth/{second}.png"))
        write_mask(lesion.T, None, root / "answer.nrrd")
        viewer.page.route("**/infer/**", partial(answer_with, (root / "answer.nrrd").read_bytes()))
        viewer.press("run", "This is what the model sees")
        np.testing.assert_array_equal(viewer.labelmap().reshape(HEIGHT, WIDTH), lesion)
        colours = viewer.image().reshape(HEIGHT, WIDTH, -1)[..., :3].mean(axis=2)
        assert colours[lesion > 0].mean() > colours[lesion == 0].mean() + 30, "the mask covers what is bright"
        viewer.press("submit", "label was submitted")
        np.testing.assert_array_equal(saved(root, second), lesion)

        third = viewer.next()
        fourth = viewer.skip("unsure")
        assert len({"frame_002", second, third, fourth}) == 4
        (skipped,) = Journal(root / "studies/loco.sqlite").read("SELECT image, client, reason FROM skips")
        assert tuple(skipped) == (third, viewer.part("client").input_value(), "unsure")
        assert len(viewer.questions) == 1, "a label with something in it is submitted without a question"
        viewer.press("submit", "label was submitted")
        assert (len(viewer.questions), saved(root, fourth).any()) == (2, False)
        assert viewer.errors == []


def test_a_training_is_started_watched_and_stopped(servers, browser):
    (server, root), _ = servers
    journal = Journal(root / "studies/loco.sqlite")
    sample = server.post("/activelearning/random", json={"client_id": "looker"}).json()
    with ohif(browser, server.url, root / "shots/training") as viewer:
        viewer.annotate(sample["StudyInstanceUID"])
        said = viewer.part("training")
        viewer.press("train", "The training was started")
        expect(said).to_have_text(re.compile("^starting"))
        expect(said).to_have_text(re.compile(r"^running: epoch [1-9]\d* of 40$"), timeout=PATIENCE_MS)
        before, share = said.inner_text(), viewer.part("progress").get_attribute("value")
        expect(said).not_to_have_text(before, timeout=PATIENCE_MS)
        assert 0 < float(share) < float(viewer.part("progress").evaluate("bar => bar.value")) < 1
        viewer.shot("1 progress")
        viewer.press("stop", "The training was stopped")
        expect(said).to_have_text(re.compile("^stopped"), timeout=PATIENCE_MS)
        viewer.shot("2 stopped")
        assert journal.last_run().status == "stopped"
        assert server.get("/train/?check_if_running=true").status_code == 404
        assert journal.live_version("frame") is None

        assert server.post("/train/frame", json={"max_epochs": 1}).ok
        viewer.part("model").get_by_text("model version 1").wait_for()
        viewer.press("run", "This is what the model sees")
        answer = server.post("/infer/frame", params={"image": sample["id"], "output": "image"})
        (root / "mask.png").write_bytes(answer.content)
        np.testing.assert_array_equal(viewer.labelmap().reshape(HEIGHT, WIDTH), np.array(Image.open(root / "mask.png")))
        viewer.shot("3 the model's mask")
        assert viewer.errors == []


def test_label_maps_keep_their_voxels_between_any_two_orders_of_axes(servers, browser):
    (server, root), _ = servers
    rng = np.random.default_rng(0)
    with ohif(browser, server.url, root / "shots/order") as viewer:
        viewer.page.goto(f"{server.url}/ohif/loco/panel.css")
        for _ in range(8):
            shape, order, flips = rng.integers(2, 5, 3), rng.permutation(3), rng.integers(0, 2, 3)
            values = rng.integers(0, 9, shape)
            turned = values.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
            axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 4, 3)[:, None]
            origin = rng.normal(size=3)
            there = [(-1 if f else 1) * axes[a] for a, f in zip(order, flips, strict=True)]
            start = origin + sum((shape[a] - 1) * axes[a] for a, f in zip(order, flips, strict=True) if f)
            result = viewer.page.evaluate(
                "async ([data, from, to]) => { const { reordered } = await import('/ohif/loco/nrrd.js');"
                " return Array.from(reordered(Uint8Array.from(data), from, to)); }",
                [
                    values.ravel(order="F").tolist(),
                    {"dimensions": shape.tolist(), "origin": origin.tolist(), "axes": axes.tolist()},
                    {"dimensions": list(turned.shape), "origin": start.tolist(), "axes": np.array(there).tolist()},
                ],
            )
            assert result == turned.ravel(order="F").tolist()


def contents(root: Path) -> dict[str, str]:
    """Hash of each file that a user put there."""
    paths = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]
    theirs = [p for p in paths if not p.parts[0].startswith(".loco") and not p.name.startswith("loco.")]
    return {str(p): hashlib.sha256((root / p).read_bytes()).hexdigest() for p in theirs}


def label_of(server: Server, image: str) -> np.ndarray:
    return voxels_of(server.get("/datastore/label", params={"label": image, "tag": "final"}))


def test_a_folder_of_dicom_files_is_annotated_as_a_pacs_is(servers, browser):
    _, (server, root, studies) = servers
    before = contents(root / "studies")
    series = [str(s[0].SeriesInstanceUID) for s in studies]
    with ohif(browser, server.url, root / "shots/dicom") as viewer:
        viewer.studies("?mrn=P1")
        viewer.page.get_by_text(re.compile(r"Test\W+P1")).first.wait_for()
        assert viewer.page.get_by_text(re.compile(r"Test\W+P0")).count() == 0
        viewer.shot("1 filtered list")

        viewer.annotate(studies[1][0].StudyInstanceUID)
        drawn = viewer.stroke((0.45, 0.5))
        viewer.press("submit", "label was submitted")
        assert label_of(server, series[1]).sum() == drawn.sum() > 0
        (seg,) = (dcmread(p) for p in (root / "studies/.loco/segmentations").glob("*.dcm"))
        case = cases_of(series[1], studies[1])[0][0]
        np.testing.assert_array_equal(read_seg(seg, case.grid, {"lesion": 1}).classes, label_of(server, series[1]))

        viewer.part("model").get_by_text("model version 1").wait_for()
        viewer.annotate(studies[0][0].StudyInstanceUID)
        viewer.press("run", "This is what the model sees")
        viewer.shot("2 the model's mask")
        shown = viewer.labelmap()
        answer = server.post("/infer/slice", params={"image": series[0], "output": "image"})
        meant = voxels_of(answer)
        # one stroke teaches little: this mask may be empty, and then the panel asks; those of test_pacs.py are not
        assert meant.sum() < meant.size / 2
        np.testing.assert_array_equal(np.sort(viewer.image()[shown > 0]), np.sort(stacked(studies[0])[meant > 0]))
        viewer.press("submit", "label was submitted")
        np.testing.assert_array_equal(label_of(server, series[0]), meant)
        assert viewer.errors == []
    assert contents(root / "studies") == before, "originals are never written"


def test_another_series_in_the_viewport_is_the_one_that_is_annotated(servers, browser):
    _, (server, root, studies) = servers
    first, second = (str(s[0].SeriesInstanceUID) for s in studies[2:])
    with ohif(browser, server.url, root / "shots/two series") as viewer:
        viewer.annotate(studies[2][0].StudyInstanceUID)
        expect(viewer.part("image")).to_have_text(first)
        drawn = viewer.stroke((0.45, 0.5))
        viewer.shot("1 the first series")
        viewer.open_series(second)
        expect(viewer.part("image")).to_have_text(second)
        assert not viewer.labelmap().any(), "the stroke stays with the other series"
        other = viewer.stroke((0.55, 0.4), 0.1)
        viewer.shot("2 the second series")
        viewer.press("submit", "label was submitted")
        assert label_of(server, second).sum() == other.sum() > 0
        assert first not in Journal(root / "studies/loco.sqlite").labelled_images()

        viewer.open_series(first)
        expect(viewer.part("image")).to_have_text(first)
        np.testing.assert_array_equal(viewer.labelmap(), drawn)
        viewer.press("submit", "label was submitted")
        assert label_of(server, first).sum() == drawn.sum() != other.sum()
        assert viewer.errors == []


def test_the_panel_opens_once_the_server_answers(servers, browser):
    _, (server, root, studies) = servers
    with ohif(browser, server.url, root / "shots/away") as viewer:
        viewer.page.route("**/info/", lambda route: route.abort())
        viewer.page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={studies[1][0].StudyInstanceUID}")
        expect(viewer.part("message")).to_have_attribute("data-kind", "error", timeout=PATIENCE_MS)
        viewer.shot("1 no answer")
        viewer.page.unroute("**/info/")
        viewer.ready()
        expect(viewer.part("message")).to_have_text("")
        assert viewer.stroke((0.45, 0.5)).any()
