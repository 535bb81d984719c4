"""What every method must hold; a subclass names the method, as in `test_fixmatch.py`."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from unit.helpers import Tiny

from lib.configs.method_options import SHARED
from lib.core.batch import Batch, Origin
from lib.core.losses import LABELLED_LOSSES, supervised_loss
from lib.core.methods import METHODS, Method, build_method, described
from lib.core.spec import ConfidenceSpec, MethodSpec
from lib.core.teacher import StudentTeacher

CLASSES = 3
TOTAL = 40
LATE = 30
"""A step at which every ramp has ended."""
SPEC = MethodSpec(
    labelled_loss="own",
    batch_statistics="joint",
    confidence=ConfidenceSpec(momentum=0.9, memory=0.0, init=0.2),
    threshold=0.2,
)
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
    other = (weak + 0.2 * torch.rand(unlabelled, 1, *size, generator=generator)).clamp(0, 1)
    bright = (image + 0.2 * torch.rand(labelled, 1, *size, generator=generator)).clamp(0, 1)
    origins = [tuple(Origin(f"{part}{i % 2}", f"{part}{i}", i, 6) for i in range(n)) for part, n in
               (("l", labelled), ("u", unlabelled))]  # fmt: skip
    return Batch(image, label, weak, strong, ignore, other, bright, *origins)


def network_of(dims=2, classes=CLASSES, seed=11):
    torch.manual_seed(seed)
    return StudentTeacher(Tiny(dims, classes=classes)).train()


def gradient(module):
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def sup_of(method, batch):
    """The student's loss on the labelled images alone."""
    return float(supervised_loss(method.network.student(batch.image_l).logits, batch.label_l).detach())


def optimise(method, batches, first=0):
    """Losses of some training steps."""
    own = method.network.student.parameter_groups(0.1)
    optimizer = torch.optim.SGD([*own, *method.parameter_groups(0.1)], lr=0.1)
    losses = []
    for step, batch in enumerate(batches, start=first):
        output = method.step(batch, step)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step(step, 0.9)
        losses.append(float(output.loss.detach()))
    return losses


