from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.spec import CADSpec


class TestCAD(MethodSuite):
    name = "cad"
    terms = ("loss_sup_2", "loss_cps", "loss_mix", "loss_mt", "threshold")
    spatial = (2,)
    draws = False
    spec = replace(SPEC, consistency_weight=1.0, cad=CADSpec(confidence=(0.9, 1.0), cap=(0.5, 0.5)))

    def test_regions_are_replaced_in_image_and_label(self):
        method, batch = self.build(), batch_of()
        probs = torch.full((2, 3, 8, 8), 1 / 3)
        probs[:, 0, 4:] = 0.99
        donor = (torch.full_like(batch.image_u_weak, 7.0), probs, torch.full((2, 8, 8), 2, dtype=torch.uint8))
        mixed, label, changed = method._replace(batch.image_u_weak, probs, batch.ignore_u, donor, LATE)
        assert changed == 2
        box = mixed[0, 0] == 7
        assert 0 < int(box.sum()) <= 16
        assert bool((label[0][box] == 2).all())
        assert torch.equal(mixed[0, 0][~box], batch.image_u_weak[0, 0][~box])

    def test_what_is_padded_is_no_donor(self):
        method = self.build(spec=replace(self.spec, cad=CADSpec(confidence=(0.9, 0.9), cap=(0.5, 0.5))))
        image, ignore = torch.zeros(1, 1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.uint8)
        probs = torch.full((1, 3, 32, 32), 0.02)
        probs[:, 0] = 0.96
        probs[:, :, 8:16, 8:16] = 1 / 3
        sure, label = torch.full((1, 3, 32, 32), 0.0), torch.ones(1, 32, 32, dtype=torch.uint8)
        sure[:, 1] = 0.95
        sure[:, 1, :16], label[:, :16] = 1.0, 255
        marked = torch.zeros(1, 1, 32, 32)
        marked[:, :, :16] = 7.0
        mixed, target, changed = method._replace(image, probs, ignore, (marked, sure, label), LATE)
        assert changed == 1
        assert not bool((mixed == 7).any())
        assert bool((target[:, 8:16, 8:16] == 1).all())

    def test_the_loss_is_the_weighted_sum(self):
        output = self.build(spec=replace(self.spec, consistency_weight=0.5)).step(batch_of(), LATE)
        logs = {k: float(v) for k, v in output.logs.items()}
        assert logs["weight"] == 0.5
        total = logs["loss_sup"] + logs["loss_sup_2"] + 0.5 * (logs["loss_cps"] + logs["loss_mix"] + logs["loss_mt"])
        assert float(output.loss.detach()) == pytest.approx(total)

    def test_both_networks_learn(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0
