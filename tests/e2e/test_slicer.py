"""NIfTI volumes of a folder: 3D Slicer's plugin against the real server, its requests, byte for byte, and what it shows of the
answers; the same studies in OHIF.
"""

from __future__ import annotations

import gzip
import http.client
import json
import mimetypes
from functools import partial
from pathlib import Path
from urllib.parse import quote_plus

import nibabel as nib
import numpy as np
import pytest
from browser import answer_with, chromium, needs_chromium, ohif
from server import Server, volume_of
from studies import blob, write_volumes

from lib.maskfile import write_mask

LABELS = "rv,lv"
SHAPE = (40, 36, 6)
BOUNDARY = "----------lImIt_of_THE_fIle_eW_$"


@pytest.fixture(scope="module")
def slicer(tmp_path_factory):
    """A server over four volumes, in two folders with files of the same name."""
    root = tmp_path_factory.mktemp("slicer")
    for number, (folder, axes) in enumerate({"A": "LPS", "B": "PIR"}.items()):
        places = root / "studies" / folder, root / "truth" / folder
        write_volumes(*places, 2, SHAPE, (1.5, 1.5, 8.0), (axes,), seed=number)
    settings = {"labels": LABELS, "epochs": 200, "iterations": 50, "auto_retrain": "false"}
    server = Server(root / "studies", root / "server.log", **settings)
    yield server.start(), root
    server.stop()


@pytest.fixture(scope="module")
def browser():
    with chromium() as context:
        yield context


def call(
    server: Server, method: str, selector: str, body: bytes | str | None = None, kind: str = ""
) -> tuple[int, bytes]:
    """One request as the plugin's client makes it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    headers = {"content-type": kind, "content-length": str(len(body))} if body else {}
    connection.request(method, selector, body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def post(server: Server, selector: str, params: dict) -> tuple[int, bytes]:
    return call(server, "POST", selector, json.dumps(params), "application/json")


def submit(server: Server, image: str, label: Path, params: dict, tag: str = "") -> tuple[int, bytes]:
    """The plugin's multipart: field `params`, then file `label` under its full path."""
    kind = mimetypes.guess_type(label)[0] or "application/octet-stream"
    lines = [
        f"--{BOUNDARY}", 'Content-Disposition: form-data; name="params"', "", json.dumps(params),
        f"--{BOUNDARY}", f'Content-Disposition: form-data; name="label"; filename="{label}"', f"Content-Type: {kind}", "",
        label.read_bytes(), f"--{BOUNDARY}--", "",
    ]  # fmt: skip
    body = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines)
    selector = f"/datastore/label?image={quote_plus(image)}" + (f"&tag={tag}" if tag else "")
    return call(server, "PUT", selector, bytes(body), f"multipart/form-data; boundary={BOUNDARY}")


def segments() -> np.ndarray:
    return (blob(SHAPE, (12, 18, 2), 5) + 2 * blob(SHAPE, (28, 18, 3), 5)).astype(np.uint8)


def export(path: Path, image: Path, values: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values, nib.load(image).affine), path)
    return path


def stored(server: Server, image: str, tag: str) -> np.ndarray:
    status, content = call(server, "GET", f"/datastore/label?label={quote_plus(image)}&tag={tag}")
    assert status == 200
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)


def test_files_of_equal_names_are_told_apart_in_slicers_cache(slicer):
    """The plugin keeps downloads by `name`: two studies must never share one."""
    server, _ = slicer
    assert call(server, "GET", "/auth/")[0] == 404
    objects = json.loads(call(server, "GET", "/datastore/?output=all")[1])["objects"]
    names = {o["image"]["info"]["name"] for o in objects.values()}
    assert len(objects) == len(names) == 4
    status, reply = post(server, "/activelearning/low_contrast", {"client_id": "user-1"})
    sample = json.loads(reply)
    assert status == 200
    assert {"id", "path", "name"} <= set(sample)
    assert call(server, "GET", f"/datastore/image?image={quote_plus(sample['id'])}")[0] == 200


