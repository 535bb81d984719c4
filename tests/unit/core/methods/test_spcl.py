from dataclasses import replace
from math import inf, log

import numpy as np
import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.selfpaced import pair_losses, pair_weights, partition, self_paced, turned
from lib.core.spec_methods import MetaLabel, SPCLSpec


class TestSPCL(MethodSuite):
    name = "spcl"
    own_form = (0,)
    terms = ("loss_contrast",)
    spatial = (2,)
    draws = False

    def test_the_loss_by_hand(self):
        output = self.build().step(batch_of(), LATE)
        expected = float(output.logs["loss_sup"]) + 0.1 * float(output.logs["loss_contrast"])
        assert float(output.loss.detach()) == pytest.approx(expected)

    def test_pretraining_moves_the_encoder_and_the_projectors_alone(self):
        method = self.build()
        method.step(batch_of(), 0).loss.backward()
        assert gradient(method.network.student.body) > 0
        assert gradient(method.network.student.down) > 0
        assert gradient(method.network.student.classifier) == 0
        assert gradient(method.parts) > 0

    def test_the_second_view_of_pretraining_has_a_geometry_of_its_own(self):
        method, batch, seen = self.build(), batch_of(labelled=4, unlabelled=4), []
        method.network.student.body.register_forward_hook(lambda m, x, y: seen.append(x[0]))
        for step in (0, 0, 1, LATE):
            method.step(batch, step)
        second = torch.cat([batch.image_l_strong, batch.image_u_strong])
        assert torch.equal(seen[0][:8], torch.cat([batch.image_l, batch.image_u_weak]))
        assert not torch.equal(seen[0][8:], second)
        assert torch.equal(seen[0][8:].flatten(1).sort().values, second.flatten(1).sort().values)
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0][8:], seen[2][8:])
        assert torch.equal(seen[3][8:], batch.image_u_strong)  # not so behind pre-training

    def test_projectors_are_as_exact_in_half_precision(self):
        projector, feature = self.build().parts["projectors"]["patient"], torch.rand(2, 8, 4, 4)
        expected = projector(feature)
        with torch.autocast("cpu", dtype=torch.float16):
            assert torch.equal(projector(feature), expected)

    def test_a_projector_for_each_meta_label(self):
        labels = (MetaLabel("self", 1.0, (5.0, 60.0)),)
        method = self.build(spec=replace(SPEC, spcl=replace(SPEC.spcl, meta_labels=labels)))
        assert list(method.parts["projectors"]) == ["self"]
        assert bool(torch.isfinite(method.step(batch_of(), LATE).loss))

    def test_meta_labels_come_from_the_slices(self):
        method, batch = self.build(), batch_of(unlabelled=4)
        partitions, patients = (method._same(x, batch.origin_u, torch.device("cpu")) for x in SPEC.spcl.meta_labels)
        assert partitions.tolist() == [0, 0, 1, 1]  # slices 0 to 3 of 6
        assert patients.tolist() == [0, 1, 0, 1]


def test_every_symmetry_of_the_square():
    square, rectangle = torch.arange(4.0).view(1, 1, 2, 2), torch.arange(6.0).view(1, 1, 2, 3)
    for image, count in ((square, 8), (rectangle, 4)):
        views = turned(image.expand(100, -1, -1, -1), np.random.default_rng(0))
        assert len({tuple(v.flatten().tolist()) for v in views}) == count
        assert views.shape[1:] == image.shape[1:]


def test_partitions_in_order():
    assert [partition(i, 9, 3) for i in range(9)] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert max(partition(i, 24, 8) for i in range(24)) == 5  # six parts, not eight


def test_the_contrast_by_hand():
    """Two images, orthogonal to each other, both views alike: each has one positive at similarity 1 and two at 0."""
    z, same = torch.eye(2).repeat(2, 1), torch.tensor([0, 1])
    expected = log(2.718281828 + 2) - 1
    losses, positive = pair_losses(z, same, 1.0)
    assert positive.sum(1).tolist() == [1] * 4
    assert losses[0, 2].item() == pytest.approx(expected)
    plain, weight = self_paced(z, same, inf, SPCLSpec(temperature=1.0))
    assert [float(plain), float(weight)] == pytest.approx([expected, 1])
    half, weight = self_paced(z, same, 2 * expected, SPCLSpec(temperature=1.0))
    assert [float(half), float(weight)] == pytest.approx([expected / 2, 0.5])
    corrected, _ = self_paced(z, same, 2 * expected, SPCLSpec(temperature=1.0, correct_gradient=True))
    assert float(corrected) == pytest.approx(expected)


def test_hard_weights():
    losses, positive = torch.tensor([[0.0, 2.0], [3.0, 0.0]]), torch.tensor([[False, True], [True, False]])
    assert pair_weights(losses, positive, 2.5, "hard").tolist() == [[0, 1], [0, 0]]
