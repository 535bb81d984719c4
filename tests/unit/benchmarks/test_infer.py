"""Goals of the inference benchmark, and the tensors that count as those of the bare network."""

import pytest
import torch
from benchmarks.demo import ServerError
from benchmarks.infer import Bare, Recorder, account_of, make_studies, missed
from PIL import Image
from unit.helpers import VOLUME, Threshold

from lib.core.cases import load_case
from lib.core.predict import predict


def figures(above=50.0, times=1.2, share=0.9):
    good = {"above_ms": 50.0, "times": 1.2, "throughput_share": 0.9}
    return {"frame": {**good, "above_ms": above}, "volume": {**good, "times": times, "throughput_share": share}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"above": 101.0}, ["frame 101 ms above instead of 100"]),
        ({"times": 1.51}, ["volume 1.51x instead of 1.5x"]),
        ({"share": 0.79}, ["pre-labelling of volumes 0.79 instead of 0.8"]),
    ],
)
def test_each_missed_goal_is_said(change, words):
    assert missed(figures(**change)) == words


def test_the_account_of_pre_labelling_is_read_from_its_log():
    lines = ["[INFO] Pre-labelling ended after 12.34 s: {'label': 60, 'skipped': 0, 'error': 1}", "over"]
    assert account_of({"status": "DONE", "details": lines}) == {"seconds": 12.34, "label": 60}
    with pytest.raises(ServerError, match="ended as ERROR"):
        account_of({"status": "ERROR", "details": ["no memory"]})


def test_the_bare_network_gets_every_window_that_inference_gives_it(tmp_path):
    import nibabel as nib
    import numpy as np

    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 16, 16), dtype=np.float32), np.eye(4)), path)
    recorder = Recorder(Threshold())
    predict(recorder, load_case(str(path), None, VOLUME, 2), VOLUME, torch.device("cpu"))
    assert [tuple(x.shape) for x in recorder.seen] == [(2, 1, 16, 16, 16)]
    assert Bare(recorder.network, [recorder.seen]).seconds(0) > 0


def test_generated_frames_have_the_size_of_the_goal(tmp_path):
    (path,) = make_studies("frame", 1, tmp_path / "frames")
    assert Image.open(path).size == (352, 352)
