from dataclasses import replace

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

    def test_both_networks_learn(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0
