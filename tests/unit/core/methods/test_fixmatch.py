from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of


class TestFixMatch(MethodSuite):
    name = "fixmatch"
    terms = ("loss_unsup",)

    def test_the_loss_is_the_mean_of_both_terms(self):
        output = self.build().step(batch_of(), LATE)
        assert float(output.loss) == pytest.approx(0.5 * float(output.logs["loss_sup"] + output.logs["loss_unsup"]))

    def test_the_teacher_sees_the_weak_view_and_the_student_the_strong_one(self):
        method, batch, seen = self.build(spec=replace(SPEC, cutmix_probability=0.0)), batch_of(), {}
        method.network.teacher.register_forward_hook(lambda m, x, y: seen.update(teacher=x[0]))
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, LATE)
        assert torch.equal(seen["teacher"], batch.image_u_weak)
        assert torch.equal(seen["student"], torch.cat([batch.image_l, batch.image_u_strong]))

    def test_cutmix_takes_the_box_from_the_other_image(self):
        method, batch, seen = self.build(spec=replace(SPEC, cutmix_probability=1.0)), batch_of(), {}
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, LATE)
        mixed = seen["student"][2:]
        own, other = mixed == batch.image_u_strong, mixed == batch.image_u_strong.flip(0)
        assert bool((own | other).all())
        assert all(bool((~o).any()) for o in own)

    def test_the_threshold_decides_which_pixels_count(self):
        none = self.build(spec=replace(SPEC, threshold=1.01)).step(batch_of(), LATE).logs
        every = self.build(spec=replace(SPEC, threshold=0.0)).step(batch_of(), LATE).logs
        assert [float(none["loss_unsup"]), float(none["mask_ratio"])] == [0, 0]
        assert float(every["mask_ratio"]) == 1
        assert float(every["loss_unsup"]) > 0
