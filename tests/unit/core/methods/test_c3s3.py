import math
from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.losses import foreground_dice
from lib.core.memory import outcome_contrast
from lib.core.methods.c3s3 import cosine_distance, sharpened
from lib.core.spec import C3S3Spec


class TestC3S3(MethodSuite):
    name = "c3s3"
    terms = ("loss_cos", "loss_cp", "loss_iuc")
    spec = replace(SPEC, consistency_weight=1.0, c3s3=C3S3Spec(points=24))

    def test_the_winner_teaches_and_the_loser_learns(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.network.student) > 0
        assert gradient(method.parts["second"]) > 0
        output = method.step(batch_of(), LATE)
        winner = [method.network.student, method.parts["second"]][int(output.logs["winner"])]
        for p in [*method.network.parameters(), *method.parts.parameters()]:
            p.grad = None
        (output.loss * 0).backward()
        assert gradient(winner) == 0

    def test_equal_views_agree_as_published(self):
        same = replace(self.spec, c3s3=C3S3Spec(view_noise=0.0))
        assert float(self.build(spec=same).step(batch_of(), LATE).logs["loss_cos"]) == pytest.approx(0, abs=1e-5)


def test_outcome_contrast_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[3.0, 0.0], [1.0, 0.0]])  # cosines 1 and 0
    l_int, l_uni = outcome_contrast(a, b, torch.tensor([True, True]), torch.tensor([True, False]), tau=1.0)
    # I = (1, 0): sum_j e^((1-I_j) s_j) = e^0 + e^0; U = (1, 1): sum_j e^(U_j s_j) = e + 1, own terms e^0
    assert float(l_int) == pytest.approx((math.log(2 + math.e) - 1 + math.log(3)) / 2)
    assert float(l_uni) == pytest.approx(math.log(math.e + 2))


def test_sharpening_raises_the_largest_and_has_no_gradient():
    logits = torch.log(torch.tensor([0.6, 0.4])).view(1, 2, 1, 1).requires_grad_()
    q = sharpened(logits, 0.5)
    assert q.flatten().tolist() == pytest.approx([0.36 / 0.52, 0.16 / 0.52])
    assert not q.requires_grad


def test_dice_of_the_foreground_leaves_the_background_and_ignored_pixels_out():
    logits = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 50.0]]).view(1, 2, 1, 3)
    label = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    assert float(foreground_dice(logits, label)) == pytest.approx(0, abs=1e-5)
    assert float(foreground_dice(-logits, label)) == pytest.approx(1, abs=1e-4)


def test_distance_over_classes_is_not_that_over_space():
    first = torch.tensor([[9.0, 0.0], [0.0, 9.0]]).view(1, 2, 1, 2)
    everywhere, nowhere = torch.ones(1, 1, 2, dtype=torch.bool), torch.zeros(1, 1, 2, dtype=torch.bool)
    assert float(cosine_distance(first, first.flip(1), everywhere, "classes")) > 0.99
    assert float(cosine_distance(first, first.flip(1), nowhere, "classes")) == 0
    assert float(cosine_distance(first, first + 9, everywhere, "classes")) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(first, first + 9, everywhere, "last_axis")) > 0.1
