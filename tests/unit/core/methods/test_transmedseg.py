from dataclasses import replace

import torch
import torch.nn.functional as F
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of

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
