from dataclasses import replace

import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.spec import CRIISpec


class TestCRII(MethodSuite):
    name = "crii"
    terms = ("loss_fine", "loss_cr", "loss_intra", "loss_inter")
    spatial = (2,)
    spec = replace(SPEC, crii=CRIISpec(confidence=0.2, cells=2, object_share=0.05, background_share=0.5, bank=8))

    def test_the_refined_network_sees_what_the_coarse_one_said(self):
        method = self.build()
        output = method.step(batch_of(), LATE)
        output.loss.backward()
        assert gradient(method.parts["adapter"]) > 0
        assert gradient(method.parts["second"]) > 0
        assert float(output.logs["loss_intra"]) > 0

    def test_patches_are_remembered(self):
        method = self.build()
        method.step(batch_of(), LATE)
        stored = [len(bank.vectors) for bank in method.parts["bank"]]
        assert stored[1] > 0
        norms = method.parts["bank"][1].vectors.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