def test_segments_are_mapped_by_name_and_labels_can_be_edited(slicer, tmp_path):
    """Slicer numbers the segments of its scene 1..n; `idx` also counts those that were left out."""
    server, root = slicer
    image = "A__patient000_frame01"
    label = export(tmp_path / "label.nii.gz", root / "studies/A/patient000_frame01.nii.gz", segments())
    params = {"label_info": [{"name": "lv", "idx": 2}, {"name": "rv", "idx": 4}], "client_id": "user-1"}
    status, reply = submit(server, image, label, params)
    assert status == 200, reply
    np.testing.assert_array_equal(stored(server, image, "final"), np.choose(segments(), [0, 2, 1]))
    params["label_info"] = [{"name": "rv", "idx": 1}, {"name": "lv", "idx": 2}]
    assert submit(server, image, label, params)[0] == 200
    np.testing.assert_array_equal(stored(server, image, "final"), segments())


def test_a_label_that_cannot_be_used_is_a_sentence_that_slicer_shows(slicer, tmp_path):
    """The plugin shows status and body of anything but 200."""
    server, root = slicer
    label = export(tmp_path / "label.nii.gz", root / "studies/A/patient001_frame01.nii.gz", segments())
    info = {"label_info": [{"name": "Segment_1", "idx": 1}, {"name": "lv", "idx": 2}]}
    status, body = submit(server, "A__patient001_frame01", label, info)
    assert status == 400
    assert "expected segments named rv, lv, but got Segment_1; rename them" in json.loads(body)["detail"]
    status, body = submit(server, "nobody", label, info)
    assert status == 404
    assert "expected the id of a study" in json.loads(body)["detail"]
    for selector in ("/datastore/image?image=nobody", "/datastore/label?label=nobody&tag=final"):
        assert call(server, "GET", selector)[0] == 404


def test_a_pre_segmentation_lies_under_the_tag_original(slicer, tmp_path):
    server, root = slicer
    image = "B__patient000_frame01"
    label = export(tmp_path / "pre.nii.gz", root / "studies/B/patient000_frame01.nii.gz", segments())
    assert submit(server, image, label, {"params": {"label_names": {"rv": 1, "lv": 2}}}, "original")[0] == 200
    objects = json.loads(call(server, "GET", "/datastore/?output=all")[1])["objects"]
    info = objects[image]["labels"]["original"]["info"]
    assert list(info["params"]["label_names"]) == ["rv", "lv"]
    np.testing.assert_array_equal(stored(server, image, "original"), segments())
    assert "final" not in objects[image]["labels"], "it is no submission"


def test_auto_update_lets_a_running_training_go_on_and_stop_stops_it(slicer):
    server, _ = slicer
    assert post(server, "/train/slice", {"client_id": "user-1"})[0] == 200

    def running() -> dict | None:
        status, body = call(server, "GET", "/train/?check_if_running=true")
        return json.loads(body) if status == 200 else None

    task = server.wait_for(running)
    assert call(server, "DELETE", "/train/")[0] == 200
    status, body = post(server, "/train/slice", {"client_id": "user-1"})
    assert (status, json.loads(body)["id"]) == (200, task["id"])
    assert running()["id"] == task["id"]
    assert call(server, "DELETE", "/train/")[0] == 200
    server.wait_for(lambda: running() is None, 60)


@needs_chromium
@pytest.mark.parametrize("image", ["A__patient001_frame01", "B__patient001_frame01"])
def test_a_label_drawn_in_ohif_comes_back_onto_the_grid_of_its_file(slicer, browser, image):
    """OHIF shows the slices in an order of its own; files of two orientations, and classes that must not be mixed up."""
    server, root = slicer
    file = root / "studies" / f"{image.replace('__', '/')}.nii.gz"
    write_mask(segments(), nib.load(file).affine, root / "answer.nrrd")
    series = server.get("/proxy/dicom/qido/series", params={"PatientName": image}).json()[0]
    with ohif(browser, server.url, root / f"shots/{image}") as viewer:
        viewer.page.route("**/infer/**", partial(answer_with, (root / "answer.nrrd").read_bytes()))
        viewer.annotate(series["0020000D"]["Value"][0])
        viewer.press("run", "This is what the model sees")
        viewer.shot("mask")
        shown, values = viewer.labelmap(), nib.load(file).get_fdata()
        for index in (1, 2):
            below = np.sort(viewer.image()[shown == index])
            np.testing.assert_array_equal(below, np.sort(values[segments() == index]))
        viewer.press("submit", "label was submitted")
        label = volume_of(server.get("/datastore/label", params={"label": image, "tag": "final"}))
        np.testing.assert_array_equal(label.array[0].numpy(), segments())
        np.testing.assert_allclose(label.affine, nib.load(file).affine, atol=1e-3)
        assert viewer.errors == []
