from datetime import datetime

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from studies import write_frames, write_volumes

from lib.core.images import read_label
from lib.server.dicomseg import Author, write_seg
from lib.server.folder import FolderStudies
from lib.server.series import cases_of
from lib.server.viewer import Viewer
from lib.store.journal import Journal


@pytest.fixture
def folder(tmp_path):
    """A folder with one frame and two volumes, and the viewer over it."""
    root = tmp_path / "studies"
    write_frames(root, tmp_path / "truth", 1, size=(40, 32))
    write_volumes(root, tmp_path / "truth", 2, (8, 7, 5), (1.5, 1.0, 4.0), ("SLA", "PIR"))
    studies = FolderStudies(root, Journal(root / "loco.sqlite"))
    studies.attach({"lesion": 1}, "(patient[0-9]+)")
    return studies, Viewer(studies, str(root), "project", {"lesion": 1}, "(patient[0-9]+)"), tmp_path


def client_of(viewer):
    """The routes of a viewer, to be asked."""
    app = FastAPI()
    for router in viewer.routers():
        app.include_router(router)
    return TestClient(app)


def test_each_image_has_a_study_that_is_found_again(folder):
    studies, viewer, _ = folder
    for image in studies.list_images():
        sample = viewer.located({"id": image, "reason": "why"})
        assert viewer.image_of(sample["SeriesInstanceUID"]) == image
        assert sample["reason"] == "why"
    assert viewer.image_of("1.2.3") is None
    assert viewer.located({}) == {}


@pytest.mark.parametrize("image", ["frame_000", "patient000_frame01", "patient001_frame01"])
def test_a_segmentation_drawn_on_a_presented_image_comes_back_onto_its_own_grid(folder, image):
    studies, viewer, root = folder
    series = viewer.located({"id": image})["SeriesInstanceUID"]
    instances = viewer._presented.instances(image)
    (case,), _ = cases_of(series, instances)
    (truth,) = (root / "truth").glob(f"{image}.*")
    bright = np.stack([np.atleast_3d(ds.pixel_array).mean(axis=2).T for ds in instances], axis=-1)
    classes = (bright > (110 if image.startswith("frame") else 140)).astype(np.uint8)
    order = [ds.SOPInstanceUID for ds in instances]
    classes = classes[..., [order.index(plane.sop) for plane in case.grid.planes]]
    seg = write_seg(classes, case.grid, instances[0], {"lesion": 1}, Author("ann"), datetime(2024, 1, 2))
    viewer._take(seg, "")
    saved = read_label(studies.get_label_uri(image, "final")).array[0].numpy()
    expected = read_label(truth).array[0].numpy()
    if image.startswith("frame"):
        np.testing.assert_array_equal(saved, classes[:, :, 0])
    else:
        np.testing.assert_array_equal(saved, expected)


def test_the_lookup_answers_with_the_image_or_a_sentence(folder):
    studies, viewer, _ = folder
    client = client_of(viewer)
    series = viewer.located({"id": "frame_000"})["SeriesInstanceUID"]
    assert client.get("/loco/viewer/image", params={"series": series}).json() == {"image": "frame_000"}
    answer = client.get("/loco/viewer/image", params={"series": "1.2"})
    assert (answer.status_code, "open another" in answer.json()["detail"]) == (404, True)
    listed = client.get("/proxy/dicom/qido/studies").json()
    assert len(listed) == 3
    assert len(studies.list_images()) == 3


def test_a_picture_with_a_seg_beside_it_is_opened_without_it(folder):
    _, viewer, _ = folder
    client = client_of(viewer)
    for image, opened in (("frame_000", True), ("patient000_frame01", False)):
        place = viewer.located({"id": image})
        study, series = place["StudyInstanceUID"], place["SeriesInstanceUID"]
        assert client.get("/loco/viewer/pictures", params={"study": study}).json() == {"series": []}
        headers = viewer._presented.instances(image)
        (case,), _ = cases_of(series, headers)
        classes = np.zeros(case.grid.shape, np.uint8)
        viewer._stored.store(
            write_seg(classes, case.grid, headers[0], {"lesion": 1}, Author("x"), datetime(2024, 1, 2))
        )
        found = client.get("/loco/viewer/pictures", params={"study": study}).json()
        assert found == {"series": [series] if opened else []}
    assert client.get("/loco/viewer/pictures", params={"study": "1.2"}).json() == {"series": []}
