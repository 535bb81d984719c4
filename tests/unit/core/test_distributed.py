"""Two ranks with half a batch each are one process with the whole batch."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from datetime import timedelta

import pytest
import torch
from torch import nn
from unit.core.methods.base import CLASSES, LATE, SPEC, TOTAL, batch_of, network_of
from unit.ranks import run_ranks

from lib.core.batch import Batch, gather_batch
from lib.core.distributed import (
    agreed,
    any_rank,
    gathered,
    process_group,
    rank,
    replicate,
    rows_of,
    sum_gradients,
    world_size,
)
from lib.core.methods import METHODS, build_method
from lib.core.spec import TrainSpec
from lib.core.split_batch import split_over_ranks

CASES = {
    **{name: (name, 2, 2, 2) for name, method in METHODS.items() if method.several_processes},
    **{f"{name}, joint": (name, 2, 2, 2, "joint") for name, method in METHODS.items() if method.several_processes},
    "loco in 3D": ("loco", 3, 2, 2),
    "loco, rows that do not divide": ("loco", 2, 3, 2),
    "loco, rows that do not divide, joint": ("loco", 2, 3, 2, "joint"),
    "loco, one row of each": ("loco", 2, 1, 1),
    "loco, one row of each, joint": ("loco", 2, 1, 1, "joint"),
    "supervised, fewer rows than ranks": ("supervised", 2, 1, 1),
}
"""Method, dimension, labelled and unlabelled rows, batch statistics."""
STEPS = 3


def shard_of(batch):
    """This rank's rows."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch) if isinstance(getattr(batch, f.name), torch.Tensor)}
    rows = {k: rows_of(len(v), rank(), world_size()) for k, v in values.items()}
    origins = {
        k: tuple(getattr(batch, k)[i] for i in rows_of(len(getattr(batch, k)), rank(), world_size()))
        for k in ("origin_l", "origin_u")
    }
    return Batch(**{k: v[rows[k].start : rows[k].stop] for k, v in values.items()}, **origins)


def train(name, dims, labelled, unlabelled, statistics="own_gradient"):
    """Some steps on the same batches, in however many processes; plain numbers and tensors."""
    network = network_of(dims)
    second = network_of(dims, seed=12).student if METHODS[name].second else None
    method = build_method(network, replace(SPEC, name=name, batch_statistics=statistics), CLASSES, TOTAL, 5, second)
    networks = [*network.children(), *([second] if second is not None else [])]
    trained = [*network.student.parameters(), *method.parts.parameters()]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    training = TrainSpec(1, STEPS, labelled, unlabelled, 0.1, 0.9)
    losses, gradients = [], []
    for step in range(STEPS):
        shard = shard_of(batch_of(dims, labelled, unlabelled, seed=step, side=12))
        batch = gather_batch(shard, training)
        with split_over_ranks(networks):
            output = method.step(batch, LATE + step)
        optimizer.zero_grad()
        output.loss.backward()
        sum_gradients(p for n in networks for p in n.parameters())
        gradients.append({k: p.grad.clone() for k, p in network.student.named_parameters() if p.grad is not None})
        losses.append({"loss": float(output.loss.detach()), **{k: float(v) for k, v in output.logs.items()}})
        optimizer.step()
        method.after_step(LATE + step, 0.9)
    thresholds = method.thresholds()
    return {
        "losses": losses,
        "gradients": gradients,
        "thresholds": [] if thresholds is None else thresholds.tolist(),
        "weights": {k: v.clone() for k, v in network.state_dict().items()},
    }


