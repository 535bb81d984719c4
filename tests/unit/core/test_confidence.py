import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.core.confidence import DynamicThreshold
from lib.core.spec import ConfidenceSpec

SPEC = ConfidenceSpec(momentum=0.9, init=0.9, cap=0.95, power=0.25)


def logits_of(confidence, label, classes=2):
    """Two-class logits (1 K n 1) with the given confidences and labels."""
    p = torch.tensor(confidence)
    probabilities = ((1 - p) / (classes - 1)).expand(classes, -1).clone()
    probabilities[torch.tensor(label), torch.arange(len(p))] = p
    return probabilities.log()[None, :, :, None]


def test_thresholds_begin_at_the_initial_value():
    assert torch.equal(DynamicThreshold(3, SPEC).thresholds, torch.full((3,), 0.9))


def test_one_update_by_hand():
    state = DynamicThreshold(2, SPEC)
    got = state.update(logits_of([0.99, 0.97, 0.60], [0, 0, 1]), None)
    local = [0.9 * 0.9 + 0.1 * 0.98, 0.9 * 0.9 + 0.1 * 0.60]
    overall = 0.9 * 0.9 + 0.1 * 0.90  # the mean 0.853 is clipped to the initial value
    assert got.tolist() == pytest.approx([overall, overall * (local[1] / local[0]) ** 0.25], rel=1e-6)
    assert torch.equal(got, state.thresholds)


def test_global_mean_is_capped():
    state = DynamicThreshold(2, SPEC)
    got = state.update(logits_of([0.999, 0.999], [0, 1]), None)
    assert got.tolist() == pytest.approx([0.9 * 0.9 + 0.1 * 0.95] * 2, rel=1e-6)


def test_absent_class_counts_as_initial_value():
    state = DynamicThreshold(3, replace(SPEC, power=1.0))
    state.update(logits_of([0.99, 0.99], [0, 0], classes=3), None)
    assert state.state_dict()["local"].tolist() == pytest.approx([0.909, 0.9, 0.9])


@pytest.mark.parametrize(("over_padding", "overall"), [(False, 0.92), (True, 0.94)])
def test_padding_never_enters_local_means_and_global_mean_only_if_asked(over_padding, overall):
    state = DynamicThreshold(2, replace(SPEC, global_over_padding=over_padding, momentum=0.0))
    ignore = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1)
    state.update(logits_of([0.92, 0.96], [0, 1]), ignore)
    assert state.state_dict()["local"].tolist() == pytest.approx([0.92, 0.9])
    assert float(state.state_dict()["global"]) == pytest.approx(overall)


def test_all_pixels_padded_keeps_the_initial_value():
    state = DynamicThreshold(2, SPEC)
    got = state.update(logits_of([0.99], [0]), torch.full((1, 1, 1), 255, dtype=torch.uint8))
    assert got.tolist() == pytest.approx([0.9, 0.9])


def test_fixed_threshold_never_moves():
    state = DynamicThreshold(2, replace(SPEC, adaptive=False, fixed=0.95))
    before = state.state_dict()
    assert state.update(logits_of([0.6, 0.6], [0, 1]), None).tolist() == pytest.approx([0.95, 0.95])
    assert torch.equal(state.state_dict()["local"], before["local"])


def test_state_survives_a_safe_checkpoint():
    state, file = DynamicThreshold(2, SPEC), io.BytesIO()
    state.update(logits_of([0.99, 0.6], [0, 1]), None)
    torch.save(state.state_dict(), file)
    file.seek(0)
    again = DynamicThreshold(2, SPEC)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again.thresholds, state.thresholds)
    again.update(logits_of([0.7], [0]), None)
    assert not torch.equal(again.thresholds, state.thresholds)


def test_3d_and_half_precision():
    logits = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    full = DynamicThreshold(3, SPEC).update(logits, None)
    assert torch.allclose(DynamicThreshold(3, SPEC).update(logits.half(), None), full, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_published_stream(classes):
    case = np.load(f"tests/data/golden/cdf_{classes}.npz")
    spec = ConfidenceSpec(
        momentum=float(case["momentum"]), init=float(case["init"]), cap=float(case["cap"]), power=float(case["power"])
    )
    state = DynamicThreshold(classes, spec)
    for logits, expected in zip(case["logits"], case["thresholds"], strict=True):
        np.testing.assert_allclose(state.update(torch.from_numpy(logits), None).numpy(), expected, rtol=1e-5)


def test_errors_name_what_was_expected():
    state = DynamicThreshold(2, SPEC)
    with pytest.raises(ValueError, match=r"expected `logits` to be of shape B 2 H W \[D\], but got \(1, 3, 4, 4\)"):
        state.update(torch.zeros(1, 3, 4, 4), None)
    with pytest.raises(ValueError, match=r"expected `ignore` to be of shape \(1, 4, 4\), but got \(1, 1, 4, 4\)"):
        state.update(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"expected `logits` to be finite, but got NaN"):
        state.update(torch.full((1, 2, 4, 4), torch.nan), None)
    with pytest.raises(ValueError, match=r"expected `local` to be of shape \(2,\), but got \(3,\)"):
        state.load_state_dict(DynamicThreshold(3, SPEC).state_dict())
    with pytest.raises(ValueError, match=r"expected the state to hold 'global' and 'local', but got \['x'\]"):
        state.load_state_dict({"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"expected `classes` to be at least 2, but got 1"):
        DynamicThreshold(1, SPEC)
