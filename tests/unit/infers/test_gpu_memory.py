"""A GPU that runs out of memory, simulated: less at once, and the reply says so."""

import pytest
import torch

from lib.core import predict
from lib.core.methods import METHODS
from lib.core.plan import plan_task
from lib.core.spec import MethodSpec
from lib.trainers.options import smaller_batches


def predict_with(room, asked):
    """`predict` on a GPU with room for some slices at once."""

    def answer(network, case, data, device, with_projection=False, at_once=8):
        asked.append(at_once)
        if at_once > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "prediction"

    return answer


def test_inference_goes_on_with_one_slice_at_a_time_and_says_so(monkeypatch):
    asked = []
    monkeypatch.setattr(predict, "predict", predict_with(4, asked))
    prediction, note = predict.predict_in_memory(None, None, None, torch.device("cpu"))
    assert (prediction, note, asked) == ("prediction", "one slice at a time, for want of GPU memory", [8, 1])
    monkeypatch.setattr(predict, "predict", predict_with(0, asked))
    with pytest.raises(torch.OutOfMemoryError):
        predict.predict_in_memory(None, None, None, torch.device("cpu"))


def test_batches_become_smaller_until_one_of_each_is_left():
    assert "supervised" in METHODS
    spec = plan_task("frame", {"lesion": 1}, [], MethodSpec(name="supervised"), False)
    options, seen = {"train_batch_size": 8, "unlabeled_batch_size": 3}, []
    while smaller := smaller_batches(spec, options):
        options.update(smaller)
        seen.append((options["train_batch_size"], options["unlabeled_batch_size"]))
    assert seen == [(4, 1), (2, 1), (1, 1)]
    assert smaller_batches(spec, {"train_batch_size": 1, "unlabeled_batch_size": 0}) is None
