"""The optimisers by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib.core.networks import build_network
from lib.core.spec import NetworkSpec, SpecError, TrainSpec
from lib.trainers.optimizers import make_optimizer

TRAINING = TrainSpec(1, 1, 1, 1, 0.01, 0.9, momentum=0.8, weight_decay=0.05)


def _groups() -> list[dict]:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    return [{"params": weights[:1], "lr": 0.001}, {"params": weights[1:], "lr": 0.01}]


def test_sgd_has_momentum_and_the_rates_of_the_groups() -> None:
    optimizer = make_optimizer(_groups(), TRAINING)
    assert isinstance(optimizer, torch.optim.SGD)
    assert [(g["lr"], g["momentum"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.001, 0.8, 0.05),
        (0.01, 0.8, 0.05),
    ]


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    optimizer = make_optimizer(_groups(), replace(TRAINING, optimizer="adamw"))
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.zeros(2)
    optimizer.step()
    found = [group["params"][0][0].item() for group in optimizer.param_groups]
    assert found == pytest.approx([1 - 0.001 * 0.05, 1 - 0.01 * 0.05])


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="one of sgd, adamw, but got 'lion'"):
        make_optimizer(_groups(), replace(TRAINING, optimizer="lion"))


def test_a_checkpoint_from_before_has_sgd() -> None:
    old = {"epochs": 1, "iterations_per_epoch": 1, "batch_labelled": 1, "batch_unlabelled": 1}
    assert TrainSpec(**old, learning_rate=0.01, ema_decay=0.9).optimizer == "sgd"


def test_the_rate_of_a_pretrained_encoder_can_be_chosen() -> None:
    network = build_network(NetworkSpec("deeplabv3plus_efficientnet_lite0", 2, 64, pretrained=False), 2)
    network.encoder_pretrained = True
    rates = {g["name"]: g["lr"] for g in network.parameter_groups(0.01, 0.5)}
    assert rates == {"encoder": pytest.approx(0.005), "rest": 0.01}
