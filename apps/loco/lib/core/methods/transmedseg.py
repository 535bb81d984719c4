"""TransMedSeg: transferable semantic augmentation (Wang et al., arXiv 2505.14753) on top of BCP.

    L = L_BCP + beta L_tsa,   L_tsa = mean_i -log softmax_y(z~_i)
    z~_i,c = w_c f_i + b_c + alpha (w_c - w_y) dmu_y + (alpha/2) (w_c - w_y)^T Sigma_y (w_c - w_y)

Per class, labelled features (student) are shifted towards the distribution of unlabelled ones (teacher): dmu the difference of
the means, Sigma the covariance of the teacher's. The closed form bounds the expected cross-entropy over such shifts (Li et
al., CVPR 2021). The paper's base is GraphCL, which is BCP with two graph terms; here it is BCP. L_tsa counts from the first step
after pre-training; for a class that is hardly known yet it is the plain cross-entropy.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.batch import Batch
from lib.core.features import label_at
from lib.core.methods.base import StepOutput
from lib.core.methods.bcp import BCP
from lib.core.networks import NetworkOutput
from lib.core.regions import as_vectors, some_of
from lib.core.spec import IGNORE
from lib.core.statistics import ClassDistribution


def corrected_logits(
    features: Tensor, label: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, covariance: Tensor, alpha: float
) -> Tensor:
    """`z~` of the closed form, `N K`; the correction is cut at 10 and is 0 for the own class.

    Args:
        features: `N D`.
        label: `N` class indices.
        weight: `K D` of the linear classifier.
        bias: `K`.
        shift: `K D`, dmu per class.
        covariance: `K D D`, or `K D` when diagonal.
        alpha: strength.
    """
    difference = weight.unsqueeze(0) - weight.unsqueeze(1)  # [y, c] = w_c - w_y
    linear = torch.einsum("ycd,yd->yc", difference, shift)
    form = "ycd,yde,yce->yc" if covariance.ndim == 3 else "ycd,yd,ycd->yc"
    quadratic = torch.einsum(form, difference, covariance, difference)
    correction = (alpha * linear + 0.5 * alpha * quadratic).clamp(-10, 10)
    return features @ weight.T + bias + correction[label]


class TransMedSeg(BCP):
    """BCP whose labelled features are shifted towards the unlabelled ones."""

    name = "transmedseg"
    title = "TransMedSeg"
    several_processes = False

    def prepare(self) -> None:
        """Distributions of both sides."""
        features = self.network.student.classifier.in_channels
        for side in ("source", "target"):
            self.parts[side] = ClassDistribution(self.classes, features, self.spec.transmedseg.memory)

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """A step of BCP, and the labelled images once more for the augmentation of their features."""
        taught = self._teacher_output(batch)
        output = self._mixed_step(batch, self._cleaned(taught, batch), step_no)
        loss = self._augmentation(batch, taught, step_no)
        logs = {**output.logs, "loss_tsa": loss}
        return replace(output, loss=output.loss + self.spec.transmedseg.weight * loss, logs=logs)

    def _augmentation(self, batch: Batch, teacher: NetworkOutput, step_no: int) -> Tensor:
        options, student = self.spec.transmedseg, self.network.student
        generator = self.generator(step_no, batch.image_l.device)
        feature = self.network(batch.image_l).feature
        size = feature.shape[2:]
        label_l = label_at(batch.label_l, size).long()
        probs = F.interpolate(torch.softmax(teacher.logits.float(), dim=1), size=size, mode="area")
        confidence, label_u = probs.max(dim=1)
        padded = label_at(batch.ignore_u, size) == IGNORE
        label_u = label_u.masked_fill((confidence < options.confidence) | padded, IGNORE)

        vectors_l, vectors_u = (as_vectors(f) for f in (feature, teacher.feature))
        label_l, label_u = label_l.flatten(), label_u.flatten()
        for c in range(self.classes):
            self.parts["source"].update(vectors_l.detach()[some_of(label_l == c, options.sample, generator)], c)
            self.parts["target"].update(vectors_u[some_of(label_u == c, options.sample, generator)], c)

        points = torch.cat(
            [some_of(label_l == c, options.points // self.classes, generator) for c in range(self.classes)]
        )
        if len(points) == 0:
            return feature.sum() * 0
        shift, covariance = self._towards_target()
        weight = student.classifier.weight.flatten(1).float()
        first = self.pretraining_steps
        alpha = options.alpha * (step_no - first) / max(1, self.total_steps - first)
        z = corrected_logits(
            vectors_l[points], label_l[points], weight, student.classifier.bias.float(), shift, covariance, alpha
        )
        return F.cross_entropy(z, label_l[points])

    def _towards_target(self) -> tuple[Tensor, Tensor]:
        """Shift `K D` and covariance per class; 0 for a class that either side has seen too little of."""
        source, target = self.parts["source"], self.parts["target"]
        known = (torch.minimum(source.count, target.count) >= self.spec.transmedseg.enough).float()
        covariance = target.covariance
        ridge = 1e-4 * (torch.eye(covariance.shape[-1], device=covariance.device) if covariance.ndim == 3 else 1)
        known_shape = known.view(-1, *[1] * (covariance.ndim - 1))
        return known[:, None] * (target.mean - source.mean), known_shape * (covariance + ridge)
