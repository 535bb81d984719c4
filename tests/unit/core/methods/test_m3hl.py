from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of

from lib.core.methods.m3hl import feature_losses


class TestM3HL(MethodSuite):
    name = "m3hl"
    terms = ("loss_unsup", "loss_low", "loss_high")

    def test_the_loss_by_hand(self):
        spec = replace(SPEC, m3hl=replace(SPEC.m3hl, unsup_weight=0.3, feature_weight=0.7))
        output = self.build(spec=spec).step(batch_of(), LATE)
        sup, unsup, low, high = (float(output.logs[f"loss_{n}"]) for n in ("sup", "unsup", "low", "high"))
        assert float(output.loss.detach()) == pytest.approx(sup + 0.3 * unsup + 0.7 * (low + high))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_half_of_the_blocks_of_each_image_change_owner(self, dims):
        method, batch, seen = self.build(dims), batch_of(dims, labelled=4, unlabelled=4), {}
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, LATE)
        x_out, x_in = seen["student"].split(2)
        inside = x_out == batch.image_u_weak[:2]
        assert inside.flatten(1).sum(1).tolist() == [8**dims // 2] * 2
        assert torch.equal(inside, x_in == batch.image_l[2:])
        assert not torch.equal(inside[0], inside[1])

    def test_the_share_may_be_drawn(self):
        method = self.build(spec=replace(SPEC, m3hl=replace(SPEC.m3hl, ratio=(0.3, 0.7))))
        shares = {float(method._mask(batch_of(), step, 2).float().mean()) for step in range(20)}
        assert len(shares) > 2
        assert all(0.25 < share < 0.75 for share in shares)

    def test_without_pretraining_as_released(self):
        assert self.build(spec=replace(SPEC, m3hl=replace(SPEC.m3hl, pretraining=0.0))).pretraining_steps == 0


def test_feature_terms_by_hand():
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    student = (torch.tensor([[[[1.0, 0.0]]]]), torch.full((1, 2, 2, 2), 3.0), valid)
    teacher = (torch.tensor([[[[1.0, 1.0]]]]), torch.full((1, 2, 2, 2), 1.0), valid)
    low, high = feature_losses([student, student], [teacher, student])
    assert float(low) == pytest.approx(1.0)  # 2 and 0
    assert float(high) == pytest.approx((1 - 2**-0.5) / 2)
    nothing = [(t[0], t[1], valid & False) for t in (student, teacher)]
    assert [float(x) for x in feature_losses(nothing[:1], nothing[1:])] == [0, 0]
