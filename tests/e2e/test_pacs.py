"""The loop on a real PACS: list, infer, submit, SEG stored, SEG of another tool noticed, training by itself, PACS away."""

from __future__ import annotations

import gzip
import io
import json
from datetime import datetime

import nibabel as nib
import numpy as np
import pytest
import requests
from dicom import as_jpeg, film, instance, picture_series, volume_series
from orthanc import Orthanc, needs_orthanc
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid
from server import Server
from studies import blob

from lib.server.dicomseg import Author, read_seg, write_seg
from lib.server.series import cases_of

pytestmark = needs_orthanc
SETTINGS = {"epochs": 1, "iterations": 2, "retrain_after": 2, "retrain_idle": 0, "pacs_poll": 0.5}
SHAPE = (40, 36, 5)


def truth(number: int) -> np.ndarray:
    return blob(SHAPE, (15 + 3 * number, 18, 2), 6).astype(np.uint8)


def volume(number: int) -> list:
    noise = np.random.default_rng(number).normal(100, 8, SHAPE)
    return volume_series(noise + 80 * truth(number), spacing=(1.5, 1.5, 6.0), patient=f"P{number}", reverse=number % 2)


def seg_of(headers: list, classes: np.ndarray, labels: dict, name: str = "other tool"):
    case = cases_of(str(headers[0].SeriesInstanceUID), headers)[0][0]
    return write_seg(classes, case.grid, headers[0], labels, Author(name), datetime.now())


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """Orthanc with four MR series, an SR, and a server on it."""
    root = tmp_path_factory.mktemp("pacs")
    orthanc = Orthanc(root / "orthanc").start()
    series = [volume(n) for n in range(4)]
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


def test_a_series_is_served_with_its_slices_in_order_and_its_true_geometry(pacs):
    server, _, series, _ = pacs
    for number in (0, 1):
        image = download(server, uid(series[number]))
        ordered = sorted(series[number], key=lambda d: d.ImagePositionPatient[2])
        expected = np.stack([d.pixel_array.T for d in ordered], axis=2)
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
        x, y, z = ordered[0].ImagePositionPatient
        np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [-x, -y, z, 1], atol=1e-4)


def test_next_sample_says_where_the_study_is(pacs):
    server, _, series, _ = pacs
    reply = server.post("/activelearning/low_contrast", json={"client_id": "looker"}).json()
    assert reply["id"] in {uid(s) for s in series}
    assert reply["StudyInstanceUID"] in {s[0].StudyInstanceUID for s in series}


def test_a_submitted_label_counts_at_once_and_is_stored_as_a_seg(pacs, tmp_path):
    server, orthanc, series, _ = pacs
    image = download(server, uid(series[0]))
    nib.save(nib.Nifti1Image(truth(0), image.affine), tmp_path / "label.nii.gz")
    info = [{"name": "lesion", "idx": 1}]
    answer = server.submit(uid(series[0]), tmp_path / "label.nii.gz", label_info=info, client_id="ann")
    assert answer.ok, answer.text
    assert labelled(server) == 1
    stored = orthanc.segs()
    assert len(stored) == 1
    found = requests.get(f"{orthanc.url}/instances", timeout=30).json()
    segs = [dcmread(io.BytesIO(requests.get(f"{orthanc.url}/instances/{i}/file", timeout=30).content)) for i in found]
    seg = next(s for s in segs if s.Modality == "SEG")
    case = cases_of(uid(series[0]), series[0])[0][0]
    np.testing.assert_array_equal(read_seg(seg, case.grid, {"lesion": 1}).classes, truth(0))
    assert seg.PatientID == "P0"


def test_a_seg_of_another_tool_is_noticed_and_trained_on(pacs):
    server, orthanc, series, _ = pacs
    orthanc.store([seg_of(series[1], truth(1), {"Lesion": 1})])
    server.wait_for(lambda: labelled(server) == 2, 60)
    label = server.get("/datastore/label", params={"label": uid(series[1]), "tag": "final"})
    values = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(label.content)).dataobj)
    np.testing.assert_array_equal(values, truth(1))
    said = server.get("/datastore/label/info", params={"label": uid(series[1]), "tag": "final"}).json()
    assert (said["source"], said["client_id"]) == ("pacs", "other tool")
    done = server.wait_for(lambda: server.stats("slice").get("status") == "done" and server.stats("slice"))
    assert done["labelled"] + done["validation"] == 2
    assert labelled(server) == 2, "the app's own SEG is not taken a second time"


def test_the_latest_seg_of_a_series_wins_and_a_wrong_one_changes_nothing(pacs):
    server, orthanc, series, _ = pacs
    newer = np.roll(truth(1), 4, axis=0)
    orthanc.store([seg_of(series[1], truth(1), {"liver": 1}), seg_of(series[1], newer, {"lesion": 1})])

    def current():
        label = server.get("/datastore/label", params={"label": uid(series[1]), "tag": "final"}).content
        return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(label)).dataobj)

    server.wait_for(lambda: np.array_equal(current(), newer), 60)
    assert "expected segments named lesion, but got liver" in server.log.read_text()
    assert labelled(server) == 2


def test_inference_lies_on_the_voxels_of_the_series(pacs):
    server, _, series, _ = pacs
    wishes = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    answer = server.post(
        "/infer/slice", params={"image": uid(series[2]), "output": "image"}, data={"params": json.dumps(wishes)}
    )
    assert answer.content.startswith(b"NRRD"), answer.text[:300]
    assert b"sizes: 40 36 5" in answer.content
    assert len(answer.content.split(b"\n\n", 1)[1]) == np.prod(SHAPE)


