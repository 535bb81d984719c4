"""The simulated annotator without a server: finding the truth, comparing label files, reading what the server says."""

import nibabel as nib
import numpy as np
import pytest
from benchmarks.annotate import main
from benchmarks.annotator import Annotator, Limits, sentence_of
from benchmarks.events import AnnotatorError
from benchmarks.masks import (
    dice_of_files,
    label_indices,
    label_info,
    point_of_cases,
    point_of_stats,
    stem_of,
    truth_files,
)
from monailabel.client.client import MONAILabelClientException
from PIL import Image


def save_png(path, array):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def save_nifti(path, array, affine):
    nib.save(nib.Nifti1Image(np.asarray(array, dtype=np.uint8), affine), path)
    return path


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.png", "a"),
        ("patient001_frame01.nii.gz", "patient001_frame01"),
        ("case.1.jpg", "case.1"),
        ("1.2.840.nii.gz", "1.2.840"),
        ("x.seg.nrrd", "x"),
        ("X.NII.GZ", "X"),
    ],
)
def test_stem(name, stem):
    assert stem_of(name) == stem


def test_truth_is_found_whatever_its_extension(tmp_path):
    for name in ("a.png", "b.nii.gz", "b.png", ".hidden.png", "case.1.tif"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    found = truth_files(tmp_path)
    assert {stem: path.name for stem, path in found.items()} == {
        "a": "a.png",
        "b": "b.nii.gz",
        "case.1": "case.1.tif",
    }


def test_labels_of_info_are_a_mapping_or_a_list():
    assert label_indices({"background": 0, "rv": 1, "lv": 3}) == {"rv": 1, "lv": 3}
    assert label_indices(["background", "rv", "lv"]) == {"rv": 1, "lv": 2}


def test_label_info_says_which_value_is_which_class():
    assert label_info({"rv": 1, "lv": 3}) == [{"name": "rv", "idx": 1}, {"name": "lv", "idx": 3}]


def test_dice_of_pictures_per_class(tmp_path):
    truth = save_png(tmp_path / "t.png", [[1, 1, 2, 2], [0, 0, 0, 0]])
    prediction = save_png(tmp_path / "p.png", [[1, 0, 2, 2], [0, 0, 0, 0]])
    dice = dice_of_files(prediction, truth, {"a": 1, "b": 2, "c": 3})
    assert dice == pytest.approx({"a": 2 / 3, "b": 1.0, "c": 1.0})


def test_a_class_on_one_side_only_counts_0(tmp_path):
    truth = save_png(tmp_path / "t.png", [[0, 0], [0, 0]])
    prediction = save_png(tmp_path / "p.png", [[1, 0], [0, 0]])
    assert dice_of_files(prediction, truth, {"a": 1}) == {"a": 0.0}


def test_a_truth_of_one_class_may_be_drawn_in_white(tmp_path):
    truth = save_png(tmp_path / "t.png", [[255, 255], [0, 0]])
    prediction = save_png(tmp_path / "p.png", [[1, 1], [0, 0]])
    assert dice_of_files(prediction, truth, {"a": 1}) == {"a": 1.0}


def test_dice_of_volumes_that_are_stored_in_different_orientations(tmp_path):
    array = np.zeros((4, 5, 6))
    array[:2, 1:4, 5] = 1
    truth = save_nifti(tmp_path / "t.nii.gz", array, np.diag([1.0, 1.0, 3.0, 1.0]))
    flipped = np.diag([-1.0, 1.0, 3.0, 1.0])
    flipped[0, 3] = 3.0
    prediction = save_nifti(tmp_path / "p.nii.gz", array[::-1], flipped)
    assert dice_of_files(prediction, truth, {"a": 1}) == {"a": 1.0}


def test_shapes_that_differ_are_refused_in_a_sentence(tmp_path):
    truth = save_png(tmp_path / "t.png", np.zeros((4, 4)))
    prediction = save_png(tmp_path / "p.png", np.zeros((4, 5)))
    with pytest.raises(AnnotatorError, match=r"shape \(4, 4\) of t.png, but got \(4, 5\)"):
        dice_of_files(prediction, truth, {"a": 1})


def test_a_point_is_the_mean_over_images_and_the_spread_between_them():
    point = point_of_cases(5, 2, {"x": {"a": 0.2, "b": 0.6}, "y": {"a": 0.8, "b": 0.8}})
    assert (point.labels, point.version) == (5, 2)
    assert point.dice == pytest.approx(0.6)
    assert point.spread == pytest.approx(0.2)
    assert point.per_class == pytest.approx({"a": 0.5, "b": 0.7})


def test_without_images_there_is_no_dice():
    assert point_of_cases(5, None, {}).dice is None


def test_a_point_of_the_servers_own_validation():
    stats = {"version": 3, "eval": {"metrics": {"val_mean_dice": 0.5, "val_dice_rv": 0.4, "val_dice_lv": 0.6}}}
    point = point_of_stats(10, stats)
    assert (point.version, point.dice, point.per_class) == (3, 0.5, {"rv": 0.4, "lv": 0.6})
    assert point_of_stats(5, {}).dice is None


def test_the_servers_own_sentence_is_shown():
    error = MONAILabelClientException(1, 'Status: 400; Response: {"detail":"The label of a was not saved. Why."}')
    assert sentence_of(error) == "The label of a was not saved. Why."
    assert sentence_of(MONAILabelClientException(1, "Status: 500; Response: no")) == "Status: 500; Response: no"


def test_a_server_that_is_not_there_ends_with_2_and_a_sentence(tmp_path, capsys):
    assert main(["--server", "http://127.0.0.1:9", "--truth", str(tmp_path), "--labels", "1"]) == 2
    assert "does not answer" in capsys.readouterr().out


class FakeServer:
    """Answers like a server with three studies; `order` is what it serves, one run is done after two labels."""

    def __init__(self, order, trains=True):
        self.order, self.trains = list(order), trains
        self.submitted, self.askers, self.held = [], [], {}

    def client(self, server, tmpdir=None, client_id=None):
        return FakeClient(self, client_id)

    def http_method(self, method, server, selector):
        return (404, b"", None, {}) if selector.startswith("/scoring") else (200, b"picture", None, {})


class FakeClient:
    def __init__(self, server, client_id):
        self.server, self.name = server, client_id

    def info(self):
        done = {"run": 1, "status": "done", "version": 1, "live": True, "reason": "first", "step": 3, "total_steps": 3}
        done["eval"] = {"metrics": {"val_mean_dice": 0.5, "val_dice_polyp": 0.5}}
        trained = self.server.trains and len(self.server.submitted) >= 2
        return {
            "labels": {"polyp": 1},
            "strategies": {"low_contrast": {}},
            "train_stats": {"frame": done if trained else {}},
        }

    def datastore(self):
        return {"objects": {"old": {"labels": {"final": {}}}, "a": {"labels": {}}}}

    def train_status(self, check_if_running=False):
        return False if check_if_running else {"id": "1", "status": "DONE"}

    def next_sample(self, strategy, params):
        self.server.askers.append(self.name)
        held = self.server.held.get(self.name)
        if held is None and self.server.order:
            held = self.server.held[self.name] = self.server.order.pop(0)
        return {"id": held, "reason": "because"} if held else {}

    def save_label(self, image, label, tag, params):
        self.server.submitted.append((image, params["label_info"]))
        del self.server.held[self.name]


@pytest.fixture
def annotate_with(monkeypatch, tmp_path):
    def annotate(server, truths, labels=9, every=2):
        monkeypatch.setattr("benchmarks.annotator.MONAILabelClient", server.client)
        monkeypatch.setattr("benchmarks.annotator.MONAILabelUtils.http_method", server.http_method)
        monkeypatch.setattr("benchmarks.annotator._POLL_S", 0.01)
        for name in truths:
            save_png(tmp_path / f"{name}.png", [[0, 1]])
        annotator = Annotator("http://fake", tmp_path, limits=Limits(start=0.05))
        try:
            return annotator, [type(event).__name__ for event in annotator.run(labels, every)]
        finally:
            annotator.close()

    return annotate


def test_labels_everything_that_is_served_and_measures_after_the_training(annotate_with):
    server = FakeServer(["a", "b", "c"])
    annotator, events = annotate_with(server, "abc")
    assert [image for image, _ in server.submitted] == ["a", "b", "c"]
    assert server.submitted[0][1] == [{"name": "polyp", "idx": 1}]
    assert [(p.labels, p.version, p.dice) for p in annotator.curve] == [(2, 1, 0.5)]
    assert events[-3:] == ["Picked", "Labelled", "Exhausted"]


def test_an_image_without_truth_is_left_to_its_lease_and_the_next_one_is_asked_for(annotate_with):
    server = FakeServer(["a", "b", "c"], trains=False)
    _, events = annotate_with(server, "ac", every=9)
    assert [image for image, _ in server.submitted] == ["a", "c"]
    assert events.count("Skipped") == 1
    assert len(set(server.askers)) == 2


def test_a_labelled_image_that_is_served_again_ends_the_loop(annotate_with):
    annotator, events = annotate_with(FakeServer(["a", "old", "c"]), "ac", every=9)
    assert annotator.repeats == ["old"]
    assert (annotator.submitted, events[-1]) == (1, "Picked")


def test_a_training_that_does_not_come_is_said(annotate_with):
    with pytest.raises(AnnotatorError, match="start a training by itself, but none came"):
        annotate_with(FakeServer(["a", "b", "c"], trains=False), "abc")


def test_an_unknown_strategy_lists_those_there_are(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.annotator.MONAILabelClient", FakeServer([]).client)
    with pytest.raises(AnnotatorError, match="one of low_contrast, but got 'best'"):
        Annotator("http://fake", tmp_path, strategy="best").connect()
