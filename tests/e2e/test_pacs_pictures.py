"""Pictures on a real PACS, by requests and in OHIF: pictures of one series and frames of a film are cases of their own."""

from __future__ import annotations

import io
from datetime import datetime

import numpy as np
import pytest
from browser import chromium, needs_chromium, ohif
from dicom import as_jpeg, film, picture_series
from orthanc import Orthanc, needs_orthanc
from PIL import Image
from playwright.sync_api import expect
from server import Server

from lib.server.dicomseg import Author, write_seg
from lib.server.series import cases_of

pytestmark = needs_orthanc
SETTINGS = {"epochs": 1, "iterations": 1, "retrain_after": 8, "retrain_idle": 0, "pacs_poll": 0.5}
HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """Orthanc with pictures of every kind, and a server on it."""
    root = tmp_path_factory.mktemp("camera")
    orthanc = Orthanc(root / "orthanc").start()
    rng = np.random.default_rng(0)
    colour = [rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(2)]
    grey = [rng.integers(0, 4000, (HEIGHT, WIDTH)).astype(np.uint16) for _ in range(2)]
    smooth = np.stack([np.tile(np.arange(WIDTH) * 4 % 256, (HEIGHT, 1))] * 3, axis=-1).astype(np.uint8)
    pictures = {
        "OT": picture_series("OT", colour, "A"),
        "ES": [as_jpeg(d) for d in picture_series("ES", [smooth], "B")],
        "CR": picture_series("CR", grey, "C"),
        "US": [film(rng.integers(0, 255, (3, HEIGHT, WIDTH)).astype(np.uint8), "D")],
    }
    for instances in pictures.values():
        orthanc.store(instances)
    server = Server(orthanc.address, root / "server.log", labels="polyp", **SETTINGS)
    server.environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")}
    try:
        yield server.start(), orthanc, pictures, root
    finally:
        server.stop()
        orthanc.stop()


@pytest.fixture(scope="module")
def browser():
    with chromium() as context:
        yield context


def pixels_by_case(pictures: dict) -> dict[str, np.ndarray]:
    """Every case id with the pixels of its picture, in the order of the series."""
    single = {str(d.SOPInstanceUID): d.pixel_array for m in ("OT", "ES", "CR") for d in pictures[m]}
    scan = pictures["US"][0]
    return {**single, **{f"{scan.SOPInstanceUID}_{n}": scan.pixel_array[n - 1] for n in (1, 2, 3)}}


def labelled(server: Server) -> int:
    return server.get("/datastore/").json()["completed"]


def label_of(server: Server, image: str) -> np.ndarray:
    answer = server.get("/datastore/label", params={"label": image, "tag": "final"})
    return np.array(Image.open(io.BytesIO(answer.content)))


def test_pictures_of_every_kind_are_cases_of_their_own(camera):
    server, _, pictures, _ = camera
    assert set(server.get("/datastore/?output=all").json()["objects"]) == set(pixels_by_case(pictures))
    assert "polyp" in server.get("/info/").json()["labels"]


def test_pictures_are_served_pixel_by_pixel(camera):
    server, _, pictures, _ = camera
    jpeg = str(pictures["ES"][0].SOPInstanceUID)
    for image, pixels in pixels_by_case(pictures).items():
        answer = server.get("/datastore/image", params={"image": image})
        served = np.array(Image.open(io.BytesIO(answer.content)))
        if image != jpeg:
            np.testing.assert_array_equal(served, pixels)
        else:
            ramp = (np.arange(WIDTH) * 4 % 256)[None, :, None]
            assert np.abs(served.astype(int) - ramp).mean() < 6, "colours as the camera saw them"


def test_the_first_of_each_series_is_labelled(camera, tmp_path):
    server, orthanc, pictures, _ = camera
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 30:50] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    firsts = [str(pictures[m][0].SOPInstanceUID) for m in ("OT", "ES", "CR")] + [
        f"{pictures['US'][0].SOPInstanceUID}_1"
    ]
    for image in firsts:
        answer = server.submit(image, tmp_path / "mask.png", label_info=[{"name": "polyp", "idx": 1}])
        assert answer.ok, answer.text
    assert labelled(server) == len(orthanc.segs()) == 4


def test_a_seg_on_one_frame_of_a_film_labels_that_frame(camera):
    server, orthanc, pictures, _ = camera
    ds = pictures["US"][0]
    cases, _ = cases_of(str(ds.SeriesInstanceUID), [ds])
    classes = np.zeros((WIDTH, HEIGHT, 1), np.uint8)
    classes[3:9, 20:30] = 1
    orthanc.store([write_seg(classes, cases[2].grid, ds, {"Polyp": 1}, Author("x"), datetime.now())])
    server.wait_for(lambda: labelled(server) == 5)
    np.testing.assert_array_equal(label_of(server, cases[2].id), classes[:, :, 0].T)


@needs_chromium
def test_each_picture_is_opened_at_itself_and_its_label_comes_back_to_it(camera, browser):
    """Three are left: the second of two series, and the second frame of a film. None is what OHIF shows first."""
    server, orthanc, pictures, root = camera
    expected = pixels_by_case(pictures)
    second = [str(pictures[m][1].SOPInstanceUID) for m in ("OT", "CR")] + [f"{pictures['US'][0].SOPInstanceUID}_2"]
    before = {image: label_of(server, image) for image in expected if image not in second}
    drawn = {}
    with ohif(browser, server.url, root / "shots/pictures") as viewer:
        first = pictures["OT"][0]
        viewer.annotate(first.StudyInstanceUID)  # which has a SEG by now
        expect(viewer.part("image")).to_have_text(str(pictures["OT"][0].SOPInstanceUID))
        viewer.page.locator(".cornerstone-canvas").first.hover()
        viewer.page.mouse.wheel(0, 100)
        expect(viewer.part("image")).to_have_text(second[0])
        for number in range(len(second)):
            image = viewer.next()
            shown = viewer.image().reshape(HEIGHT, WIDTH, -1)[..., :3].squeeze()
            np.testing.assert_array_equal(shown, expected[image])
            drawn[image] = viewer.stroke((0.4 + 0.1 * number, 0.5)).reshape(HEIGHT, WIDTH)
            viewer.shows(viewer.set_up_again())
            expect(viewer.part("image")).to_have_text(image)
            np.testing.assert_array_equal(viewer.labelmap().reshape(HEIGHT, WIDTH), drawn[image])
            viewer.shot(f"{number} {image}")
            viewer.press("submit", "label was submitted")
        assert viewer.errors == []
    assert set(drawn) == set(second)
    for image, label in {**before, **drawn}.items():
        np.testing.assert_array_equal(label_of(server, image), label)
    assert len(orthanc.segs()) == 8


def test_pictures_of_every_kind_are_trained_on_and_segmented(camera):
    server, _, pictures, _ = camera
    done = server.wait_for(lambda: server.stats("frame").get("status") == "done" and server.stats("frame"))
    assert done["labelled"] + done["validation"] == labelled(server)
    answer = server.post("/infer/frame", params={"image": next(iter(pixels_by_case(pictures))), "output": "image"})
    assert np.array(Image.open(io.BytesIO(answer.content))).shape == (HEIGHT, WIDTH)
