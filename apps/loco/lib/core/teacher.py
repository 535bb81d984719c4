"""Student and its exponential-moving-average teacher."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lib.core.networks import NetworkOutput
from lib.core.schedules import warm_decay


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """`average = d average + (1 - d) module` for the weights of two modules of one form, not for their buffers."""
    for mine, theirs in zip(average.parameters(), module.parameters(), strict=True):
        mine.lerp_(theirs, 1 - decay)


class StudentTeacher(nn.Module):
    """Two copies of one network. In training mode `forward` is the student, in evaluation mode the teacher.

    The teacher never trains: no gradient, always in evaluation mode, weights and buffers follow the student's.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.student = network
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        self.teacher.eval()

    def train(self, mode: bool = True) -> StudentTeacher:
        """Switch the student only."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, image: Tensor) -> NetworkOutput:
        """`B C H W [D]` in [0, 1] to logits and projection."""
        return self.student(image) if self.training else self.teacher(image)

    @torch.no_grad()
    def label(self, image: Tensor, *, training: bool = False) -> NetworkOutput:
        """The teacher's output without a graph, in any mode.

        With `training` the teacher drops out and normalises by the statistics of this batch, as in several published
        codes; that moves its running statistics.
        """
        if not training:
            return self.teacher(image)
        self.teacher.train()
        try:
            return self.teacher(image)
        finally:
            self.teacher.eval()

    @torch.no_grad()
    def update_teacher(self, step: int, decay: float, *, warm: bool = True, buffers: bool = True) -> None:
        """`teacher = d teacher + (1 - d) student` for weights and floating buffers, d = min(1 - 1/(step + 1), decay).

        Without `warm`, d = decay. Without `buffers` the teacher keeps the statistics of its own passes. Counters (integer
        buffers) are copied. Call it after the optimiser's step number `step` (from 0).
        """
        d = warm_decay(step, decay) if warm else decay
        if not buffers:
            follow(self.teacher, self.student, d)
            return
        student, teacher = self.student.state_dict(), self.teacher.state_dict()
        ours = [v for v in teacher.values() if v.is_floating_point()]
        theirs = [student[k].to(v.dtype) for k, v in teacher.items() if v.is_floating_point()]
        torch._foreach_mul_(ours, d)
        torch._foreach_add_(ours, theirs, alpha=1 - d)
        for key, value in teacher.items():
            if not value.is_floating_point():
                value.copy_(student[key])
