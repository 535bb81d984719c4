"""Pictures of the studies: what is in the layers, that they lie on each other, and that no request draws one itself."""

import io
import threading

import numpy as np
import pytest
from PIL import Image
from unit.desks import client_of, open_desk, publish, submit
from unit.helpers import SLICE, VOLUME, nifti, reoriented

from lib.core.cases import load_case
from lib.server.page.drawing import SIZE, colour_of, draw
from lib.server.page.drawings import Drawings
from lib.server.page.worker import Worker

PATIENCE_S = 300


@pytest.fixture
def desk(tmp_path):
    return open_desk(tmp_path, 3)


def pixels(content, mode="RGBA"):
    return np.asarray(Image.open(io.BytesIO(content)).convert(mode))


def drawn(drawings, image, layer, mark=None):
    """A layer once it is drawn."""
    mark = mark or drawings.mark(image)
    first = drawings.layer(image, layer, mark)
    if first is None:
        for worker in drawings._workers.values():
            assert worker.wait(PATIENCE_S)
        first = drawings.layer(image, layer, mark)
    assert first is not None
    return first


def truth_of(desk, image):
    """Lesion of a frame at the size of the pictures."""
    path = desk.journal.path.parents[1] / "truth" / f"{image}.png"
    mask = Image.open(path)
    scale = SIZE / max(mask.size)
    return np.asarray(mask.resize([round(n * scale) for n in mask.size])) > 0


def test_without_a_model_there_is_a_picture_and_nothing_in_it(desk):
    drawings = Drawings(desk)
    picture = pixels(drawn(drawings, "frame_000", "image"), "RGB")
    assert picture.shape == (398, SIZE, 3)
    inside = truth_of(desk, "frame_000")
    assert picture[inside].mean() > picture[~inside].mean() + 30
    assert [drawn(drawings, "frame_000", layer) for layer in ("contour", "band", "label")] == [b"", b"", b""]


def test_contour_and_band_follow_the_border_and_the_label_is_drawn_beside(desk):
    publish(desk)
    submit(desk, "frame_000")
    drawings = Drawings(desk)
    inside = truth_of(desk, "frame_000")
    layers = {name: pixels(drawn(drawings, "frame_000", name)) for name in ("contour", "band", "label")}
    assert {layer.shape for layer in layers.values()} == {(398, SIZE, 4)}
    rows, columns = np.nonzero(inside)
    centre = round(rows.mean()), round(columns.mean())
    for name in layers:
        assert layers[name][centre][3] == 0, f"{name} leaves the middle of the lesion free"
        assert layers[name][0, 0, 3] == 0
    colour = tuple(int(colour_of(1)[i : i + 2], 16) for i in (1, 3, 5))
    dashes = (layers["label"][..., :3] == colour).all(axis=-1) & (layers["label"][..., 3] == 255)
    assert inside[dashes].mean() > 0.9, "the line lies on the label's own pixels"
    dim = tuple(int(0.35 * value) for value in colour)
    gaps = (layers["label"] == (*dim, 255)).all(axis=-1)
    assert 0.4 < dashes.sum() / (dashes | gaps).sum() < 0.6, "by which it is told from what the model draws"
    assert 0.8 < (dashes | gaps)[:, centre[1]].sum() / 8 < 2.5, "crossed twice, a few pixels wide"


