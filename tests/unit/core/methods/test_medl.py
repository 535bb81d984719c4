from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.evidence import curriculum, fisher_loss, fuse, opinion
from lib.core.methods.medl import weighted_losses
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import MEDLSpec


class TestMEDL(MethodSuite):
    name = "medl"
    terms = ("loss_unsup", "loss_order", "loss_fisher")
    draws = False

    def test_both_networks_learn(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0

    def test_the_loss_by_hand(self):
        spec = replace(SPEC, ramp_share=0.5, medl=MEDLSpec(fisher_weight=0.3))
        output = self.build(spec=spec).step(batch_of(), 10)
        sup, unsup, order, fisher = (float(output.logs[f"loss_{n}"]) for n in ("sup", "unsup", "order", "fisher"))
        ramp = sigmoid_rampup(10, 20)
        assert float(output.loss.detach()) == pytest.approx(sup + order + ramp * (unsup + 0.3 * fisher), rel=1e-5)

    @pytest.mark.parametrize("step", [0, LATE])
    def test_the_order_of_pixels_by_hand(self, step):
        method, batch = self.build(), batch_of()
        images = torch.cat([batch.image_l, batch.image_u_weak])
        with torch.no_grad():
            alphas = [F.softplus(n(images).logits) + 1 for n in (method.network.student, method.parts["second"])]
        single = [3 / a.sum(1) for a in alphas]
        both = fuse(*(opinion(a) for a in alphas))
        together = both.uncertainty[:, 0]
        label, ignored = batch.label_l.long(), batch.label_l == 255
        truth, progress = F.one_hot(both.belief[2:].argmax(1), 3).movedim(-1, 1).float(), step / 40
        order = fisher = 0.0
        for alpha, doubt in zip(alphas, single, strict=True):
            pixel = F.nll_loss(
                (alpha / alpha.sum(1, keepdim=True))[:2].log(), label, ignore_index=255, reduction="none"
            )
            weight = curriculum((doubt[:2] + together[:2]) / 2, ~ignored, progress, 0.5)
            order += float((weight * pixel)[~ignored].mean())
            weight = curriculum(together[2:, :-1], torch.ones(2, 7, 8, dtype=torch.bool), progress, 0.5)
            fisher += float((weight * fisher_loss(alpha[2:, :, :-1], truth[:, :, :-1], 0.005)).mean())
        logs = method.step(batch, step).logs
        assert float(logs["loss_order"]) == pytest.approx(order, rel=1e-4)
        assert float(logs["loss_fisher"]) == pytest.approx(fisher, rel=1e-4)

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
