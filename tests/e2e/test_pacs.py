"""Volumes on a real PACS, by requests and in OHIF: list, PACS away, submit, SEG stored, SEG of another tool noticed, training by
itself, mask on the right voxels. test_pacs_pictures.py does it with pictures.
"""

from __future__ import annotations

import gzip
import io
import re
from datetime import datetime
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import requests
from browser import Ohif, answer_with, chromium, needs_chromium, ohif
from dicom import (
    OBLIQUE,
    SAGITTAL,
    ball,
    ball_series,
    instance,
    stacked,
)
from orthanc import Orthanc, needs_orthanc
from pydicom import dcmread
from pydicom.uid import generate_uid
from server import Server, voxels_of

from lib.maskfile import write_mask
from lib.server.dicomseg import Author, read_seg, write_seg
from lib.server.series import cases_of

pytestmark = needs_orthanc
SETTINGS = {"epochs": 1, "iterations": 40, "retrain_after": 3, "retrain_idle": 0, "pacs_poll": 0.5}


@pytest.fixture(scope="module")
def browser():
    with chromium() as context:
        yield context


def seg_of(headers: list, classes: np.ndarray, labels: dict, name: str = "other tool"):
    case = cases_of(str(headers[0].SeriesInstanceUID), headers)[0][0]
    return write_seg(classes, case.grid, headers[0], labels, Author(name), datetime.now())


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """Orthanc with six MR series, one of them sagittal and one oblique, an SR, and a server on it."""
    root = tmp_path_factory.mktemp("pacs")
    orthanc = Orthanc(root / "orthanc").start()
    series = [ball_series(n, reverse=n % 2 == 1) for n in range(4)]
    series += [ball_series(4, SAGITTAL), ball_series(5, OBLIQUE, reverse=True)]
    for headers in series:
        orthanc.store(headers)
    report = instance("SR", "1.2.840.10008.5.1.4.1.1.88.11", series[0][0].StudyInstanceUID, generate_uid(prefix=None))
    orthanc.store([report])
    server = Server(orthanc.address, root / "server.log", labels="lesion", models="slice", **SETTINGS)
    server.environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")}
    try:
        yield server.start(), orthanc, series, root
    finally:
        server.stop()
        orthanc.stop()


def uid(headers: list) -> str:
    return str(headers[0].SeriesInstanceUID)


def labelled(server: Server) -> int:
    return server.get("/datastore/").json()["completed"]


def label_of(server: Server, image: str) -> np.ndarray:
    return voxels_of(server.get("/datastore/label", params={"label": image, "tag": "final"}))


def download(server: Server, image: str) -> nib.Nifti1Image:
    content = server.get("/datastore/image", params={"image": image}).content
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_series_are_listed_without_what_was_derived_from_them(pacs):
    server, _, series, _ = pacs
    objects = server.get("/datastore/?output=all").json()["objects"]
    assert set(objects) == {uid(s) for s in series}
    info = objects[uid(series[1])]["image"]["info"]
    assert (info["PatientID"], info["Modality"]) == ("P1", "MR")
    assert info["StudyInstanceUID"] == series[1][0].StudyInstanceUID


def test_while_the_pacs_is_away_the_next_image_is_ready_and_no_label_is_lost(pacs, tmp_path):
    """Studies are converted before anybody asks for them: not one request of these needs the PACS."""
    server, orthanc, series, _ = pacs
    server.wait_for(lambda: "for the cold start" in server.log.read_text())
    orthanc.stop()
    try:
        reply = server.post("/activelearning/low_contrast", json={"client_id": "looker"}).json()
        assert reply["StudyInstanceUID"] in {s[0].StudyInstanceUID for s in series}
        assert server.get("/datastore/image", params={"image": reply["id"]}).ok
        assert server.get("/datastore/image", params={"image": "7.7.7"}).status_code == 404
        assert server.get("/proxy/dicom/qido/studies").status_code == 502
        image = download(server, uid(series[3]))
        nib.save(nib.Nifti1Image(ball(3), image.affine), tmp_path / "label.nii.gz")
        answer = server.submit(uid(series[3]), tmp_path / "label.nii.gz", client_id="ann")
        assert answer.ok
        assert "the PACS did not take it yet" in answer.json()["note"]
        assert "1 labels are kept here and not in the PACS yet" in server.get("/loco/health").json()["reasons"]
        assert labelled(server) == 1
    finally:
        orthanc.start()
    server.wait_for(lambda: len(orthanc.segs()) == 1)
    server.wait_for(lambda: "PACS" not in str(server.get("/loco/health").json()["reasons"]))


def test_a_series_is_served_with_its_slices_in_order_and_its_true_geometry(pacs):
    server, _, series, _ = pacs
    for number in (0, 1):
        image = download(server, uid(series[number]))
        np.testing.assert_array_equal(np.asarray(image.dataobj), stacked(series[number]))
        x, y, z = min((d.ImagePositionPatient for d in series[number]), key=lambda place: place[2])
        np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [-x, -y, z, 1], atol=1e-4)


def test_a_submitted_label_counts_at_once_and_is_stored_as_a_seg(pacs, tmp_path):
    server, orthanc, series, _ = pacs
    image = download(server, uid(series[0]))
    nib.save(nib.Nifti1Image(ball(0), image.affine), tmp_path / "label.nii.gz")
    info = [{"name": "lesion", "idx": 1}]
    answer = server.submit(uid(series[0]), tmp_path / "label.nii.gz", label_info=info, client_id="ann")
    assert answer.ok, answer.text
    assert labelled(server) == 2
    assert len(orthanc.segs()) == 2
    found = requests.get(f"{orthanc.url}/instances", timeout=30).json()
    segs = [dcmread(io.BytesIO(requests.get(f"{orthanc.url}/instances/{i}/file", timeout=30).content)) for i in found]
    seg = next(s for s in segs if s.Modality == "SEG" and s.PatientID == "P0")
    case = cases_of(uid(series[0]), series[0])[0][0]
    np.testing.assert_array_equal(read_seg(seg, case.grid, {"lesion": 1}).classes, ball(0))