def test_a_volume_moves_to_the_slice_in_which_the_model_finds_most(tmp_path):
    desk = open_desk(tmp_path, 1, "slice")
    (image,) = desk.studies.list_images()
    publish(desk)
    drawings = Drawings(desk)
    plain = drawings.mark(image)
    before = drawn(drawings, image, "image", plain)
    assert drawings.layer(image, "contour", plain) is None
    assert drawings._workers["drawn"].wait(PATIENCE_S)
    after = drawings.mark(image)
    assert after != plain
    assert drawings.layer(image, "contour", plain) is None, "it would not lie on the picture of the older mark"
    assert drawings.count == 1
    contour, picture = pixels(drawn(drawings, image, "contour", after)), pixels(drawn(drawings, image, "image", after))
    assert contour.shape == picture.shape
    assert pixels(before).shape == picture.shape


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "ILA"])
@pytest.mark.parametrize("data", [SLICE, VOLUME], ids=["slice", "volume"])
def test_a_volume_is_shown_with_the_patients_right_on_the_left_and_the_front_on_top(tmp_path, codes, data):
    array = np.full((24, 20, 6), 100, dtype=np.int16)
    array[16:, 15:, :] = 200  # right and front
    array[:8, :5, :] = 0  # left and back
    path = nifti(tmp_path / "volume.nii.gz", *reoriented(array, np.diag([1.0, 1.0, 6.0, 1.0]), codes))
    layers = draw(load_case(path, None, data, 2), None, {"polyp": 1}, picture=False)
    shown = pixels(layers["image"], "L")
    assert shown.shape == (round(SIZE * 20 / 24), SIZE)
    rows, columns = shown.shape
    assert shown[: rows // 5, : columns // 4].mean() > 240
    assert shown[-rows // 5 :, -columns // 4 :].mean() < 15
    assert 100 < shown[rows // 2 - 9 : rows // 2 + 9, columns // 2 - 9 : columns // 2 + 9].mean() < 155


def test_a_picture_changes_its_mark_with_its_file_its_label_and_the_model(desk):
    drawings = Drawings(desk)
    marks = [drawings.mark("frame_000")]
    publish(desk)
    marks.append(drawings.mark("frame_000"))
    submit(desk, "frame_000")
    marks.append(drawings.mark("frame_000"))
    path = desk.studies.get_image_uri("frame_000")
    Image.open(path).rotate(180).save(path)
    marks.append(drawings.mark("frame_000"))
    assert len(set(marks)) == 4


def test_it_is_kept_over_a_restart(desk):
    publish(desk)
    first = drawn(Drawings(desk), "frame_000", "contour")
    again = Drawings(desk)
    assert again.layer("frame_000", "contour", again.mark("frame_000")) == first


def test_the_route_answers_at_once_and_then_with_the_picture(desk, monkeypatch):
    publish(desk)
    gate = threading.Event()
    look = desk.segmentation.look
    monkeypatch.setattr(desk.segmentation, "look", lambda image: gate.wait(PATIENCE_S) and look(image))
    client = client_of(desk)
    (address,) = {f"/loco/page/thumbnail?image={image}&layer=contour" for image in ["frame_001"]}
    waiting = client.get(address)
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (202, "1")
    gate.set()
    answer = wait(client, address)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert "private" in answer.headers["Cache-Control"]
    again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def wait(client, address):
    for _ in range(PATIENCE_S * 10):
        answer = client.get(address)
        if answer.status_code != 202:
            return answer
        threading.Event().wait(0.1)
    raise AssertionError(f"{address} was never drawn")


def test_what_cannot_be_drawn_says_why(desk):
    path = desk.studies.get_image_uri("frame_002")
    with open(path, "wb") as file:
        file.write(b"no picture")
    client = client_of(desk)
    answer = wait(client, "/loco/page/thumbnail?image=frame_002")
    assert answer.status_code == 422
    assert "cannot be read" in answer.json()["detail"]
    assert client.get("/loco/page/thumbnail?image=../secret").status_code == 404
    assert client.get("/loco/page/thumbnail?image=frame_000&layer=skin").status_code == 400
    assert client.get("/loco/page/thumbnail?image=frame_000&layer=band").status_code == 204


# --- the worker


def test_what_was_asked_for_last_is_done_first_and_what_is_too_much_is_dropped():
    worker, gate, begun, done = Worker("test", 1, 2), threading.Event(), threading.Event(), []
    worker.ask("busy", lambda: (begun.set(), gate.wait(PATIENCE_S), done.append("busy")))
    assert begun.wait(PATIENCE_S)
    for key in ("first", "second", "third", "busy"):
        worker.ask(key, lambda key=key: done.append(key))
    assert (worker.state("busy"), worker.state("first"), worker.state("third")) == ("running", "", "waiting")
    gate.set()
    assert worker.wait(PATIENCE_S)
    assert done == ["busy", "third", "second"]


def test_a_job_that_fails_is_remembered_until_it_is_forgiven():
    worker = Worker("test", 1, 5)
    worker.ask("a", lambda: 1 / 0)
    assert worker.wait(PATIENCE_S)
    assert "the server's log says why" in worker.failure("a")
    worker.forgive("a")
    assert worker.failure("a") is None
    worker.ask("a", lambda: None)
    assert worker.wait(PATIENCE_S)
    assert worker.failure("a") is None
