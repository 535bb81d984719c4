"""What every method must hold; a subclass names the method, as in `test_fixmatch.py`."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from unit.helpers import Tiny

from lib.core.batch import Batch
from lib.core.losses import supervised_loss
from lib.core.methods import build_method
from lib.core.spec import ConfidenceSpec, MethodSpec
from lib.core.teacher import StudentTeacher

CLASSES = 3
TOTAL = 40
LATE = 30
"""A step at which every ramp has ended."""
SPEC = MethodSpec(confidence=ConfidenceSpec(momentum=0.9, init=0.2), threshold=0.2)
"""Thresholds so low that an untrained network passes them."""


def batch_of(dims=2, labelled=2, unlabelled=2, seed=0, side=8):
    """Random images; labels 0 to 2 in blocks with a few 255; a strip of each unlabelled image is padding."""
    generator = torch.Generator().manual_seed(seed)
    size = (side,) * dims
    coarse = torch.randint(0, CLASSES, (labelled, *(n // 4 for n in size)), generator=generator)
    label = coarse
    for axis in range(1, dims + 1):
        label = label.repeat_interleave(4, axis)
    label = label.to(torch.uint8)
    label[0, 0] = 255
    ignore = torch.zeros((unlabelled, *size), dtype=torch.uint8)
    ignore[:, -1] = 255
    weak = torch.rand(unlabelled, 1, *size, generator=generator)
    strong = (weak + 0.2 * torch.rand(unlabelled, 1, *size, generator=generator)).clamp(0, 1)
    image = 0.3 * label.where(label != 255, torch.zeros_like(label)).unsqueeze(1).float()
    image = image + 0.3 * torch.rand(labelled, 1, *size, generator=generator)
    return Batch(image, label, weak, strong, ignore)


def network_of(dims=2):
    torch.manual_seed(11)
    return StudentTeacher(Tiny(dims, classes=CLASSES)).train()


def gradient(network):
    return sum(float(p.grad.abs().sum()) for p in network.student.parameters() if p.grad is not None)


def optimise(method, batches, first=0):
    """Losses of some training steps."""
    optimizer = torch.optim.SGD(method.network.student.parameters(), lr=0.1)
    losses = []
    for step, batch in enumerate(batches, start=first):
        output = method.step(batch, step)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.network.update_teacher(step, 0.9)
        losses.append(float(output.loss.detach()))
    return losses


class MethodSuite:
    """Base of the tests of one method."""

    name: str
    terms: tuple[str, ...] = ()
    """Loss terms that `logs` holds besides `loss_sup`."""
    learns_from_unlabelled = True

    def build(self, dims=2, seed=5, spec=SPEC):
        return build_method(network_of(dims), replace(spec, name=self.name), CLASSES, TOTAL, seed)

    @pytest.mark.parametrize("dims", [2, 3])
    def test_a_step(self, dims):
        method, batch = self.build(dims), batch_of(dims)
        output = method.step(batch, LATE)
        assert output.loss.ndim == 0
        assert bool(torch.isfinite(output.loss))
        assert tuple(output.logits_l.shape) == (2, CLASSES, *batch.label_l.shape[1:])
        assert not output.logits_l.requires_grad
        output.loss.backward()
        assert gradient(method.network) > 0

    @pytest.mark.parametrize("dims", [2, 3])
    def test_logs_hold_every_term_and_the_mask_ratio(self, dims):
        logs = self.build(dims).step(batch_of(dims), LATE).logs
        assert {"loss_sup", "mask_ratio", *self.terms} <= set(logs)
        assert all(torch.isfinite(torch.as_tensor(float(v))) for v in logs.values())
        assert not any(isinstance(v, torch.Tensor) and v.requires_grad for v in logs.values())
        assert 0 <= float(logs["mask_ratio"]) <= 1
        assert all(float(logs[t]) > 0 for t in ("loss_sup", *self.terms))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_the_unlabelled_part_alone_moves_the_student(self, dims):
        method, batch = self.build(dims), batch_of(dims)
        batch.label_l.fill_(255)
        method.step(batch, LATE).loss.backward()
        assert (gradient(method.network) > 0) is self.learns_from_unlabelled

    def test_what_is_padded_in_unlabelled_images_moves_nothing(self):
        method, batch = self.build(spec=replace(SPEC, cutmix_probability=0.0)), batch_of()
        batch.label_l.fill_(255)
        batch.ignore_u.fill_(255)
        output = method.step(batch, LATE)
        output.loss.backward()
        assert float(output.loss.detach()) == pytest.approx(0, abs=1e-6)
        assert gradient(method.network) == pytest.approx(0, abs=1e-6)

    def test_the_teacher_gets_no_gradient_and_does_not_move(self):
        method = self.build()
        before = copy.deepcopy(method.network.teacher.state_dict())
        method.step(batch_of(), LATE).loss.backward()
        assert all(p.grad is None for p in method.network.teacher.parameters())
        assert all(torch.equal(v, before[k]) for k, v in method.network.teacher.state_dict().items())

    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("how", ["unlabelled padded", "labelled ignored", "both", "nothing confident"])
    def test_nothing_to_learn_from_gives_a_finite_loss(self, dims, how):
        sure = ConfidenceSpec(adaptive=False, fixed=1.1)
        spec = replace(SPEC, confidence=sure, threshold=1.1) if how == "nothing confident" else SPEC
        method, batch = self.build(dims, spec=spec), batch_of(dims)
        if how in ("unlabelled padded", "both"):
            batch.ignore_u.fill_(255)
        if how in ("labelled ignored", "both"):
            batch.label_l.fill_(255)
        output = method.step(batch, LATE)
        output.loss.backward()
        assert bool(torch.isfinite(output.loss))
        assert all(
            bool(torch.isfinite(p.grad).all()) for p in method.network.student.parameters() if p.grad is not None
        )
        assert 0 <= float(output.logs["mask_ratio"]) <= 1

    @pytest.mark.parametrize("dims", [2, 3])
    def test_an_absent_class(self, dims):
        method, batch = self.build(dims), batch_of(dims)
        batch.label_l[batch.label_l == 1] = 0
        loss = method.step(batch, LATE).loss
        loss.backward()
        assert bool(torch.isfinite(loss))
        assert gradient(method.network) > 0

    def test_background_only(self):
        method, batch = self.build(), batch_of()
        batch.label_l.zero_()
        assert bool(torch.isfinite(method.step(batch, LATE).loss))

    @pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (1, 3), (3, 1)])
    def test_batches_of_any_size(self, labelled, unlabelled):
        output = self.build().step(batch_of(labelled=labelled, unlabelled=unlabelled), LATE)
        assert bool(torch.isfinite(output.loss))
        assert len(output.logits_l) == labelled

    @pytest.mark.parametrize("dims", [2, 3])
    def test_without_unlabelled_images_it_is_plain_supervision(self, dims):
        batch = batch_of(dims)
        batch.image_u_weak = batch.image_u_strong = batch.ignore_u = None
        output = self.build(dims).step(batch, LATE)
        expected = supervised_loss(network_of(dims)(batch.image_l).logits, batch.label_l)
        assert float(output.loss) == pytest.approx(float(expected))
        assert float(output.logs["loss_sup"]) == pytest.approx(float(expected))
        assert output.logs["mask_ratio"] == 0

    def test_a_seed_reproduces_the_first_three_losses(self):
        batches = [batch_of(seed=s) for s in range(3)]
        first = optimise(self.build(seed=1), batches, LATE)
        assert optimise(self.build(seed=1), batches, LATE) == first
        assert (optimise(self.build(seed=2), batches, LATE) != first) is self.learns_from_unlabelled

    def test_going_on_from_a_saved_state_gives_the_same_next_losses(self):
        batches = [batch_of(seed=s) for s in range(5)]
        method = self.build()
        optimise(method, batches[:3], LATE)
        file = io.BytesIO()
        torch.save({"network": method.network.state_dict(), "method": method.state_dict()}, file)
        expected = optimise(method, batches[3:], LATE + 3)
        file.seek(0)
        content = torch.load(file, weights_only=True)
        again = self.build()
        again.network.load_state_dict(content["network"])
        again.load_state_dict(content["method"])
        assert optimise(again, batches[3:], LATE + 3) == expected

    def test_training_lowers_the_labelled_loss(self):
        method, batch = self.build(), batch_of()
        before = float(method.step(batch, 0).logs["loss_sup"])
        optimise(method, [batch] * 15)
        assert float(method.step(batch, 15).logs["loss_sup"]) < 0.9 * before
