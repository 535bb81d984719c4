from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import CLASSES, LATE, SPEC, MethodSuite, batch_of, optimise

from lib.core.confidence import DynamicThreshold
from lib.core.spec import ConfidenceSpec, ContrastSpec


class TestLoCo(MethodSuite):
    name = "loco"
    terms = ("loss_unsup", "loss_contrast")

    @pytest.mark.parametrize("dims", [2, 3])
    def test_the_loss_by_hand(self, dims):
        output = self.build(dims).step(batch_of(dims), LATE)
        sup, unsup, contrast = (float(output.logs[f"loss_{n}"]) for n in ("sup", "unsup", "contrast"))
        assert float(output.loss) == pytest.approx((sup + 0.5 * unsup + 0.1 * contrast) / 1.6)

    @pytest.mark.parametrize("dims", [2, 3])
    def test_each_switch_changes_the_loss(self, dims):
        batch = batch_of(dims, side=12)
        cdf = ConfidenceSpec(adaptive=False, fixed=0.45)
        specs = {
            "all": SPEC,
            "no ice": replace(SPEC, contrast=ContrastSpec(ice=False)),
            "no bce": replace(SPEC, contrast=ContrastSpec(bce=False)),
            "neither": replace(SPEC, contrast=ContrastSpec(ice=False, bce=False)),
            "no cdf": replace(SPEC, confidence=cdf),
        }
        outputs = {k: self.build(dims, spec=s).step(batch, LATE) for k, s in specs.items()}
        losses = {round(float(o.loss.detach()), 7) for o in outputs.values()}
        assert len(losses) == len(specs)
        assert float(outputs["neither"].logs["loss_contrast"]) == 0
        assert float(outputs["all"].logs["loss_unsup"]) == float(outputs["no ice"].logs["loss_unsup"])
        assert float(outputs["all"].logs["mask_ratio"]) > float(outputs["no cdf"].logs["mask_ratio"])

    @pytest.mark.parametrize(("memory", "momentum"), [(0.0, 0.9), (0.1, 0.75), (1.0, 0.9)])
    def test_thresholds_forget_within_a_short_run(self, memory, momentum):
        """The suite's run has 40 steps: a tenth of it are 4."""
        method, batch = self.build(spec=replace(SPEC, confidence=replace(SPEC.confidence, memory=memory))), batch_of()
        method.step(batch, LATE)
        by_hand = DynamicThreshold(CLASSES, replace(SPEC.confidence, momentum=momentum))
        by_hand.update(method.network.label(batch.image_u_weak).logits, batch.ignore_u)
        assert torch.allclose(method.thresholds(), by_hand.thresholds)

    def test_the_contrast_alone_moves_the_projection(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert float(method.network.student.projector.weight.grad.abs().sum()) > 0
        off = self.build(spec=replace(SPEC, contrast=ContrastSpec(ice=False, bce=False)))
        off.step(batch_of(), LATE).loss.backward()
        assert float(off.network.student.projector.weight.grad.abs().sum()) == 0

    def test_the_views(self):
        method, batch, seen = self.build(spec=replace(SPEC, cutmix_probability=0.0)), batch_of(), {}
        method.network.teacher.register_forward_hook(lambda m, x, y: seen.update(teacher=x[0]))
        method.network.student.register_forward_hook(lambda m, x, y: seen.update(student=x[0]))
        method.step(batch, LATE)
        assert torch.equal(seen["teacher"], batch.image_u_weak)
        assert torch.equal(seen["student"], torch.cat([batch.image_l, batch.image_u_weak, batch.image_u_strong]))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_cutmix_pastes_labelled_content_that_counts_as_certain(self, dims):
        method, batch = self.build(dims, spec=replace(SPEC, cutmix_probability=1.0)), batch_of(dims, unlabelled=3)
        guess = torch.full(batch.ignore_u.shape, 7)
        mixed = method._paste_labelled(batch, guess, torch.full(batch.ignore_u.shape, 0.3), LATE)
        box = mixed.confidence == 1
        assert bool(box.flatten(1).any(1).all())
        assert not bool(box.flatten(1).all(1).any())
        for i in range(3):
            truth, image = batch.label_l[i % 2], batch.image_l[i % 2]
            inside = box[i]
            assert torch.equal(mixed.label[i][inside], truth[inside].long())
            assert torch.equal(mixed.image[i][:, inside], image[:, inside])
            assert torch.equal(mixed.ignore[i][inside] == 255, truth[inside] == 255)
            assert torch.equal(mixed.ignore[i][~inside], batch.ignore_u[i][~inside])
            assert torch.equal(mixed.image[i][:, ~inside], batch.image_u_strong[i][:, ~inside])
            assert bool((mixed.label[i][~inside] == 7).all())

    def test_the_filter_learns_and_its_state_decides_the_loss(self):
        method = self.build()
        before = method.thresholds()
        optimise(method, [batch_of(seed=s) for s in range(3)])
        after = method.thresholds()
        assert tuple(after.shape) == (CLASSES,)
        assert not torch.equal(before, after)
        again = self.build()
        again.load_state_dict(method.state_dict())
        assert torch.equal(again.thresholds(), after)

    def test_without_unlabelled_images_the_filter_rests(self):
        method, batch = self.build(), batch_of()
        before = method.thresholds()
        batch.image_u_weak = None
        method.step(batch, LATE)
        assert torch.equal(method.thresholds(), before)

    def test_padding_is_no_part_of_the_mask_ratio(self):
        spec = replace(SPEC, confidence=ConfidenceSpec(adaptive=False, fixed=0.0))
        assert float(self.build(spec=spec).step(batch_of(), LATE).logs["mask_ratio"]) == 1
