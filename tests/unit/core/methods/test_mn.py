from dataclasses import replace
from math import log

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.methods.mn import slices_of, soft_loss, unlabelled_count, volume_of


class TestMN(MethodSuite):
    name = "mn"
    own_form = (0, LATE)
    spatial = (3,)
    draws = False
    """Only whether a fraction of a volume is rounded up, see below."""

    def test_both_networks_learn_in_each_step_and_in_turns_if_asked_to(self):
        for turns, expected in ((0, [True, True]), (5, [False, True]), (25, [False, True]), (24, [True, False])):
            method = self.build(spec=replace(SPEC, mn=replace(SPEC.mn, turns=turns)))
            step = method.pretraining_steps + (24 if turns == 24 else 0)
            method.step(batch_of(3), step).loss.backward()
            learned = [gradient(m) > 0 for m in (method.network.student, method.parts["second"])]
            assert learned == expected, turns

    def test_nothing_moves_of_the_network_whose_turn_it_is_not(self):
        method = self.build(spec=replace(SPEC, mn=replace(SPEC.mn, turns=5)))
        networks = {"3d": method.network.student, "2d": method.parts["second"]}
        for start, moves in ((0, "2d"), (5, "3d")):
            before = {name: n.body[1].running_mean.clone() for name, n in networks.items()}
            method.step(batch_of(3), method.pretraining_steps + start)
            moved = [name for name, n in networks.items() if not torch.equal(n.body[1].running_mean, before[name])]
            assert moved == [moves]
            assert all(n.training for n in networks.values())

    def test_targets_are_the_others_answers_in_evaluation_mode(self):
        method, batch = self.build(), batch_of(3)
        for_3d, for_2d = method._targets(batch.image_u_weak)
        with torch.no_grad():
            expected = method.network.student.eval()(batch.image_u_weak).logits.softmax(1)
        assert torch.allclose(for_2d, expected)
        assert torch.allclose(for_3d.sum(1), torch.ones_like(for_3d.sum(1)))
        assert method.parts["second"].training

    def test_without_an_unlabelled_volume_in_the_step_no_network_is_asked(self):
        method, batch, calls = self.build(), batch_of(3), []
        method.parts["second"].register_forward_hook(lambda m, x, y: calls.append(len(x[0])))
        targets = method._targets(batch.image_u_weak[:0])
        assert [tuple(t.shape) for t in targets] == [(0, 3, 8, 8, 8)] * 2
        assert calls == []

    def test_the_unlabelled_share_grows(self):
        method, batch = self.build(), batch_of(3, labelled=2, unlabelled=2)
        counts = [method._counts(batch, step) for step in range(method.pretraining_steps, 40)]
        assert counts[0] == (2, 0)
        assert counts[-1][1] == 2
        assert all(1 <= n_l <= 2 for n_l, _ in counts)
        early, late = (sum(n for _, n in part) for part in (counts[:12], counts[-12:]))
        assert late > early


def test_unlabelled_volumes_of_the_published_run():
    counts = {e: int(unlabelled_count(e, 500, 4000, 5)) for e in (0, 500, 1199, 1200, 1900, 2600, 3300, 3999)}
    assert list(counts.values()) == [0, 0, 0, 1, 2, 3, 4, 4]


def test_slices_and_back():
    volume = torch.arange(2 * 3 * 2 * 2 * 4.0).view(2, 3, 2, 2, 4)
    slices = slices_of(volume)
    assert tuple(slices.shape) == (8, 3, 2, 2)
    assert torch.equal(slices[1], volume[0, ..., 1])
    assert torch.equal(volume_of(slices, 4), volume)


def test_soft_loss_by_hand():
    logits = torch.zeros(1, 2, 1, 1, 1)
    one = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
    valid = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    dice = (2 * 0.5 / (0.25 + 1) + 0) / 2
    assert float(soft_loss(logits, one, valid)) == pytest.approx(1 - dice + log(2) / 2)
    assert float(soft_loss(logits, one, valid & False)) == 0
