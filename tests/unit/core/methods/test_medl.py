from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.methods.medl import weighted_losses
from lib.core.spec import MEDLSpec


class TestMEDL(MethodSuite):
    name = "medl"
    terms = ("loss_unsup", "loss_order", "loss_fisher")
    draws = False

    def test_both_networks_learn(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0

    def test_doubtful_pixels_count_less_than_published(self):
        published = replace(SPEC, medl=MEDLSpec(weight="reliability"))
        ours = self.build().step(batch_of(), LATE).logs["mask_ratio"]
        assert ours < self.build(spec=published).step(batch_of(), LATE).logs["mask_ratio"]


def test_weights_of_one_give_cross_entropy_and_dice_and_of_zero_nothing():
    probs = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).view(1, 2, 1, 2)
    label = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    # CE = -ln 0.75; Dice: class 0 1.5/(0.5625+1), class 1 0/(0.0625)
    expected = 0.5 * 0.28768 + 0.5 * (1 - (1.5 / 1.5625 + 1e-5 / 0.06251) / 2)
    assert float(weighted_losses(probs, label, torch.ones(1, 1, 2))) == pytest.approx(expected, abs=1e-4)
    assert float(weighted_losses(probs, torch.full_like(label, 255), torch.ones(1, 1, 2))) == 0
