"""Stochastic passes of a network: dropout switched on, everything else in evaluation mode (Monte Carlo dropout)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.core.cases import Case
from lib.core.perturb import stochastic
from lib.core.predict import predict
from lib.core.spec import DataSpec

PASSES = 5


def dropout_passes(
    network: nn.Module, case: Case, data: DataSpec, device: torch.device, passes: int = PASSES
) -> Tensor:
    """Probabilities of `passes` stochastic predictions of one case, `R K *S` float32 on the CPU."""
    with stochastic(network):
        return torch.stack([predict(network, case, data, device).probs for _ in range(passes)])
