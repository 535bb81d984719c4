from dataclasses import replace
from math import exp, log

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of

from lib.core.local_contrast import anchored_sums, joined, near_object, pair_sums
from lib.core.losses import image_dice


class TestLPC(MethodSuite):
    name = "lpc"
    own_form = (LATE,)
    terms = ("loss_contrast",)

    def build(self, dims=2, **kwargs):
        """With a teacher whose labels are of more than one class, which those of random weights need not be."""
        method = super().build(dims, **kwargs)
        teacher = method.network.teacher
        with torch.no_grad():
            logits = teacher(batch_of(dims).image_u_weak).logits
            teacher.classifier.bias -= logits.movedim(1, 0).flatten(1).mean(1)
        method.parts["labeller"].load_state_dict(teacher.state_dict())
        return method

    def test_the_loss_by_hand(self):
        output = self.build().step(batch_of(), LATE)
        expected = float(output.logs["loss_sup"]) + 0.1 * float(output.logs["loss_contrast"])
        assert float(output.loss.detach()) == pytest.approx(expected)

    def test_the_labeller_is_renewed_at_the_start_of_each_round(self):
        method, renewed = self.build(), []
        for step in range(method.pretraining_steps, 40):
            with torch.no_grad():
                method.network.teacher.classifier.weight.add_(1.0)
            method.step(batch_of(), step)
            same = torch.equal(method.parts["labeller"].classifier.weight, method.network.teacher.classifier.weight)
            renewed += [step] if same else []
        assert renewed == [10, 20, 30]

    def test_steps_that_the_rounds_leave_over_belong_to_the_last(self):
        method, renewed = self.build(total=45), []
        method.parts["labeller"].load_state_dict = lambda _: renewed.append(step)
        for step in range(method.pretraining_steps, 45):
            method._pseudo_label(batch_of(), step)
        assert renewed == [11, 22, 33]  # of 34 steps

    def test_raw_labels_if_asked_for(self):
        kept = {}
        for clean in ("components", "none"):
            method = self.build(spec=replace(SPEC, lpc=replace(SPEC.lpc, clean=clean)))
            kept[clean] = int((method._pseudo_label(batch_of(), LATE) == 0).sum())
        assert kept["components"] > kept["none"]


def test_a_pair_by_hand():
    """Two classes with orthogonal means, one anchor each on its mean, both images alike: every term is the same."""
    means = torch.eye(2)[None]
    side = (means[:, :, None], means, torch.ones(1, 2, dtype=torch.bool))
    term = log(2 * (exp(1) + exp(0))) - 1
    assert float(anchored_sums(side, side, temperature=1.0)) == pytest.approx(8 * term, rel=1e-5)
    lone = (*side[:2], torch.tensor([[True, False]]))
    term = log(2 * exp(1) + exp(0)) - 1
    assert float(anchored_sums(side, lone, temperature=1.0)) == pytest.approx(4 * term, rel=1e-5)


def test_pairs_without_a_class_in_common_do_not_count():
    assert float(joined(torch.tensor([6.0, 0.0, 12.0]), 3, "mean")) == pytest.approx(3)
    assert float(joined(torch.zeros(2), 3, "mean")) == 0


def test_large_images_in_half_precision():
    z, y = torch.full((1, 4, 300, 300), 3.0), torch.ones(1, 300, 300, dtype=torch.uint8)
    y[:, :150] = 2
    with torch.autocast("cpu", dtype=torch.float16):
        sums = pair_sums(z, z, y, y, 3, SPEC.lpc, torch.Generator().manual_seed(0))
    assert float(sums) == pytest.approx(2 * 3 * 4 * log(4), rel=1e-5)  # classes, anchors, terms; all vectors are alike


def test_background_far_from_the_object_is_left_out():
    label = torch.zeros(2, 1, 20, dtype=torch.uint8)
    label[0, 0, 0] = 1
    assert near_object(label)[0, 0].tolist() == [1] + [0] * 5 + [255] * 14
    assert bool((near_object(label)[1] == 0).all())


def test_dice_by_hand():
    logits = torch.zeros(2, 2, 1, 2)
    label = torch.tensor([[[0, 1]], [[255, 255]]], dtype=torch.uint8)
    assert float(image_dice(logits, label)) == pytest.approx(0.25)  # 2 * 0.5 / (1 + 1), and an image that is ignored
