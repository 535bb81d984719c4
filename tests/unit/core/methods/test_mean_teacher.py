from dataclasses import replace
from math import exp

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, network_of

from lib.core.methods import build_method
from lib.core.spec import MethodSpec


class TestMeanTeacher(MethodSuite):
    name = "mean_teacher"
    terms = ("loss_unsup",)

    def test_weight_ramp_by_hand(self):
        method = build_method(network_of(), MethodSpec(name="mean_teacher"), 3, 300, 0)
        batch = batch_of()
        weights = {step: float(method.step(batch, step).logs["weight"]) for step in (0, 9, 10, 60, 120, 299)}
        assert weights[0] == weights[9] == 0
        assert weights[10] == pytest.approx(0.1 * exp(-5 * (11 / 12) ** 2))
        assert weights[60] == pytest.approx(0.1 * exp(-5 / 4))
        assert weights[120] == weights[299] == pytest.approx(0.1)

    def test_the_loss_is_the_weighted_sum(self):
        output = self.build().step(batch_of(), LATE)
        logs = {k: float(v) for k, v in output.logs.items()}
        assert logs["weight"] > 0
        assert float(output.loss) == pytest.approx(logs["loss_sup"] + logs["weight"] * logs["loss_unsup"])

    def test_a_teacher_in_training_mode_uses_the_statistics_of_the_batch(self):
        for teacher in ("evaluation", "training"):
            options = replace(SPEC.mean_teacher, teacher=teacher)
            method, modes = self.build(spec=replace(SPEC, mean_teacher=options)), []
            method.network.teacher.body[1].register_forward_hook(lambda m, x, y, seen=modes: seen.append(m.training))
            method.step(batch_of(), LATE)
            assert modes == [teacher == "training"]
            assert not method.network.teacher.training

    def test_the_teacher_sees_the_noisy_view_and_the_student_the_clean_one(self):
        method, batch, seen = self.build(), batch_of(), {}
        method.network.teacher.register_forward_hook(lambda m, x, y: seen.update(teacher=x[0]))
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, LATE)
        noise = seen["teacher"] - batch.image_u_weak
        assert 0.05 < float(noise.std()) < 0.15
        assert float(noise.abs().max()) <= 0.2 + 1e-6
        assert torch.equal(seen["student"], torch.cat([batch.image_l, batch.image_u_weak]))
