from dataclasses import replace
from math import log

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, TOTAL, MethodSuite, batch_of

from lib.core.methods.ua_mt import certain_mse, entropy, threshold


class TestUAMT(MethodSuite):
    name = "ua_mt"
    terms = ("loss_unsup",)
    spec = replace(SPEC, consistency_weight=1.0, ua_mt=replace(SPEC.ua_mt, threshold_start=1.5))
    """An untrained network is as uncertain as can be; here that counts as certain."""

    def test_the_loss_is_the_weighted_sum(self):
        output = self.build().step(batch_of(), LATE)
        logs = {k: float(v) for k, v in output.logs.items()}
        assert logs["weight"] == 1
        assert float(output.loss.detach()) == pytest.approx(logs["loss_sup"] + logs["loss_unsup"])

    def test_the_teacher_looks_nine_times_each_time_with_other_noise(self):
        method, batch, seen = self.build(), batch_of(), []
        method.network.teacher.register_forward_hook(lambda m, x, y: seen.append(x[0]))
        method.step(batch, LATE)
        assert len(seen) == 9
        assert all(float((x - batch.image_u_weak).abs().max()) <= 0.2 + 1e-6 for x in seen)
        assert not torch.equal(seen[0], seen[1])

    def test_a_network_without_dropout_has_it_before_its_classifier(self):
        method, outputs = self.build(spec=replace(self.spec, ua_mt=replace(self.spec.ua_mt, noise=0.0))), []
        method.network.teacher.register_forward_hook(lambda m, x, y: outputs.append(y.logits))
        for _ in range(2):
            method.step(batch_of(), LATE)
        assert len({tuple(o.flatten().tolist()) for o in outputs[:9]}) == 9
        assert all(torch.equal(a, b) for a, b in zip(outputs[:9], outputs[9:], strict=True))

    @pytest.mark.parametrize("teacher", ["dropout", "training"])
    def test_what_is_random_in_a_pass(self, teacher):
        method = self.build(spec=replace(self.spec, ua_mt=replace(self.spec.ua_mt, teacher=teacher, noise=0.0)))
        outputs, modes = [], set()
        teacher_net = method.network.teacher
        teacher_net.down[3].p = 0.5
        teacher_net.register_forward_hook(lambda m, x, y: outputs.append(y.logits))
        teacher_net.body[1].register_forward_hook(lambda m, x, y: modes.add(m.training))
        method.step(batch_of(), LATE)
        assert modes == {teacher == "training"}
        assert not torch.equal(outputs[0], outputs[1])
        assert not any(m.training for m in teacher_net.modules())

    def test_the_published_scale_asks_for_more_certainty_than_ours(self):
        shares = {}
        for scale in ("classes", "two"):
            spec = replace(self.spec, ua_mt=replace(SPEC.ua_mt, scale=scale))
            shares[scale] = float(self.build(spec=spec).step(batch_of(), TOTAL).logs["mask_ratio"])
        assert shares["two"] < shares["classes"]


def test_entropy_by_hand():
    probs = torch.tensor([[0.5, 1.0], [0.5, 0.0]]).view(1, 2, 1, 2)
    assert entropy(probs).flatten().tolist() == pytest.approx([log(2), 0], abs=1e-5)


def test_threshold_rises_from_three_quarters_to_all_of_the_largest_entropy():
    assert threshold(0, 100, 0.75, 4) == pytest.approx((0.75 + 0.25 * 0.006738) * log(4), abs=1e-5)
    assert threshold(100, 100, 0.75, 4) == pytest.approx(log(4))


def test_only_certain_pixels_count():
    probs = torch.tensor([[0.9, 0.2], [0.1, 0.8]]).view(1, 2, 1, 2)
    target = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).view(1, 2, 1, 2)
    mask = torch.tensor([True, False]).view(1, 1, 1, 2)
    assert float(certain_mse(probs, target, mask, 2)) == pytest.approx(2 * 0.4**2 / 2)
    assert float(certain_mse(probs, target, mask & False, 2)) == 0
