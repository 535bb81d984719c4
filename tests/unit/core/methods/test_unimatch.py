from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of


def options(**kwargs):
    return replace(SPEC, unimatch=replace(SPEC.unimatch, **kwargs))


class TestUniMatch(MethodSuite):
    name = "unimatch"
    terms = ("loss_strong", "loss_feature")

    def test_the_loss_by_hand(self):
        output = self.build().step(batch_of(), LATE)
        sup, strong, feature = (float(output.logs[f"loss_{n}"]) for n in ("sup", "strong", "feature"))
        assert float(output.loss.detach()) == pytest.approx(0.5 * (sup + 0.5 * strong + 0.5 * feature))

    def test_both_strong_views_take_a_box_of_their_own_from_the_other_image(self):
        method, batch, seen = self.build(spec=replace(SPEC, cutmix_probability=1.0)), batch_of(), {}
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(strong=x[0]))
        method.step(batch, LATE)
        boxes = []
        for mixed, view in zip(seen["strong"].split(2), (batch.image_u_strong, batch.image_u_strong_2), strict=True):
            assert bool(((mixed == view) | (mixed == view.flip(0))).all())
            boxes.append(mixed != view)
        assert bool(boxes[0].any())
        assert not torch.equal(boxes[0], boxes[1])

    def test_the_perturbed_pass_drops_whole_channels_of_every_map(self):
        method, batch, maps = self.build(), batch_of(), []
        student = method.network.student
        decode = student.decode
        student.decode = lambda m: maps.append(m) or decode(m)
        method.step(batch, LATE)
        for m in maps[0]:
            plain, dropped = m[2:4], m[4:]
            ratio = (dropped / plain).flatten(2).nanmean(-1)
            zero, doubled = ratio.abs() < 1e-6, (ratio - 2).abs() < 1e-4
            assert bool((zero | doubled | ratio.isnan()).all())

    @pytest.mark.parametrize("loss", ["dice", "cross_entropy"])
    def test_nothing_confident_gives_nothing_to_learn(self, loss):
        logs = self.build(spec=replace(options(loss=loss), threshold=1.1)).step(batch_of(), LATE).logs
        assert [float(logs[k]) for k in ("loss_strong", "loss_feature", "mask_ratio")] == pytest.approx([0, 0, 0])

    def test_the_teacher_labels_if_asked_to(self):
        calls = []
        for labeller in ("student", "teacher"):
            method = self.build(spec=options(labeller=labeller))
            method.network.teacher.register_forward_hook(lambda m, x, y, who=labeller: calls.append(who))
            method.step(batch_of(), LATE)
        assert calls == ["teacher"]