def test_a_seg_of_another_tool_is_noticed_and_trained_on(pacs):
    server, orthanc, series, _ = pacs
    orthanc.store([seg_of(series[1], ball(1), {"Lesion": 1})])
    server.wait_for(lambda: labelled(server) == 3)
    np.testing.assert_array_equal(label_of(server, uid(series[1])), ball(1))
    said = server.get("/datastore/label/info", params={"label": uid(series[1]), "tag": "final"}).json()
    assert (said["source"], said["client_id"]) == ("pacs", "other tool")
    done = server.wait_for(lambda: server.stats("slice").get("status") == "done" and server.stats("slice"))
    assert done["labelled"] + done["validation"] == 3
    assert labelled(server) == 3, "the app's own SEG is not taken a second time"


def test_the_latest_seg_of_a_series_wins_and_a_wrong_one_changes_nothing(pacs):
    server, orthanc, series, _ = pacs
    newer = np.roll(ball(1), 4, axis=0)
    orthanc.store([seg_of(series[1], ball(1), {"liver": 1}), seg_of(series[1], newer, {"lesion": 1})])
    server.wait_for(lambda: np.array_equal(label_of(server, uid(series[1])), newer))
    assert "expected segments named lesion, but got liver" in server.log.read_text()
    assert labelled(server) == 3


@needs_chromium
def test_a_volume_is_annotated_in_ohif(pacs, browser):
    server, orthanc, series, root = pacs
    before = len(orthanc.segs())
    with ohif(browser, server.url, root / "shots/pacs") as viewer:
        viewer.studies("?mrn=P2")
        viewer.page.get_by_text(re.compile(r"Test\W+P2")).first.wait_for()
        assert viewer.page.get_by_text(re.compile(r"Test\W+P1")).count() == 0
        viewer.shot("1 filtered list")

        viewer.annotate(series[2][0].StudyInstanceUID)
        viewer.press("run", "This is what the model sees")
        viewer.shot("2 the model's mask")
        meant = voxels_of(server.post("/infer/slice", params={"image": uid(series[2]), "output": "image"}))
        assert 0 < meant.sum() < meant.size / 2, "it has learnt something"
        assert covered(viewer, viewer.labelmap()) == values_below(series[2], meant)
        corrected = viewer.stroke((0.35, 0.35))
        assert corrected.sum() > meant.sum()
        viewer.press("submit", "label was submitted")
        assert values_below(series[2], label_of(server, uid(series[2]))) == covered(viewer, corrected)
        assert len(orthanc.segs()) == before + 1
        viewer.shot("3 corrected and submitted")

        viewer.next()
        assert viewer.opened_study() not in {s[0].StudyInstanceUID for s in series[:4]}
        assert viewer.errors == []


@needs_chromium
def test_the_mask_lies_on_the_voxels_that_the_model_meant_and_ohif_s_own_export_is_a_submission(pacs, browser):
    """The truth, sent as the model's answer, covers exactly the bright voxels in OHIF, and comes back unchanged."""
    server, orthanc, series, root = pacs
    with ohif(browser, server.url, root / "shots/voxels") as viewer:
        for number in (4, 5):
            case = cases_of(uid(series[number]), series[number])[0][0]
            write_mask(ball(number), case.grid.affine(), root / "answer.nrrd")
            viewer.page.unroute_all()
            viewer.page.route("**/infer/**", partial(answer_with, (root / "answer.nrrd").read_bytes()))
            viewer.annotate(series[number][0].StudyInstanceUID)
            viewer.press("run", "This is what the model sees")
            mask, image = viewer.labelmap() > 0, viewer.image()
            assert mask.sum() == ball(number).sum()
            assert image[mask].min() > image[~mask].max()
            viewer.shot(f"P{number}")
            viewer.press("submit", "label was submitted")
            np.testing.assert_array_equal(label_of(server, uid(series[number])), ball(number))

        before, drawn = len(orthanc.segs()), viewer.stroke((0.35, 0.35))
        viewer.page.evaluate(
            "segmentationId => { window.commandsManager.runCommand('storeSegmentation', {"
            " segmentationId, dataSource: window.extensionManager.getActiveDataSource()[0] }); }",
            viewer.label_id(),
        )
        save = viewer.page.get_by_role("button", name="Save")
        save.wait_for()
        viewer.shot("storing with OHIF's own export")
        save.click()
        server.wait_for(lambda: len(orthanc.segs()) == before + 1)
        server.wait_for(lambda: label_of(server, uid(series[5])).sum() == drawn.sum())
        assert values_below(series[5], label_of(server, uid(series[5]))) == covered(viewer, drawn)
        assert viewer.errors == []


def covered(viewer: Ohif, mask: np.ndarray) -> list[float]:
    """Intensities under a label map of the viewer, sorted: those of other voxels would differ."""
    return sorted(viewer.image()[mask > 0].tolist())


def values_below(series: list, mask: np.ndarray) -> list[float]:
    """The same of a label of the server, X Y Z."""
    return sorted(stacked(series)[mask > 0].tolist())


def test_a_new_series_is_listed_without_a_restart(pacs):
    server, orthanc, series, _ = pacs
    added = ball_series(7)
    orthanc.store(added)
    server.wait_for(lambda: server.get("/datastore/").json()["total"] == len(series) + 1)
