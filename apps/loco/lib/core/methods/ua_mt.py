"""UA-MT: uncertainty-aware mean teacher (Yu et al., MICCAI 2019, arXiv 1907.07034), in 2D and for K classes as SSL4MIS.

    L = SUP(x_l, y) + w(t) sum M (p - q)^2 / (K sum M),   M = [U < H(t)],   H(t) = (0.75 + 0.25 ramp(t; T)) ln K

p the student's and q the noisy teacher's probabilities; U is the entropy of the mean of eight more noisy passes. All nine have
dropout: the network's own, or before the classifier where it has none, as most networks of the app.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import noisy, seeded_dropout
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import IGNORE

_TINY = 1e-16


def entropy(probs: Tensor) -> Tensor:
    """`-sum_k P_k ln(P_k + 1e-6)` of probabilities `B K H W [D]`: `B 1 H W [D]`, from 0 to ln K."""
    return -(probs * torch.log(probs + 1e-6)).sum(dim=1, keepdim=True)


def threshold(step: float, total: float, start: float, classes: int) -> float:
    """Entropy below which a pixel counts as certain, `(start + (1 - start) ramp(step; total)) ln classes`.

    >>> round(threshold(100, 100, 0.75, 2), 4), round(threshold(0, 100, 0.75, 2), 4)
    (0.6931, 0.521)
    """
    return (start + (1 - start) * sigmoid_rampup(step, total)) * math.log(classes)


def certain_mse(probs: Tensor, target: Tensor, certain: Tensor, classes: int) -> Tensor:
    """`sum M (p - q)^2 / (classes sum M)` of `B K H W [D]` maps, M bool `B 1 H W [D]`; 0 with a graph where M is empty."""
    return ((probs - target) ** 2 * certain).sum() / (classes * certain.sum() + _TINY)


class UAMT(Method):
    """Mean teacher that only asks for consistency where the teacher is certain."""

    name = "ua_mt"
    title = "UA-MT"

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step; the consistency target is one noisy pass of its own, not the mean of the others."""
        options = self.spec.ua_mt
        classes = self.classes if options.scale == "classes" else 2
        target, mean = self._teacher_probs(batch.image_u_weak, step_no)
        valid = (batch.ignore_u != IGNORE).unsqueeze(1)
        limit = threshold(step_no, self.total_steps, options.threshold_start, classes)
        certain = (entropy(mean) < limit) & valid

        output = self.in_parts(self.network, torch.cat([batch.image_l, batch.image_u_weak]), len(batch.image_l))
        logits_l, logits_u = output.logits.split([len(batch.image_l), len(batch.image_u_weak)])

        loss_sup = self.labelled_loss(logits_l, batch.label_l)
        loss_unsup = certain_mse(torch.softmax(logits_u.float(), dim=1), target, certain, classes)
        weight = self.spec.consistency_weight * self.ramp(step_no)
        logs = {
            "loss_sup": loss_sup,
            "loss_unsup": loss_unsup,
            "weight": weight,
            "mask_ratio": certain.sum() / valid.sum().clamp(min=1),
        }
        return StepOutput(loss_sup + weight * loss_unsup, logits_l, logs)

    def after_step(self, step_no: int, decay: float) -> None:
        """The average; a teacher in training mode has statistics of its own passes, as published."""
        self.network.update_teacher(step_no, decay, buffers=self.spec.ua_mt.teacher != "training")

    def _teacher_probs(self, image: Tensor, step_no: int) -> tuple[Tensor, Tensor]:
        """Probabilities of one noisy pass, and the mean of the others with dropout: both `B K H W [D]`."""
        options = self.spec.ua_mt
        generator = self.generator(step_no, image.device)
        training = options.teacher == "training"
        label = partial(self.network.label, training=training)
        with seeded_dropout(self.network.teacher, generator):
            target, *others = (
                torch.softmax(label(noisy(image, options.noise, generator)).logits.float(), dim=1)
                for _ in range(1 + options.passes)
            )
        return target, torch.stack(others).mean(dim=0)
