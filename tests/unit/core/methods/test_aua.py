from dataclasses import replace
from math import log

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient, optimise

from lib.core.class_contrast import boundary_contrast, prototype_contrast
from lib.core.regions import near_boundary
from lib.core.statistics import ClassStatistics
from lib.core.stochastic import antithetic, energy_distance, negative_log_likelihood


class TestAUA(MethodSuite):
    name = "aua"
    own_form = (0,)
    terms = ("loss_unsup", "loss_contrast")
    spec = replace(SPEC, aua=replace(SPEC.aua, second_stage="continue"))
    draws = False
    """Its second stage draws nothing."""

    def test_the_loss_of_both_stages_by_hand(self):
        first = self.build().step(batch_of(), 19)
        logs = {k: float(v) for k, v in first.logs.items()}
        expected = logs["loss_sup"] + logs["weight"] * logs["loss_unsup"] + 0.09 * logs["loss_boundary"]
        assert float(first.loss.detach()) == pytest.approx(expected)
        second = self.build().step(batch_of(), LATE)
        logs = {k: float(v) for k, v in second.logs.items()}
        assert float(second.loss.detach()) == pytest.approx(
            logs["loss_sup"] + logs["loss_unsup"] + 0.1 * logs["loss_contrast"]
        )

    def test_the_first_stage_is_random_by_seed_and_learns_from_unlabelled_images(self):
        batch = batch_of()
        batch.label_l.fill_(255)
        losses = []
        for seed in (1, 1, 2):
            method = self.build(seed=seed)
            output = method.step(batch, 19)
            output.loss.backward()
            losses.append(float(output.loss.detach()))
            assert gradient(method.network.student) > 0
            assert gradient(method.parts["head"]) > 0
        assert losses[0] == losses[1] != losses[2]

    def test_what_trains_besides_the_student_gets_a_gradient_and_a_group(self):
        method = self.build()
        method.step(batch_of(), 0).loss.backward()
        grouped = {id(p) for g in method.parameter_groups(0.1) for p in g["params"]}
        assert grouped == {id(p) for p in method.parts["head"].parameters()}
        assert gradient(method.parts["head"]) > 0
        assert gradient(method.parts["head_teacher"]) == 0

    @pytest.mark.parametrize("second_stage", ["fresh", "continue"])
    def test_the_second_stage_starts_fresh_with_the_first_as_labeller(self, second_stage):
        method = self.build(spec=replace(SPEC, aua=replace(SPEC.aua, second_stage=second_stage)))
        student, start = method.network.student, method.network.student.classifier.weight.detach().clone()
        with torch.no_grad():
            student.classifier.weight.add_(1.0)
        method.step(batch_of(), method.pretraining_steps)
        assert torch.allclose(method.parts["labeller"].classifier.weight, start + 1)
        assert torch.allclose(student.classifier.weight, start if second_stage == "fresh" else start + 1)

    def test_statistics_of_an_earlier_run_are_forgotten(self):
        first, again = self.build(), self.build()
        first.step(batch_of(), LATE)
        again.load_state_dict(first.state_dict())
        for method in (again, new := self.build()):
            method.step(batch_of(seed=1), method.pretraining_steps)
        for name, value in again.parts["statistics"].state_dict().items():
            assert torch.equal(value, new.parts["statistics"].state_dict()[name]), name

    @pytest.mark.parametrize("teacher", ["evaluation", "training"])
    def test_the_published_teacher_has_statistics_of_its_own(self, teacher):
        method = self.build(spec=replace(SPEC, aua=replace(SPEC.aua, teacher=teacher)))
        student, average, modes = method.network.student, method.network.teacher, []
        average.body[1].register_forward_hook(lambda m, x, y: modes.append(m.training))
        method.step(batch_of(), 0)
        own = average.body[1].running_mean.clone()
        method.after_step(0, 0.9)
        assert modes == [teacher == "training"]
        assert not average.training
        assert torch.equal(average.classifier.weight, student.classifier.weight)
        expected = own if teacher == "training" else student.body[1].running_mean
        assert torch.equal(average.body[1].running_mean, expected)
        method.after_step(LATE, 0.0)
        assert torch.equal(average.body[1].running_mean, student.body[1].running_mean)

    @pytest.mark.parametrize("second_stage", ["fresh", "continue"])
    def test_the_average_of_a_fresh_network_warms_up_anew(self, second_stage):
        method = self.build(spec=replace(SPEC, aua=replace(SPEC.aua, second_stage=second_stage)))
        optimise(method, [batch_of()], method.pretraining_steps)
        student, average = method.network.student.classifier.weight, method.network.teacher.classifier.weight
        assert torch.equal(average, student) is (second_stage == "fresh")

    def test_each_stage_is_a_training_of_its_own_when_the_second_starts_afresh(self):
        fresh, on = self.build(spec=SPEC), self.build()
        first, total = fresh.pretraining_steps, fresh.total_steps
        assert [fresh.stage(s) for s in (0, first - 1, first, total - 1)] == [(0, first)] * 2 + [(first, total)] * 2
        assert [on.stage(s) for s in (0, first, total - 1)] == [(0, total)] * 3

    def test_the_head_has_a_teacher(self):
        method = self.build()
        before = method.parts["head_teacher"].factor.weight.clone()
        with torch.no_grad():
            method.parts["head"].factor.weight.add_(1.0)
        method.after_step(9, 0.8)
        assert torch.allclose(method.parts["head_teacher"].factor.weight, before + 0.2)


