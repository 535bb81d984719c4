from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of

from lib.core.methods import transmedseg
from lib.core.methods.transmedseg import corrected_logits
from lib.core.spec import TransMedSegSpec


class TestTransMedSeg(MethodSuite):
    name = "transmedseg"
    terms = ("loss_unsup", "loss_tsa")
    spec = replace(SPEC, transmedseg=TransMedSegSpec(confidence=0.0, enough=1, alpha=1.0))

    def test_statistics_of_both_sides_are_kept_and_saved(self):
        method = self.build()
        method.step(batch_of(), LATE)
        assert bool((method.parts["source"].count > 0).all())
        assert {"source.mean", "target.covariance"} <= set(method.state_dict()["parts"])

    def test_the_loss_by_hand(self):
        spec = replace(self.spec, transmedseg=replace(self.spec.transmedseg, weight=0.3))
        output = self.build(spec=spec).step(batch_of(), LATE)
        sup, unsup, tsa = (float(output.logs[f"loss_{n}"]) for n in ("sup", "unsup", "tsa"))
        assert float(output.loss.detach()) == pytest.approx(sup + 0.5 * unsup + 0.3 * tsa)

    @pytest.mark.parametrize(("step", "share"), [(10, 0.0), (25, 0.5), (40, 1.0)])
    def test_the_shift_grows_from_the_end_of_pretraining_on(self, monkeypatch, step, share):
        seen, original = [], transmedseg.corrected_logits
        monkeypatch.setattr(transmedseg, "corrected_logits", lambda *a: seen.append(a[-1]) or original(*a))
        spec = replace(self.spec, transmedseg=replace(self.spec.transmedseg, alpha=0.8))
        self.build(spec=spec).step(batch_of(), step)  # the first 10 of 40 steps are pre-training
        assert seen == [pytest.approx(0.8 * share)]

    def test_one_pass_of_the_teacher_gives_labels_and_features(self):
        method, calls = self.build(), []
        method.network.teacher.register_forward_hook(lambda *_: calls.append(1))
        method.step(batch_of(), LATE)
        assert len(calls) == 1

    @pytest.mark.parametrize(("confidence", "counted"), [(0.0, 2 * 7 * 8), (1.1, 0)])
    def test_only_confident_pixels_of_the_teacher_that_are_no_padding_enter_the_statistics(self, confidence, counted):
        spec = replace(self.spec, transmedseg=replace(self.spec.transmedseg, confidence=confidence))
        method = self.build(spec=spec)
        method.step(batch_of(), LATE)
        assert int(method.parts["target"].count.sum()) == counted
        assert int(method.parts["source"].count.sum()) == int((batch_of().label_l != 255).sum())

    def test_the_confident_ones_are_those_above_the_number(self):
        batch = batch_of()
        probs = torch.softmax(self.build().network.label(batch.image_u_weak).logits, 1).amax(1)[:, :-1]
        middle = float(probs.median())
        method = self.build(spec=replace(self.spec, transmedseg=replace(self.spec.transmedseg, confidence=middle)))
        method.step(batch, LATE)
        assert int(method.parts["target"].count.sum()) == int((probs >= middle).sum())

    def test_towards_the_target_by_hand(self):
        method = self.build(spec=replace(self.spec, transmedseg=replace(self.spec.transmedseg, enough=5)))
        source, target = method.parts["source"], method.parts["target"]
        source.count.copy_(torch.tensor([5.0, 4, 9]))
        target.count.copy_(torch.tensor([7.0, 9, 4]))
        source.mean.fill_(1.0)
        target.mean.fill_(3.0)
        target.covariance.fill_(0.5)
        shift, covariance = method._towards_target()
        assert shift[:, 0].tolist() == [
            2,
            0,
            0,
        ]  # of the second the source has seen too little, of the third the target
        torch.testing.assert_close(covariance[0], 0.5 + 1e-4 * torch.eye(6))
        assert float(covariance[1:].abs().sum()) == 0

    def test_without_enough_pixels_it_is_the_plain_cross_entropy(self):
        unknown = replace(self.spec, transmedseg=replace(self.spec.transmedseg, enough=10**9))
        batch, method = batch_of(), self.build(spec=unknown)
        far = method.step(batch, LATE).logs["loss_tsa"]
        still = replace(self.spec, transmedseg=replace(self.spec.transmedseg, alpha=0.0))
        torch.testing.assert_close(far, self.build(spec=still).step(batch, LATE).logs["loss_tsa"])


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, d, k = 5, 3, 4
    root = 0.4 * torch.randn(k, d, d, generator=generator)
    return {
        "features": torch.randn(n, d, generator=generator),
        "label": torch.tensor([0, 1, 2, 3, 1]),
        "weight": torch.randn(k, d, generator=generator),
        "bias": torch.randn(k, generator=generator),
        "shift": 0.3 * torch.randn(k, d, generator=generator),
        "covariance": root @ root.transpose(1, 2),
    }


