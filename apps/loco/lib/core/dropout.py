"""Stochastic passes of a network: dropout switched on, everything else in evaluation mode (Monte Carlo dropout)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.core.cases import Case
from lib.core.predict import predict
from lib.core.spec import DataSpec

PASSES = 5
_RATE = 0.1
_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)


@contextmanager
def stochastic(network: nn.Module) -> Iterator[None]:
    """Within it, dropout is active. A network without any has it in front of its classifier, at a rate of 0.1.

    `network` has a `classifier`, as all of `networks` have.
    """
    own = [m for m in network.modules() if isinstance(m, _DROPOUTS) and m.p > 0]
    for module in own:
        module.train()
    hook = None if own else network.classifier.register_forward_pre_hook(lambda _, x: (F.dropout(x[0], _RATE, True),))
    try:
        yield
    finally:
        for module in own:
            module.eval()
        if hook is not None:
            hook.remove()


def dropout_passes(
    network: nn.Module, case: Case, data: DataSpec, device: torch.device, passes: int = PASSES
) -> Tensor:
    """Probabilities of `passes` stochastic predictions of one case, `R K *S` float32 on the CPU."""
    with stochastic(network):
        return torch.stack([predict(network, case, data, device).probs for _ in range(passes)])