class MethodSuite:
    """Base of the tests of one method."""

    name: str
    terms: tuple[str, ...] = ()
    """Loss terms that `logs` holds besides `loss_sup`."""
    learns_from_unlabelled = True
    own_form = ()
    """Steps, 0 or LATE, whose loss on labelled images is no form of cross-entropy and Dice."""
    draws = True
    """Whether its step draws random numbers of its own."""
    spatial = (2, 3)
    """Dimensions that it works in."""
    classes = CLASSES
    spec = SPEC

    def pytest_generate_tests(self, metafunc):
        pretrains = METHODS[self.name].pretraining is not Method.pretraining
        boundary = ("before the boundary", "behind it") if pretrains else ()
        values = {
            "dims": self.spatial,
            "step": (0, LATE) if pretrains else (LATE,),
            "where": ("late", *boundary),
        }
        for name, each in values.items():
            own = [m for m in metafunc.definition.iter_markers("parametrize") if name in m.args[0]]
            if name in metafunc.fixturenames and not own:
                metafunc.parametrize(name, each)

    def build(self, dims=None, seed=5, spec=None, classes=None, total=TOTAL):
        dims, classes = dims or self.spatial[0], classes or self.classes
        kind = METHODS[self.name].second
        second = network_of(2 if kind == "slices" else dims, classes, seed=12).student if kind else None
        spec = replace(spec or self.spec, name=self.name)
        return build_method(network_of(dims, classes), spec, classes, total, seed, second)

    def batch(self, dims=None, **kwargs):
        batch = batch_of(dims or self.spatial[0], **kwargs)
        batch.label_l[(batch.label_l >= self.classes) & (batch.label_l != 255)] = self.classes - 1
        return batch

    def test_a_step(self, dims, step):
        method, batch = self.build(dims), self.batch(dims)
        output = method.step(batch, step)
        assert output.loss.ndim == 0
        assert bool(torch.isfinite(output.loss))
        if output.logits_l is not None:
            assert tuple(output.logits_l.shape) == (2, self.classes, *batch.label_l.shape[1:])
            assert not output.logits_l.requires_grad
        output.loss.backward()
        assert gradient(method.network.student) > 0

    def test_logs_hold_every_term_and_the_mask_ratio(self, dims):
        logs = self.build(dims).step(self.batch(dims), LATE).logs
        assert {"loss_sup", "mask_ratio", *self.terms} <= set(logs)
        assert all(torch.isfinite(torch.as_tensor(float(v))) for v in logs.values())
        assert not any(isinstance(v, torch.Tensor) and v.requires_grad for v in logs.values())
        assert 0 <= float(logs["mask_ratio"]) <= 1
        assert all(float(logs[t]) > 0 for t in ("loss_sup", *self.terms))

    def test_the_unlabelled_part_alone_moves_the_student(self, dims):
        method, batch = self.build(dims), self.batch(dims)
        batch.label_l.fill_(255)
        method.step(batch, LATE).loss.backward()
        assert (gradient(method.network.student) > 0) is self.learns_from_unlabelled

    def test_the_loss_of_labelled_images_can_be_named(self, step):
        batch, found = self.batch(), []
        for name in LABELLED_LOSSES:
            method = self.build(spec=replace(self.spec, labelled_loss=name))
            method.step(batch, step).loss.backward()
            found.append(gradient(method.network.student))
        assert len(set(found)) == (1 if step in self.own_form else len(LABELLED_LOSSES))

    def test_a_loss_moves_the_other_images_only_if_so_chosen(self):
        """One forward pass, two gradients; they are the same where no pass has both kinds of images."""
        found = {}
        for how in ("joint", "own_gradient"):
            method = self.build(spec=replace(self.spec, batch_statistics=how))
            output = method.step(self.batch(), LATE)
            output.loss.backward()
            found[how] = float(output.loss.detach()), gradient(method.network.student)
        (loss, joint), (same, own) = found.values()
        assert loss == pytest.approx(same, rel=1e-5)
        assert (abs(joint - own) > 1e-5 * joint) is ("batch_statistics" in SHARED.get(self.name, ()))

    @pytest.mark.parametrize("step", [0, LATE])
    def test_half_precision(self, dims, step):
        method, batch = self.build(dims), self.batch(dims)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = method.step(batch, step).loss
        loss.backward()
        assert bool(torch.isfinite(loss))
        trained = [*method.network.student.parameters(), *method.parts.parameters()]
        assert all(bool(torch.isfinite(p.grad).all()) for p in trained if p.grad is not None)

    def test_what_is_padded_in_unlabelled_images_moves_nothing(self, step):
        method, batch = self.build(spec=replace(self.spec, cutmix_probability=0.0)), self.batch()
        batch.label_l.fill_(255)
        batch.ignore_u.fill_(255)
        output = method.step(batch, step)
        output.loss.backward()
        assert float(output.loss.detach()) == pytest.approx(0, abs=1e-6)
        assert gradient(method.network.student) == pytest.approx(0, abs=1e-6)

    def test_the_teacher_gets_no_gradient_and_does_not_move(self, step):
        method = self.build()
        before = copy.deepcopy(method.network.teacher.state_dict())
        method.step(self.batch(), step).loss.backward()
        assert all(p.grad is None for p in method.network.teacher.parameters())
        assert all(torch.equal(v, before[k]) for k, v in method.network.teacher.state_dict().items())

    @pytest.mark.parametrize("how", ["unlabelled padded", "labelled ignored", "both", "nothing confident"])
    def test_nothing_to_learn_from_gives_a_finite_loss(self, dims, how, step):
        sure = ConfidenceSpec(adaptive=False, fixed=1.1)
        spec = replace(self.spec, confidence=sure, threshold=1.1) if how == "nothing confident" else self.spec
        method, batch = self.build(dims, spec=spec), self.batch(dims)
        if how in ("unlabelled padded", "both"):
            batch.ignore_u.fill_(255)
        if how in ("labelled ignored", "both"):
            batch.label_l.fill_(255)
        output = method.step(batch, step)
        output.loss.backward()
        assert bool(torch.isfinite(output.loss))
        assert all(
            bool(torch.isfinite(p.grad).all()) for p in method.network.student.parameters() if p.grad is not None
        )
        assert 0 <= float(output.logs["mask_ratio"]) <= 1

    def test_an_absent_class(self, dims, step):
        method, batch = self.build(dims), self.batch(dims)
        batch.label_l[batch.label_l == 1] = 0
        loss = method.step(batch, step).loss
        loss.backward()
        assert bool(torch.isfinite(loss))
        assert gradient(method.network.student) > 0

    def test_background_only(self, step):
        method, batch = self.build(), self.batch()
        batch.label_l.zero_()
        assert bool(torch.isfinite(method.step(batch, step).loss))

    @pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (1, 3), (3, 1)])
    def test_batches_of_any_size(self, labelled, unlabelled, step):
        output = self.build().step(self.batch(labelled=labelled, unlabelled=unlabelled), step)
        assert bool(torch.isfinite(output.loss))
        assert output.logits_l is None or len(output.logits_l) == labelled

    def test_without_unlabelled_images_it_is_plain_supervision(self, dims):
        batch = self.batch(dims)
        batch.image_u_weak = batch.image_u_strong = batch.ignore_u = None
        output = self.build(dims).step(batch, LATE)
        expected = pytest.approx(float(output.loss.detach()))
        assert sup_of(self.build(dims), batch) == expected
        assert float(output.logs["loss_sup"]) == expected
        assert output.logs["mask_ratio"] == 0

    def test_a_seed_reproduces_the_first_three_losses(self):
        batches = [self.batch(seed=s) for s in range(3)]
        runs = [optimise(self.build(seed=s), batches, LATE) for s in (1, 1, 2)]
        assert runs[0] == runs[1]
        assert (runs[0] != runs[2]) is self.draws

    def test_going_on_from_a_saved_state_gives_the_same_next_losses(self, where):
        batches = [self.batch(seed=s) for s in range(5)]
        method = self.build()
        boundary = method.pretraining_steps
        first = {"late": LATE, "before the boundary": boundary - 4, "behind it": boundary - 2}[where]
        optimise(method, batches[:3], first)
        file = io.BytesIO()
        torch.save({"network": method.network.state_dict(), "method": method.state_dict()}, file)
        expected = optimise(method, batches[3:], first + 3)
        file.seek(0)
        content = torch.load(file, weights_only=True)
        again = self.build()
        again.network.load_state_dict(content["network"])
        again.load_state_dict(content["method"])
        assert optimise(again, batches[3:], first + 3) == expected

    def test_training_lowers_the_labelled_loss(self):
        method, batch = self.build(spec=replace(self.spec, threshold=0.95)), self.batch()
        before = sup_of(method, batch)
        optimise(method, [batch] * 25)
        assert sup_of(method, batch) < 0.9 * before

    def test_one_class_of_object(self, dims, step):
        method, batch = self.build(dims, classes=2), self.batch(dims)
        batch.label_l[batch.label_l == 2] = 1
        loss = method.step(batch, step).loss
        loss.backward()
        assert bool(torch.isfinite(loss))
        assert gradient(method.network.student) > 0

    def test_what_trains_besides_the_student_gets_a_gradient_and_a_group(self):
        method = self.build()
        method.step(self.batch(), LATE).loss.backward()
        grouped = {id(p) for g in method.parameter_groups(0.1) for p in g["params"]}
        trained = [p for p in method.parts.parameters() if p.requires_grad]
        assert grouped == {id(p) for p in trained}
        assert not trained or gradient(method.parts) > 0

    def test_pretraining_and_the_step_after_it(self):
        method = self.build()
        if not method.pretraining:
            return
        assert 0 < method.pretraining_steps < LATE
        for step in (0, method.pretraining_steps - 1, method.pretraining_steps):
            method.network.student.zero_grad()
            output = method.step(self.batch(), step)
            output.loss.backward()
            assert bool(torch.isfinite(output.loss))
            assert {"loss_sup", "mask_ratio"} <= set(output.logs)
            assert gradient(method.network.student) > 0

    def test_it_has_a_name_for_people(self):
        assert METHODS[self.name].title in described(self.name)
        assert ("reconstruction" in described(self.name)) is METHODS[self.name].reconstruction
