"""Maps of uncertainty and noisy ranking of nnActive, and the epistemic scores of MONAI Label."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.common import VALUE, Arrays, Check, Errors

from lib.core.uncertainty import (
    bald,
    box_mean,
    class_entropy,
    epistemic_entropy,
    epistemic_variance,
    expected_entropy,
    power_beta,
    power_key,
    predictive_entropy,
)

MAP = 1e-5
"""Absolute tolerance of maps."""


def largest(got: np.ndarray, recorded: np.ndarray) -> float:
    """Largest absolute deviation."""
    return float(np.abs(got - recorded.astype(np.float64)).max())


def check_uncertainty(case: Arrays) -> Errors:
    """NnActive's maps of uncertainty from the softmax of several models."""
    probs = torch.from_numpy(case["probs"])
    maps = {
        "predictive_entropy": predictive_entropy,
        "expected_entropy": expected_entropy,
        "bald": bald,
        "class_entropy": class_entropy,
    }
    return {name: (largest(make(probs).numpy(), case[name]), MAP) for name, make in maps.items()}


def check_box(case: Arrays) -> Errors:
    """The exact box mean; the published one, by FFT, has small negative values."""
    values = torch.from_numpy(case["u"].astype(np.float64))
    if "box_mean_spec" in case:
        got = box_mean(values, case["window"].tolist(), [1] * values.ndim).numpy()
        return {
            "box_mean": (largest(got, case["box_mean_spec"]), 1e-7),
            "below zero": (max(0.0, -float(got.min())), 0.0),
        }
    got = box_mean(values, case["window"].tolist(), case["stride"].tolist()).numpy()
    return {"box_mean": (largest(got, case["box_mean"]), MAP)}


def check_power_noise(case: Arrays) -> Errors:
    """Keys of the noisy ranking from recorded draws; a score of 0 is -inf in both."""
    errors: Errors = {}
    for name in (key for key in case if key.startswith("key_")):
        got = power_key(case["score"].astype(np.float64), case[name.replace("key", "gumbel")])
        finite = np.isfinite(case[name])
        same = np.array_equal(finite, np.isfinite(got))
        errors[name] = (largest(got[finite], case[name][finite]) if same else np.inf, MAP)
    return errors


def check_beta(case: Arrays) -> Errors:
    """The exponential schedule; the sigmoid ones are ablations that this app does not have."""
    errors: Errors = {}
    for name in (key for key in case if key.startswith("exp_")):
        steps = int(name.removeprefix("exp_"))
        got = np.array([power_beta(step, steps) for step in range(steps)])
        errors[name] = (float(np.abs(got / case[name] - 1).max()), 1e-9)
    return errors


def check_epistemic(case: Arrays) -> Errors:
    """MONAI Label's entropy and variance of stochastic passes, and their means."""
    probs = torch.from_numpy(case["probs"])
    entropy, variance = epistemic_entropy(probs), epistemic_variance(probs)
    return {
        "entropy": (largest(entropy.numpy(), case["entropy"]), MAP),
        "variance": (largest(variance.numpy(), case["variance"]), MAP),
        "score": (float(abs(entropy.mean() / float(case["score"]) - 1)), VALUE),
        "score_variance": (float(abs(variance.mean() / float(case["score_variance"]) - 1)), VALUE),
    }


CHECKERS: dict[str, Check] = {
    "nnactive/uncertainty_": check_uncertainty,
    "nnactive/box_": check_box,
    "nnactive/power_noise": check_power_noise,
    "nnactive/beta": check_beta,
    "monailabel/epistemic_": check_epistemic,
}
LEFT_OUT: dict[str, str] = {
    "nnactive/query_": "patch queries of nnActive's loop; this app chooses images",
    "nnactive/beta: sigmoid_*": "an ablation that this app does not have",
}
