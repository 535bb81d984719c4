"""What a training method is: one `step` that turns a batch into a loss. No I/O, no devices, testable in five lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from lib.core.batch import Batch
from lib.core.losses import supervised_loss
from lib.core.spec import MethodSpec
from lib.core.teacher import StudentTeacher


@dataclass
class StepOutput:
    """`loss` scalar with graph; `logits_l` B K H W [D] of the labelled images, detached; `logs` scalars to follow.

    `logs` always holds every loss term and `mask_ratio`, the share of valid unlabelled pixels that passed the filter.
    """

    loss: Tensor
    logits_l: Tensor
    logs: dict[str, Tensor | float] = field(default_factory=dict)


class Method:
    """Base of all methods; subclasses write `unlabelled_step` and name themselves."""

    name: str
    needs_unlabelled: bool = True
    """False: the loader draws no unlabelled images."""

    def __init__(
        self, network: StudentTeacher, spec: MethodSpec, classes: int, total_steps: int, seed: int = 0
    ) -> None:
        self.network, self.spec, self.classes, self.total_steps, self._seed = network, spec, classes, total_steps, seed

    def step(self, batch: Batch, step_no: int) -> StepOutput:
        """Loss of one batch; `step_no` counts from 0. Without unlabelled images every method is plain supervision."""
        if batch.image_u_weak is None or not self.needs_unlabelled:
            return self.supervised_step(batch)
        return self.unlabelled_step(batch, step_no)

    def supervised_step(self, batch: Batch) -> StepOutput:
        """`SUP` on the labelled images alone."""
        logits = self.network(batch.image_l).logits
        loss = supervised_loss(logits, batch.label_l)
        return StepOutput(loss, logits.detach(), {"loss_sup": loss.detach(), "mask_ratio": 0.0})

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Loss of a batch with both parts; each method names its source. Here: the labelled part alone."""
        return self.supervised_step(batch)

    def rng(self, step_no: int) -> np.random.Generator:
        """Random numbers of this step: the same for the same seed and step, in any process."""
        return np.random.default_rng([self._seed, step_no])

    def thresholds(self) -> Tensor | None:
        """Confidence thresholds per class (K) that scoring uses, if the method learns any."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State beyond the network, for the checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