def test_samples_lie_around_the_mean():
    mean, diagonal, factor = torch.zeros(1, 1, 1, 2), torch.tensor([[[[4.0, 9.0]]]]), torch.ones(1, 1, 1, 1, 2)
    samples = antithetic(mean, diagonal, factor, torch.tensor([[[0.5]]]), torch.ones(1, 1, 1, 1, 2))
    assert samples.flatten().tolist() == [2.5, 3.5, -2.5, -3.5]


def test_likelihood_by_hand():
    samples = torch.zeros(4, 1, 2, 1, 3)
    label = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    assert float(negative_log_likelihood(samples, label)) == pytest.approx(log(2))
    assert float(negative_log_likelihood(samples, torch.full_like(label, 255))) == 0


def test_the_distance_of_equal_sets_is_zero():
    a, b = torch.randn(2, 4, 1, 3, 5, 5, generator=torch.Generator().manual_seed(0)).mul(3).unbind()
    valid = torch.ones(1, 5, 5, dtype=torch.bool)
    assert float(energy_distance(a, a.flip(0), valid)) == pytest.approx(0, abs=1e-6)
    assert float(energy_distance(a, b, valid)) > 0.01


def test_the_distance_of_large_images_in_half_precision():
    a, b = torch.randn(2, 2, 1, 2, 300, 300, generator=torch.Generator().manual_seed(0)).mul(3).unbind()
    valid = torch.ones(1, 300, 300, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.float16):
        distance = energy_distance(a, b, valid)
    assert torch.equal(distance, energy_distance(a, b, valid))


def test_samples_and_prototypes_are_as_exact_in_half_precision():
    generator = torch.Generator().manual_seed(0)
    f, mean, variance = torch.rand(20, 4, generator=generator), *torch.rand(2, 3, 4, generator=generator)
    factor, noise = torch.rand(2, 8, 3, 5, 5, generator=generator), torch.randn(3, 2, 8, generator=generator)
    results = []
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            loss = prototype_contrast(f, torch.arange(20) % 3, mean, variance, 0.1)
            samples = antithetic(factor[:, 0], factor[:, 0], factor, noise, torch.zeros(3, 2, 3, 5, 5))
            results.append((loss, samples))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_running_statistics_are_those_of_all_at_once():
    f, y = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    y[y == 2] = 255
    statistics = ClassStatistics(2, 3)
    for part in (slice(0, 1), slice(1, 20), slice(20, 60)):
        statistics.update(f[part], y[part])
    for c in (0, 1):
        assert torch.allclose(statistics.mean[c], f[y == c].mean(0), atol=1e-6)
        assert torch.allclose(statistics.variance[c], f[y == c].var(0, unbiased=False), atol=1e-6)
    assert statistics.count.tolist() == [20, 20]


def test_the_band_has_both_sides():
    label = torch.tensor([[[0, 0, 0, 1, 1, 255]]], dtype=torch.uint8)
    assert near_boundary(label)[0, 0].tolist() == [False, False, True, True, False, False]


def test_boundary_contrast_by_hand():
    z = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]).view(1, 2, 2, 2)
    label = torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8)
    loss = boundary_contrast(z, label, 1.0, 100, torch.Generator())
    assert float(loss) == pytest.approx(log(2.718281828 + 2) - 1)
    assert float(boundary_contrast(z, label * 0, 1.0, 100, torch.Generator())) == 0


def test_prototypes_leave_out_the_background():
    f, mean = torch.eye(2), torch.eye(2)
    zero = torch.zeros(2, 2)
    assert float(prototype_contrast(f, torch.tensor([0, 1]), mean, zero, 1.0)) == pytest.approx(
        log(1 + 2.718281828) - 1
    )
    assert float(prototype_contrast(f, torch.tensor([0, 255]), mean, zero, 1.0)) == 0
