"""The optimisers that a specification can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from lib.core.spec import Optimizer, SpecError, TrainSpec


def make_optimizer(groups: Sequence[dict[str, Any]], training: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser of a run.

    SGD with momentum is LoCo's (arXiv 2412.02314). AdamW (arXiv 1711.05101) is for runs that are too short for it; its
    weight decay is not scaled by the gradient, and `weight_decay` means another thing for each.

    Args:
        groups: parameter groups, each with its rate.
        training: name of the optimiser, learning rate, momentum (SGD) and weight decay.

    Raises:
        SpecError: there is no optimiser of that name.
    """
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=training.learning_rate, momentum=training.momentum, weight_decay=training.weight_decay
        )
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay)
    raise SpecError(
        f"expected `optimizer` to be one of {', '.join(get_args(Optimizer))}, but got {training.optimizer!r}; "
        "choose one of them"
    )
