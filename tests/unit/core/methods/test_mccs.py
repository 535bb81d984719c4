from dataclasses import replace
from math import e, log

import pytest
import torch
from torch import nn
from unit.core.methods.base import LATE, SPEC, TOTAL, MethodSuite, batch_of, gradient

from lib.core.spec import MCCSSpec


class TestMCCS(MethodSuite):
    name = "mccs"
    terms = ("loss_sup_2", "loss_cross", "loss_pixel", "loss_patch")
    spec = replace(
        SPEC,
        mccs=MCCSSpec(confidence=0.2, contrast_confidence=0.2, queue=16, anchors=8, dimension=4, start=0.5, purity=0.4),
    )

    def test_contrast_starts_later(self):
        method, batch = self.build(), batch_of()
        early = method.step(batch, 1)
        early.loss.backward()
        assert gradient(method.parts["patch"]) == 0
        assert float(early.logs["loss_pixel"]) > 0
        method = self.build()
        late = method.step(batch, TOTAL // 2)
        late.loss.backward()
        assert gradient(method.parts["patch"]) > 0
        logs = {k: float(v) for k, v in late.logs.items()}
        total = logs["loss_sup"] + logs["loss_sup_2"] + logs["weight"] * logs["loss_cross"]
        assert float(late.loss.detach()) == pytest.approx(
            total + 0.1 * (logs["loss_pixel"] + logs["loss_patch"]), rel=1e-4
        )

    def test_a_queue_per_class_is_filled(self):
        method = self.build()
        method.step(batch_of(), LATE)
        assert all(len(q.vectors) > 0 for q in method.parts["queues"])

    def test_the_contrast_of_pixels_by_hand(self):
        """Two cells of two classes at a right angle, the same in both views; the queue adds the negatives of one step."""
        for queue in (16, 0):
            options = replace(self.spec.mccs, temperature=1.0, queue=queue)
            method = self.build(classes=2, spec=replace(self.spec, mccs=options))
            view = torch.eye(4)[:, :2].view(1, 4, 1, 2)
            source, logits = torch.tensor([[[0, 1]]]), torch.zeros(1, 2, 1, 2)
            generator = torch.Generator().manual_seed(0)
            first, second = (float(method._pixels(view, view, source, logits, generator)) for _ in range(2))
            assert first == pytest.approx(log(e + 2) - 1)
            assert second == pytest.approx(log(e + (4 if queue else 2)) - 1)

    def test_the_contrast_of_patches_by_hand(self):
        """Four cells: one of each class, one of both, one of padding that must not count."""
        options = replace(self.spec.mccs, temperature=1.0, purity=0.8)
        method = self.build(classes=2, spec=replace(self.spec, mccs=options))
        method.parts["patch"] = nn.Identity()
        view = torch.eye(4)[:, [0, 1, 2, 1]].view(1, 4, 1, 4)
        source = torch.tensor([[0, 0, 0, 1, 1, 1, 255, 255]]).expand(2, 8)[None]
        pure, mixed = log(e + 2) - 1, log(e + 4) - 1
        assert float(method._patches(view, view, source)) == pytest.approx((2 * pure + mixed) / 3)
        assert float(method._patches(view, view, torch.full_like(source, 255))) == 0
