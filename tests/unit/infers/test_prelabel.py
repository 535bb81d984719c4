"""Pre-labels: overlapping load, work and write; whose drafts stay; what a study that cannot be read does."""

import logging
import re
import threading
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from fastapi import HTTPException
from PIL import Image
from unit.helpers import Threshold, spec_of

from lib import progressbar
from lib.core.checkpoint import Checkpoint
from lib.core.images import CaseError
from lib.infers.prelabel import PreLabelling, overlapped, side_by_side, write_mask
from lib.infers.segmentation import LiveModel


def test_each_item_comes_back_in_order_with_what_was_written():
    found = list(overlapped(range(20), lambda i: i + 1, lambda x: 10 * x, lambda i, r: (i, r), 2, 3))
    assert found == [(i, (i, 10 * (i + 1))) for i in range(20)]
    assert list(overlapped([], str, str, str, 2, 3)) == []


def test_the_next_one_is_loaded_and_the_last_one_written_while_one_is_worked_on():
    """Each step waits for one of another item: one after the other would never end."""
    loaded, written = [threading.Event() for _ in range(4)], [threading.Event() for _ in range(4)]

    def load(i):
        loaded[i].set()
        return i

    def work(i):
        assert i == 3 or loaded[i + 1].wait(10)
        assert i == 0 or written[i - 1].wait(10)
        return i

    list(overlapped(range(4), load, work, lambda i, _: written[i].set(), 1, 2))


def test_no_more_than_the_given_number_is_loaded_ahead():
    waiting, most = 0, 0
    lock = threading.Lock()

    def load(i):
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return i

    def work(i):
        nonlocal waiting
        with lock:
            waiting -= 1
        return i

    list(overlapped(range(50), load, work, lambda i, r: None, 3, 4))
    assert most <= 5  # four ahead and the one that is worked on


def test_a_study_that_the_gpu_has_no_room_for_is_reported_and_the_rest_goes_on():
    def work(i):
        if i == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return i

    found = dict(overlapped(range(4), lambda i: i, work, lambda i, r: r, 1, 2))
    assert isinstance(found.pop(1), torch.OutOfMemoryError)
    assert found == {0: 0, 2: 2, 3: 3}


def test_what_cannot_be_read_or_written_is_reported_and_the_rest_goes_on():
    def load(i):
        if i == 1:
            raise CaseError("a.png", "it is empty")
        return i

    def write(i, _):
        if i == 2:
            raise HTTPException(400, "not on the grid")
        return "ok"

    found = dict(overlapped(range(4), load, lambda x: x, write, 2, 2))
    assert found[0] == found[3] == "ok"
    assert isinstance(found[1], CaseError)
    assert found[2].detail == "not on the grid"


def test_a_defect_ends_the_run():
    with pytest.raises(ZeroDivisionError):
        list(overlapped([1, 0], lambda i: 1 / i, lambda x: x, lambda i, r: r, 1, 1))


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_on_a_cpu_studies_are_worked_on_side_by_side_with_a_share_of_the_threads_each(four_threads):
    together = threading.Barrier(4)

    def work(i):
        together.wait(10)  # alone, each would wait for ever
        return 10 * i, torch.get_num_threads()

    assert list(side_by_side(range(8), work)) == [(i, (10 * i, 1)) for i in range(8)]
    assert torch.get_num_threads() == 4
    assert list(side_by_side([], work)) == []


def test_side_by_side_an_unreadable_study_is_reported_and_a_defect_ends_the_run(four_threads):
    def work(i):
        if i == 1:
            raise CaseError("a.png", "it is empty")
        return 1 / i

    found = dict(side_by_side([3, 1, 2], work))
    assert (found[3], found[2]) == (1 / 3, 1 / 2)
    assert isinstance(found[1], CaseError)
    with pytest.raises(ZeroDivisionError):
        list(side_by_side([2, 0], work))
    assert torch.get_num_threads() == 4


