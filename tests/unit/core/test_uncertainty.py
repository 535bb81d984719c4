import math
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.golden_checks import checker_of
from torch import nn

from lib.core.dropout import stochastic
from lib.core.networks import NetworkOutput
from lib.core.uncertainty import bald, box_mean, feature_cosine, image_uncertainty, power_beta

GOLDEN = Path("tests/data/golden")
CASES = sorted(
    p.relative_to(GOLDEN).as_posix() for p in GOLDEN.glob("*/*.npz") if p.parent.name in ("nnactive", "monailabel")
)


@pytest.mark.parametrize("name", CASES)
def test_recorded_cases_of_the_published_code(name):
    with np.load(GOLDEN / name) as case:
        errors = checker_of(name)(case)
    assert errors
    assert {quantity: error for quantity, (error, tolerance) in errors.items() if not error <= tolerance} == {}


def test_there_are_recorded_cases():
    assert len(CASES) >= 10


def test_models_that_agree_carry_no_information():
    probs = torch.rand(1, 3, 6, 5).softmax(dim=1).expand(4, 3, 6, 5)
    assert float(bald(probs).abs().max()) < 1e-6


def test_a_window_larger_than_the_image_is_the_image():
    values = torch.arange(6.0).reshape(2, 3)
    assert box_mean(values, (5, 5), (1, 1)).tolist() == [[2.5]]


def test_the_scores_of_an_image_by_hand():
    probs = torch.zeros(2, 8, 8)
    probs[0] = 1.0
    probs[:, :2, :2] = 0.5
    found = image_uncertainty(probs, {"polyp": 1})
    # one window of 2 x 2 pixels is wholly unsure, 4 of 64 pixels are
    assert found == pytest.approx({"entropy": 4 / 64, "margin": 4 / 64, "clasp": 1.0, "clasp polyp": 0.5})


def test_three_classes_have_their_margin_between_the_two_likeliest():
    probs = torch.tensor([0.5, 0.3, 0.2]).reshape(3, 1, 1).expand(3, 4, 4)
    assert image_uncertainty(probs, {"a": 1, "b": 2})["margin"] == pytest.approx(0.8)


def test_the_cosine_of_foreground_and_background():
    features = torch.zeros(2, 4, 4)
    features[0], features[1, :2] = 1.0, 1.0
    foreground = torch.zeros(4, 4, dtype=torch.bool)
    assert feature_cosine(features, foreground) == 0.5
    foreground[:2] = True
    assert feature_cosine(features, foreground) == pytest.approx((1 + 1 / math.sqrt(2)) / 2)


def test_the_schedule_of_one_step_is_its_beginning():
    assert power_beta(0, 1) == 1.0
    assert power_beta(4, 5) == pytest.approx(100)


class Classifier(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.drop, self.classifier = nn.Dropout(rate), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return NetworkOutput(self.classifier(self.drop(x)), x)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_is_active_within_and_silent_after(rate):
    network, x = Classifier(rate).eval(), torch.ones(1, 4, 8, 8)
    with stochastic(network):
        assert not torch.equal(network(x).logits, network(x).logits)
    assert torch.equal(network(x).logits, network(x).logits)
    assert not network.drop.training
