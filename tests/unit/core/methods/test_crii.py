from dataclasses import replace
from math import cos, sin

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.memory import ClassQueues
from lib.core.spec import CRIISpec

ASIDE = torch.tensor([cos(0.5), sin(0.5)])
"""A unit vector beside (1, 0), nearer than alpha; it costs what alpha is more than the distance."""
COST = 1.2 - 2 * sin(0.25)


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

    def test_the_loss_is_the_weighted_sum(self):
        output = self.build(spec=replace(self.spec, crii=replace(self.spec.crii, weight=0.5))).step(batch_of(), LATE)
        logs = {k: float(v) for k, v in output.logs.items()}
        total = logs["loss_sup"] + logs["loss_fine"] + 0.5 * logs["loss_cr"]
        assert logs["weight"] == 0.5
        assert float(output.loss.detach()) == pytest.approx(total + 0.1 * (logs["loss_intra"] + logs["loss_inter"]))

    def test_the_consistency_by_hand(self):
        method = self.build(spec=replace(self.spec, crii=replace(self.spec.crii, confidence=0.45)))
        batch, seen = batch_of(), []
        for network in (method.network.student, method.parts["second"]):
            network.register_forward_hook(lambda m, x, y: seen.append(torch.softmax(y.logits[2:].detach(), 1)))
        found = float(method.step(batch, LATE).logs["loss_cr"])
        counted = (seen[1].amax(1) >= 0.45) & (batch.ignore_u != 255)
        assert 0 < int(counted.sum()) < int((batch.ignore_u != 255).sum())
        squares = [((a - b) ** 2).mean() for a, b in zip(*(p.movedim(1, -1)[counted] for p in seen), strict=True)]
        assert found == pytest.approx(float(torch.stack(squares).mean()))

    def test_the_ranking_at_borders_by_hand(self):
        """Of four patches around the border cells 1 to 4 those of 1 and 4 hold one class, and do not count."""
        options = replace(self.spec.crii, cells=3, band=2)
        method, label = self.build(spec=replace(self.spec, crii=options)), torch.tensor([[[0, 0, 0, 1, 1, 1]]])
        vectors = torch.tensor([[1.0], [0.0]]).repeat(1, 6)
        vectors[:, 3:] = ASIDE[:, None]
        assert float(method._intra(vectors.view(1, 2, 1, 6), label, 0)) == pytest.approx(COST, rel=1e-4)

    def test_nothing_has_a_border_with_padding(self):
        """Two kinds of object beside padding: their patch would be ranked, were there a border."""
        label = torch.tensor([[[1, 1, 2, 2, 255, 255]]])
        vectors = torch.tensor([[1.0], [0.0]]).repeat(1, 6)
        vectors[:, 2:] = ASIDE[:, None]
        method = self.build(spec=replace(self.spec, crii=replace(self.spec.crii, cells=6)))
        assert float(method._intra(vectors.view(1, 2, 1, 6), label, 0)) == 0

    @pytest.mark.parametrize("bank", [8, 0])
    def test_the_ranking_of_patches_by_hand(self, bank):
        """One patch of four holds a cell of the object; its vector is that of this cell, not of the whole patch."""
        method = self.build(spec=replace(self.spec, crii=replace(self.spec.crii, bank=bank, background_share=0.02)))
        method.parts["bank"] = ClassQueues(2, bank, 2)
        label = torch.zeros(1, 4, 4, dtype=torch.int64)
        label[0, 0, 0] = 1
        vectors = ASIDE.view(1, 2, 1, 1).repeat(1, 1, 4, 4)
        vectors[0, :, 0, 0] = torch.tensor([1.0, 0.0])
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            assert float(method._inter(vectors, label, generator)) == pytest.approx(COST, rel=1e-4)
        assert [len(queue.vectors) for queue in method.parts["bank"]] == ([6, 2] if bank else [0, 0])
