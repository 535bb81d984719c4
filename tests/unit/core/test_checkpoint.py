import os
import pickle
import sys
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from unit.helpers import FRAME, SLICE, VOLUME, spec_of

from lib.core.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    load_weights,
    restore_network,
    save_checkpoint,
    why_not_continue,
)
from lib.core.networks import build_network
from lib.core.teacher import StudentTeacher


def plain(value=1.0):
    weights = {"w": torch.full((3,), value)}
    return Checkpoint(
        spec_of(), weights, weights, {"filter": {"local": torch.ones(2)}}, [0.9, 0.8], {"state": {}}, 12, 3
    )


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(replace(plain(), metrics={"dice": 0.5}), tmp_path / "new" / "m.pt")
    got = load_checkpoint(tmp_path / "new" / "m.pt")
    assert got.spec == spec_of()
    assert torch.equal(got.student["w"], torch.ones(3))
    assert torch.equal(got.method["filter"]["local"], torch.ones(2))
    assert (got.thresholds, got.step, got.version, got.metrics) == ([0.9, 0.8], 12, 3, {"dice": 0.5})
    assert got.optimizer == {"state": {}}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.pt"]


def test_a_file_of_before_the_loss_scaling_was_kept_is_read(tmp_path):
    save_checkpoint(plain(), tmp_path / "m.pt")
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    del content["scaler"]
    torch.save(content, tmp_path / "m.pt")
    assert load_checkpoint(tmp_path / "m.pt").scaler == {}


def test_it_travels_to_another_process_as_bytes():
    """Of a tensor each a descriptor of a file would be held there: a thousand of them is more than a process may have."""
    weights = {f"w{n}": torch.full((3,), float(n)) for n in range(50)}
    made = sys.modules[Checkpoint.__module__].Checkpoint  # MONAI Label imports the app's modules anew for each app
    sent = ForkingPickler.dumps(made(spec_of(), weights, weights, step=7))
    before = len(os.listdir("/proc/self/fd"))
    got = pickle.loads(sent)
    assert len(os.listdir("/proc/self/fd")) == before
    assert (got.spec.to_dict(), got.step) == (spec_of().to_dict(), 7)
    assert all(torch.equal(got.student[name], value) for name, value in weights.items())


@pytest.mark.parametrize("where", ["save", "fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    path = tmp_path / "m.pt"
    save_checkpoint(plain(1.0), path)

    def full(*args, **kwargs):
        if where == "save":
            args[1].write(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr({"save": torch, "fsync": os, "replace": os}[where], where, full)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(plain(2.0), path)
    monkeypatch.undo()
    assert float(load_checkpoint(path).student["w"][0]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a model at .*gone\.pt, but there is none; train one first"):
        load_checkpoint(tmp_path / "gone.pt")


@pytest.mark.parametrize("content", [b"", b"garbage " * 50, None])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "m.pt"
    save_checkpoint(plain(), path)
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(
        CheckpointError, match=r"expected a LoCo checkpoint, but m\.pt cannot be read \(\w+\); remove it"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], torch.zeros(2)])
def test_another_programs_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"expected a LoCo checkpoint, but m\.pt is something else"):
        load_checkpoint(tmp_path / "m.pt")


def changed(path, change):
    save_checkpoint(plain(), path)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_a_newer_format_is_refused(tmp_path):
    path = changed(tmp_path / "m.pt", lambda c: c.update(format=FORMAT + 1))
    with pytest.raises(
        CheckpointError, match=rf"expected checkpoint format {FORMAT}, but m\.pt has {FORMAT + 1}; update"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["teacher", "spec", "step"])
def test_a_missing_key_is_named(tmp_path, key):
    path = changed(tmp_path / "m.pt", lambda c: c.pop(key))
    with pytest.raises(CheckpointError, match=rf"expected a complete checkpoint, but m\.pt lacks \['{key}'\]"):
        load_checkpoint(path)


def test_a_specification_that_does_not_fit_is_refused(tmp_path):
    path = changed(tmp_path / "m.pt", lambda c: c["spec"].pop("labels"))
    with pytest.raises(CheckpointError, match=r"m\.pt.*expected a task specification .*'labels'"):
        load_checkpoint(path)


def trained():
    spec = spec_of(VOLUME)
    torch.manual_seed(0)
    network = StudentTeacher(build_network(spec.network, 3)).eval()
    with torch.no_grad():
        for value in network.student.parameters():
            value.mul_(1.3)
    return network, Checkpoint(spec, network.student.state_dict(), network.teacher.state_dict())


def test_a_restored_network_gives_equal_outputs(tmp_path):
    network, checkpoint = trained()
    save_checkpoint(checkpoint, tmp_path / "m.pt")
    torch.manual_seed(1)
    again = restore_network(load_checkpoint(tmp_path / "m.pt")).eval()
    x = torch.rand(1, 1, 16, 16, 32)
    with torch.inference_mode():
        assert torch.equal(again.teacher(x).logits, network.teacher(x).logits)
        assert torch.equal(again.teacher(x).projection, network.teacher(x).projection)
        assert torch.equal(again.student(x).logits, network.student(x).logits)
        assert not torch.equal(again.student(x).logits, again.teacher(x).logits)


def test_weights_of_another_network_are_refused():
    network, checkpoint = trained()
    other = replace(checkpoint, student={"w": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"expected weights of unet3d_small, but: (?s:.*)Missing key"):
        load_weights(network, other)


def test_reasons_not_to_continue():
    spec = spec_of()
    checkpoint = replace(plain(), spec=spec)
    assert why_not_continue(checkpoint, spec) is None
    assert why_not_continue(checkpoint, spec_of(method="supervised", epochs=9)) is None
    assert why_not_continue(checkpoint, replace(spec, network=replace(spec.network, pretrained=True))) is None
    labels = why_not_continue(checkpoint, spec_of(labels={"ulcer": 1}))
    assert labels == "its labels are {'polyp': 1}, now they are {'ulcer': 1}"
    network = why_not_continue(checkpoint, spec_of(network="deeplabv3plus_resnet50"))
    assert "its network is" in network
    assert "deeplabv3plus_resnet50" in network
    assert why_not_continue(checkpoint, spec_of(SLICE)) == "it is a frame model, now studies are read as slice"
    assert why_not_continue(checkpoint, replace(spec, data=replace(FRAME, size=99))) is None
