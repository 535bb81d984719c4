from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.methods.cps import cross_supervision


class TestCPS(MethodSuite):
    name = "cps"
    terms = ("loss_sup_2", "loss_cross", "loss_cross_2")
    draws = False
    spec = replace(SPEC, consistency_weight=1.0)

    def test_the_loss_is_the_weighted_sum(self):
        output = self.build().step(batch_of(), LATE)
        total = sum(float(output.logs[k]) for k in ("loss_sup", "loss_sup_2", "loss_cross", "loss_cross_2"))
        assert output.logs["weight"] == 1
        assert float(output.loss.detach()) == pytest.approx(total)

    def test_both_networks_learn_and_the_second_one_goes_on_from_the_saved_state(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0
        state = method.state_dict()["parts"]
        assert set(state) == {f"second.{k}" for k in method.network.student.state_dict()}

    def test_the_labelled_images_take_part_if_asked_for(self):
        every = self.build(spec=replace(self.spec, cps=replace(SPEC.cps, images="all")))
        batch = batch_of()
        batch.ignore_u.fill_(255)
        assert float(self.build().step(batch, LATE).logs["loss_cross"]) == 0
        assert float(every.step(batch, LATE).logs["loss_cross"]) > 0


def test_each_network_learns_the_others_label_by_hand():
    first = torch.zeros(1, 2, 1, 2).requires_grad_()
    second = torch.tensor([[0.0, 5.0], [3.0, 0.0]]).view(1, 2, 1, 2).requires_grad_()
    ignore = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    loss_1, loss_2 = cross_supervision(first, second, ignore)
    assert float(loss_1.detach()) == pytest.approx(0.6931, abs=1e-4)  # label 1 of the second, probability 0.5
    assert float(loss_2.detach()) == pytest.approx(3.0486, abs=1e-4)  # label 0 of the first: ln(1 + e^3)
    loss_1.backward()
    assert second.grad is None
    assert bool(first.grad[..., 1].eq(0).all())
