"""Mean teacher (Tarvainen & Valpola 2017, arXiv 1703.01780), in the segmentation form of methods specification 8.2.

    L = SUP(x_l, y) + w(t) mean (softmax f(x_u) - softmax f'(x_u + noise))^2,   noise = clip(0.1 N(0, 1), -0.2, 0.2)

w rises to 0.1 along a sigmoid over 40 % of the run and is 0 for its first thirtieth. The teacher stays in evaluation mode
and follows the student's batch statistics too, the steadier choice with small batches; a switch gives the published one.
"""

from __future__ import annotations

import torch

from lib.core.batch import Batch
from lib.core.losses import masked_mse
from lib.core.methods.base import Method, StepOutput


class MeanTeacher(Method):
    """Consistency between the student and its noisy average."""

    name = "mean_teacher"
    title = "Mean teacher"
    several_processes = True

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step; `mask_ratio` is 1: every pixel takes part."""
        noise = torch.as_tensor(self.rng(step_no).standard_normal(batch.image_u_weak.shape), dtype=torch.float32)
        noise = (0.1 * noise).clamp(-0.2, 0.2).to(batch.image_u_weak.device)
        answer = self.network.label(batch.image_u_weak + noise, training=self.spec.mean_teacher.teacher == "training")
        target = torch.softmax(answer.logits.float(), dim=1)

        output = self.in_parts(self.network, torch.cat([batch.image_l, batch.image_u_weak]), len(batch.image_l))
        logits_l, logits_u = output.logits.split([len(batch.image_l), len(batch.image_u_weak)])

        loss_sup = self.labelled_loss(logits_l, batch.label_l)
        loss_unsup = masked_mse(torch.softmax(logits_u.float(), dim=1), target, batch.ignore_u)
        weight = self._weight(step_no)
        loss = loss_sup + weight * loss_unsup
        logs = {"loss_sup": loss_sup, "loss_unsup": loss_unsup, "weight": weight, "mask_ratio": 1.0}
        return StepOutput(loss, logits_l, logs)

    def after_step(self, step_no: int, decay: float) -> None:
        """The average; a teacher in training mode has statistics of its own passes, as published."""
        self.network.update_teacher(step_no, decay, buffers=self.spec.mean_teacher.teacher != "training")

    def _weight(self, step_no: int) -> float:
        if step_no < self.total_steps / 30:
            return 0.0
        return self.spec.consistency_weight * self.ramp(step_no)