def test_corrected_logits_by_hand_and_their_limit():
    given = {
        "features": torch.tensor([[1.0, 2.0]]),
        "label": torch.tensor([0]),
        "weight": torch.tensor([[0.0, 0.0], [2.0, 1.0]]),
        "bias": torch.tensor([0.25, 0.5]),
        "shift": torch.tensor([[0.5, -1.0], [9.0, 9.0]]),
        "covariance": torch.stack([torch.tensor([[1.0, 0.5], [0.5, 2.0]]), 9 * torch.eye(2)]),
    }
    # w_1 f + b_1 = 4.5; (w_1 - w_0) dmu_0 = 1 - 1 = 0; quadratic form of class 0: 4 + 2 * 2 * 0.5 + 2 = 8
    assert corrected_logits(**given, alpha=0.5).tolist() == [[0.25, 4.5 + 0.25 * 8]]
    moved = {**given, "shift": torch.tensor([[0.5, 2.0], [9.0, 9.0]])}  # 1 + 2 = 3
    assert corrected_logits(**moved, alpha=0.5).tolist() == [[0.25, 4.5 + 0.5 * 3 + 0.25 * 8]]
    assert corrected_logits(**moved, alpha=100.0).tolist() == [[0.25, 14.5]]
    backwards = {**given, "shift": torch.tensor([[-90.0, 0.0], [9.0, 9.0]])}
    assert corrected_logits(**backwards, alpha=1.0).tolist() == [[0.25, -5.5]]


def test_strength_zero_is_the_linear_classifier_and_the_own_class_is_never_corrected():
    given = example()
    plain = given["features"] @ given["weight"].T + given["bias"]
    torch.testing.assert_close(corrected_logits(**given, alpha=0.0), plain)
    corrected = corrected_logits(**given, alpha=0.7)
    rows = torch.arange(5)
    torch.testing.assert_close(corrected[rows, given["label"]], plain[rows, given["label"]])
    assert not torch.allclose(corrected, plain)


def test_the_closed_form_bounds_the_sampled_expectation():
    given, alpha = example(), 0.6
    bound = F.cross_entropy(corrected_logits(**given, alpha=alpha), given["label"], reduction="none")
    generator = torch.Generator().manual_seed(1)
    for i, y in enumerate(given["label"].tolist()):
        root = torch.linalg.cholesky(alpha * given["covariance"][y] + 1e-9 * torch.eye(3))
        moved = given["features"][i] + alpha * given["shift"][y] + torch.randn(20000, 3, generator=generator) @ root.T
        sampled = F.cross_entropy(moved @ given["weight"].T + given["bias"], torch.full((20000,), y))
        assert float(sampled) <= float(bound[i]) + 0.02


def test_a_diagonal_covariance_is_the_full_one_with_zeros():
    given = example()
    diagonal = torch.diagonal(given["covariance"], dim1=1, dim2=2)
    full = {**given, "covariance": torch.diag_embed(diagonal)}
    torch.testing.assert_close(
        corrected_logits(**{**given, "covariance": diagonal}, alpha=0.5), corrected_logits(**full, alpha=0.5)
    )