def test_a_new_series_is_listed_without_a_restart(pacs):
    server, orthanc, series, _ = pacs
    added = volume(7)
    orthanc.store(added)
    server.wait_for(lambda: server.get("/datastore/").json()["total"] == len(series) + 1, 30)


def test_a_pacs_that_went_away_is_a_sentence_and_no_label_is_lost(pacs, tmp_path):
    server, orthanc, series, _ = pacs
    image = download(server, uid(series[3]))
    before = len(orthanc.segs())
    orthanc.stop()
    try:
        answer = server.get("/datastore/image", params={"image": "7.7.7"})
        assert answer.status_code == 404
        nib.save(nib.Nifti1Image(truth(3), image.affine), tmp_path / "label.nii.gz")
        assert server.submit(uid(series[3]), tmp_path / "label.nii.gz", client_id="ann").ok
        assert labelled(server) == 3
    finally:
        orthanc.start()
    server.wait_for(lambda: len(orthanc.segs()) == before + 1, 60)


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """Orthanc with pictures of every kind, and a server on it."""
    root = tmp_path_factory.mktemp("camera")
    orthanc = Orthanc(root / "orthanc").start()
    rng = np.random.default_rng(0)
    colour = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(2)]
    smooth = np.stack([np.tile(np.arange(64) * 4 % 256, (48, 1))] * 3, axis=-1).astype(np.uint8)
    pictures = {
        "OT": picture_series("OT", colour, "A"),
        "ES": [as_jpeg(d) for d in picture_series("ES", [smooth], "B")],
        "CR": picture_series("CR", [rng.integers(0, 4000, (48, 64)).astype(np.uint16)], "C"),
        "US": [film(rng.integers(0, 255, (3, 48, 64)).astype(np.uint8), "D")],
    }
    for instances in pictures.values():
        orthanc.store(instances)
    server = Server(orthanc.address, root / "server.log", labels="polyp", **SETTINGS)
    server.environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")}
    try:
        yield server.start(), orthanc, pictures
    finally:
        server.stop()
        orthanc.stop()


def case_ids(pictures: dict) -> list[str]:
    single = [str(d.SOPInstanceUID) for m in ("OT", "ES", "CR") for d in pictures[m]]
    return [*single, *(f"{pictures['US'][0].SOPInstanceUID}_{n}" for n in (1, 2, 3))]


def test_pictures_of_every_kind_are_cases_of_their_own(camera):
    server, _, pictures = camera
    assert set(server.get("/datastore/?output=all").json()["objects"]) == set(case_ids(pictures))
    assert "polyp" in server.get("/info/").json()["labels"]


def test_pictures_are_served_pixel_by_pixel(camera):
    server, _, pictures = camera

    def served(image: str) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(server.get("/datastore/image", params={"image": image}).content)))

    second = pictures["OT"][1]
    np.testing.assert_array_equal(served(str(second.SOPInstanceUID)), second.pixel_array)
    np.testing.assert_array_equal(served(str(pictures["CR"][0].SOPInstanceUID)), pictures["CR"][0].pixel_array)
    frames = pictures["US"][0]
    np.testing.assert_array_equal(served(f"{frames.SOPInstanceUID}_2"), frames.pixel_array[1])
    jpeg = served(str(pictures["ES"][0].SOPInstanceUID)).astype(int)
    assert np.abs(jpeg - (np.arange(64) * 4 % 256)[None, :, None]).mean() < 6, "colours as the camera saw them"


def test_pictures_are_labelled_trained_on_and_segmented(camera, tmp_path):
    server, orthanc, pictures = camera
    ids = case_ids(pictures)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 30:50] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for image in (ids[0], ids[2], ids[3], ids[5]):
        answer = server.submit(image, tmp_path / "mask.png", label_info=[{"name": "polyp", "idx": 1}])
        assert answer.ok, answer.text
    assert labelled(server) == 4
    assert len(orthanc.segs()) == 4
    done = server.wait_for(lambda: server.stats("frame").get("status") == "done" and server.stats("frame"))
    assert done["labelled"] + done["validation"] >= 2
    answer = server.post("/infer/frame", params={"image": ids[4], "output": "image"})
    assert np.array(Image.open(io.BytesIO(answer.content))).shape == (48, 64)


def test_a_seg_on_one_frame_of_a_film_labels_that_frame(camera):
    server, orthanc, pictures = camera
    ds = pictures["US"][0]
    cases, _ = cases_of(str(ds.SeriesInstanceUID), [ds])
    classes = np.zeros((64, 48, 1), np.uint8)
    classes[3:9, 20:30] = 1
    before = labelled(server)
    orthanc.store([write_seg(classes, cases[2].grid, ds, {"Polyp": 1}, Author("x"), datetime.now())])
    server.wait_for(lambda: labelled(server) == before + 1, 60)
    label = server.get("/datastore/label", params={"label": cases[2].id, "tag": "final"})
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(label.content))), classes[:, :, 0].T)


def test_a_journal_that_was_lost_is_filled_again_from_the_segs(pacs):
    """The labels are in the PACS: a new project on it knows them."""
    server, _, _, _ = pacs
    before = labelled(server)
    server.stop()
    for file in (server.log.parent / "app/model").rglob("loco.sqlite*"):
        file.unlink()
    for folder in (server.log.parent / "app/model").rglob("labels"):
        for label in folder.rglob("*.nii.gz"):
            label.unlink()
    server.start()
    server.wait_for(lambda: labelled(server) == before, 60)