class Halves(nn.Module):
    """A network that can be run in two parts."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.second = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.decode(self.encode(x))

    def encode(self, x):
        return [self.first(x)]

    def decode(self, maps):
        return self.second(maps[0])


def train_halves():
    """A pass that is changed in between, of other rows, of fewer than there are ranks; with gradients of the input."""
    torch.manual_seed(1)
    network, image = Halves(), torch.rand(5, 1, 6, 6, requires_grad=True)
    with split_over_ranks([network]):
        maps = network.encode(image)
        parts = [network.decode([m[rows] * 2 for m in maps]) for rows in (slice(None), slice(2, 5), slice(1))]
        loss = sum(p.square().mean() for p in parts) + network(image).sin().mean() + maps[0].cos().mean()
    loss.backward()
    sum_gradients(network.parameters())
    return {
        "loss": loss.detach(),
        "image": image.grad,
        **{k: p.grad for k, p in network.named_parameters()},
        "running": network.first[1].running_var,
    }


def work(folder):
    """What each rank does; all in one go, because starting processes is what takes time."""
    results = {name: train(*case) for name, case in CASES.items()}
    results["halves"] = train_halves()
    linear = nn.Linear(1, 1)
    nn.init.constant_(linear.weight, rank() + 3.0)
    replicate(linear)
    results["weight"] = float(linear.weight.detach())
    results["agreed"] = agreed(lambda: f"from {rank()}")
    results["gathered"] = gathered({"rank": rank()})
    flags = [any_rank(flag, torch.device("cpu")) for flag in (rank() == 1, False)]
    results["flags"] = flags
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(tmp_path_factory.mktemp("ranks"), work)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_process(ranks, case):
    expected = train(*CASES[case])
    for result in (r[case] for r in ranks):
        for ours, theirs in zip(result["losses"], expected["losses"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        for ours, theirs in zip(result["gradients"], expected["gradients"], strict=True):
            assert list(ours) == list(theirs)
            for key in ours:
                torch.testing.assert_close(ours[key], theirs[key], atol=1e-4, rtol=1e-4, msg=f"{case}: {key}")
        assert result["thresholds"] == pytest.approx(expected["thresholds"], abs=1e-4)
        for key, value in result["weights"].items():
            torch.testing.assert_close(value, expected["weights"][key], atol=1e-4, rtol=1e-4, msg=f"{case}: {key}")


def test_parts_of_a_network_may_be_called_and_the_input_may_want_a_gradient(ranks):
    expected = train_halves()
    for result in (r["halves"] for r in ranks):
        for key, value in expected.items():
            torch.testing.assert_close(result[key], value, atol=1e-4, rtol=1e-4, msg=key)


def test_the_test_could_fail(ranks):
    """Half a batch by itself gives other gradients and batch statistics than the whole."""
    whole = ranks[0]["loco"]
    half = train("loco", 2, 1, 1)
    assert not torch.allclose(half["gradients"][0]["classifier.weight"], whole["gradients"][0]["classifier.weight"])
    key = "student.body.1.running_mean"
    assert not torch.allclose(half["weights"][key], whole["weights"][key], atol=1e-4)


def test_all_ranks_end_with_the_same_weights(ranks):
    for case in CASES:
        first, second = (r[case]["weights"] for r in ranks)
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_what_ranks_tell_each_other(ranks):
    assert [r["weight"] for r in ranks] == [3.0, 3.0]
    assert [r["agreed"] for r in ranks] == ["from 0", "from 0"]
    assert [r["gathered"] for r in ranks] == [[{"rank": 0}, {"rank": 1}]] * 2
    assert [r["flags"] for r in ranks] == [[True, False]] * 2


def wait_for_a_dead_rank(folder):
    if rank() == 1:
        time.sleep(3)
        return "late"
    try:
        gathered(0)
    except RuntimeError as e:
        return f"{type(e).__name__}: {e}"
    return "nothing happened"


def test_a_rank_that_does_not_answer_ends_the_wait_of_the_others(tmp_path):
    waited, late = run_ranks(tmp_path, wait_for_a_dead_rank, timeout_s=1)
    assert late == "late"
    assert "imed out" in waited


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("world", [1, 2, 3])
def test_rows_are_divided_without_gap_or_overlap(count, world):
    parts = [list(rows_of(count, r, world)) for r in range(world)]
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_other_ranks_nothing_changes(tmp_path):
    assert (rank(), world_size()) == (0, 1)
    batch = batch_of()
    assert gather_batch(batch, TrainSpec(1, 1, 2, 2, 0.1, 0.9)).image_l is batch.image_l
    network = network_of()
    with split_over_ranks(network.children()):
        assert "forward" not in vars(network.student)
    with process_group("gloo", (tmp_path / "one").as_uri(), 0, 1, timedelta(seconds=10)):
        assert (rank(), world_size()) == (0, 1)
        assert gathered("x") == ["x"]