def test_masks_are_written_on_their_grid(tmp_path):
    mask = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert np.array_equal(np.asarray(Image.open(write_mask(mask, None, tmp_path))), mask.T.numpy())  # columns, rows
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    saved = nib.load(write_mask(mask[..., None], affine, tmp_path))
    assert np.array_equal(saved.affine, affine)
    assert np.array_equal(np.asarray(saved.dataobj)[..., 0], mask.numpy())


class Store:
    """A datastore of three frames, `b` unreadable, with drafts."""

    def __init__(self, folder, drafts):
        self.folder, self.drafts, self.saved = folder, drafts, {}

    def list_images(self):
        return ["a", "b", "c"]

    def get_image_uri(self, image):
        return str(self.folder / f"{image}.png")

    def get_labels_by_image_id(self, image):
        return {"original": image} if image in self.drafts else {}

    def get_label_info(self, image, tag):
        return self.drafts[image]

    def keep_label(self, image, file, tag, found, info):
        self.saved[image] = (np.asarray(Image.open(file)), tag, info)
        return image


@pytest.fixture
def prelabel(tmp_path):
    for image in "ac":
        picture = np.zeros((20, 40, 3), dtype=np.uint8)
        picture[:, :20] = 200
        Image.fromarray(picture).save(tmp_path / f"{image}.png")
    (tmp_path / "b.png").write_bytes(b"")

    def run(drafts=None, **request):
        checkpoint = Checkpoint(spec_of(), {}, {}, version=3)
        live = LiveModel(checkpoint, SimpleNamespace(teacher=Threshold(level=0.5)), 0)
        store = Store(tmp_path, drafts or {})
        task = PreLabelling({"frame": SimpleNamespace(live=lambda device: live)})
        return task({"model": "frame", "device": "cpu", **request}, store, None), store

    return run


def test_studies_get_drafts_and_an_unreadable_one_its_reason(prelabel):
    reply, store = prelabel()
    mask, tag, info = store.saved["a"]
    assert mask.shape == (20, 40)
    assert mask[:, :20].all()
    assert not mask[:, 20:].any()
    assert tag == "original"
    assert info["params"]["model_version"] == 3
    assert info["params"]["label_names"] == dict(spec_of().labels)
    assert set(store.saved) == {"a", "c"}
    assert "the file is empty" in reply["images"]["b"]["error"]
    assert (reply["label"], reply["error"], reply["skipped"]) == (2, 1, 0)


def test_the_log_tells_how_far_it_is(prelabel, monkeypatch, caplog):
    monkeypatch.setattr(progressbar, "LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO):
        prelabel()
    lines = [r.getMessage() for r in caplog.records if r.name == "lib.infers.prelabel"]
    assert any(re.fullmatch(r"Pre-labelling: 1 of 3, .* per (s|min|h), .* left", line) for line in lines)
    assert any(re.fullmatch(r"Pre-labelling: 3 of 3, .* per (s|min|h), done in .*", line) for line in lines)


@pytest.mark.parametrize(
    ("draft", "request_", "saved"),
    [
        ({"params": {"model_version": 3}}, {}, {"c"}),
        ({"params": {"model_version": 2}}, {}, {"a", "c"}),
        ({"params": {}}, {}, {"c"}),
        ({}, {"overwrite": True}, {"a", "c"}),
        ({"params": {"model_version": 3}}, {"max_batch_size": 1}, set()),
        ({}, {"images": ["c"]}, {"c"}),
    ],
)
def test_drafts_of_people_and_of_the_live_model_stay(prelabel, draft, request_, saved):
    reply, store = prelabel({"a": draft}, **request_)
    assert set(store.saved) == saved
    assert reply["skipped"] == (0 if "a" in saved or request_.get("images") else 1)


def test_an_unknown_model_is_refused(prelabel):
    with pytest.raises(HTTPException, match="expected a model, one of frame, but got 'volume'"):
        prelabel(model="volume")
