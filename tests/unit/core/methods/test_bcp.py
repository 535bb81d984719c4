from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of


def options(**kwargs):
    return replace(SPEC, bcp=replace(SPEC.bcp, **kwargs))


class TestBCP(MethodSuite):
    name = "bcp"
    terms = ("loss_unsup",)

    def test_the_loss_by_hand(self):
        output = self.build().step(batch_of(), LATE)
        assert float(output.loss.detach()) == pytest.approx(
            float(output.logs["loss_sup"]) + 0.5 * float(output.logs["loss_unsup"])
        )

    @pytest.mark.parametrize("dims", [2, 3])
    def test_the_mixtures(self, dims):
        method, batch, seen = self.build(dims), batch_of(dims, labelled=4, unlabelled=4), {}
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, LATE)
        x_out, x_in = seen["student"].split(2)
        out_u, in_l = x_out == batch.image_u_weak[:2], x_in == batch.image_l[2:]
        assert torch.equal(out_u, ~(x_out == batch.image_l[:2]))
        assert torch.equal(in_l, ~(x_in == batch.image_u_weak[2:]))
        assert torch.equal(out_u, in_l)
        hole = ~out_u[0, 0]
        assert int(hole.sum()) == 5**dims  # floor of 2/3 of 8
        assert bool((~out_u == hole).all())

    def test_pretraining_sees_labelled_images_alone(self):
        method, batch, seen = self.build(), batch_of(labelled=4), {}
        batch.image_u_weak.fill_(7)
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, 0)
        assert len(seen["student"]) == 2
        assert bool(((seen["student"] == batch.image_l[:2]) | (seen["student"] == batch.image_l[2:])).all())

    def test_the_teacher_starts_the_second_stage_as_the_student(self):
        method, batch = self.build(), batch_of()
        for p in method.network.student.parameters():
            p.data.add_(0.1)
        method.step(batch, method.pretraining_steps)
        student, teacher = method.network.student, method.network.teacher
        assert torch.equal(student.classifier.weight, teacher.classifier.weight)

    def test_the_average_may_start_cold(self):
        for ema, share in (("warm", 1.0), ("plain", 0.1)):
            method = self.build(spec=options(ema=ema))
            before = method.network.teacher.classifier.weight.clone()
            method.network.student.classifier.weight.data.add_(1.0)
            method.after_step(0, 0.9)
            moved = method.network.teacher.classifier.weight - before
            assert float(moved.mean()) == pytest.approx(share, abs=1e-5)

    def test_a_teacher_in_training_mode_uses_the_statistics_of_the_batch(self):
        for teacher in ("evaluation", "training"):
            method, modes = self.build(spec=options(teacher=teacher)), []
            method.network.teacher.body[1].register_forward_hook(lambda m, x, y, seen=modes: seen.append(m.training))
            method.step(batch_of(), LATE)
            assert modes == [teacher == "training"]
            assert not method.network.teacher.training
