"""LoCo: low-contrast-enhanced contrastive learning (arXiv 2412.02314, methods specification 1).

    L = (Lx + 0.5 Lu + w Lc) / (1.5 + w),   w = 0.1

Lx on labels, published as cross-entropy, by default the loss that all methods share (`MethodSpec.labelled_loss`). Lu cross-
entropy of the strong view against the teacher's labels of the weak view where the confidence reaches the class threshold of
CDF, with labelled content pasted in by CutMix. Lc the prototype-anchored contrast of hard pixels (ICE, BCE) of the labelled
and the weak unlabelled images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.confidence import DynamicThreshold
from lib.core.contrast import contrast_loss
from lib.core.cutmix import cutmix_masks
from lib.core.losses import confident_cross_entropy, cross_entropy
from lib.core.methods.base import Method, StepOutput
from lib.core.schedules import run_momentum
from lib.core.spec import IGNORE


@dataclass(frozen=True)
class Mixed:
    """Strong view after CutMix: `image` B C H W [D]; `label`, `confidence` and `ignore` B H W [D]."""

    image: Tensor
    label: Tensor
    confidence: Tensor
    ignore: Tensor


class LoCo(Method):
    """Mean teacher with adaptive pseudo-labels and low-contrast enhancement."""

    name = "loco"
    title = "LoCo"
    several_processes = True

    def prepare(self) -> None:
        """The thresholds."""
        options = self.spec.confidence
        momentum = run_momentum(options.momentum, options.memory, self.total_steps)
        self.filter = DynamicThreshold(self.classes, replace(options, momentum=momentum))

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of the published training loop, quirks 6, 8, 10 and 13 of the specification mended."""
        logits_t = self.network.label(batch.image_u_weak).logits.float()
        confidence, label = torch.softmax(logits_t, dim=1).max(dim=1)
        mixed = self._paste_labelled(batch, label, confidence, step_no)

        views = [batch.image_l, batch.image_u_weak, mixed.image]
        sizes = [len(v) for v in views]
        output = self.in_parts(self.network, torch.cat(views), sizes[0])
        logits_l, _, logits_s = output.logits.split(sizes)
        projection_l, projection_u, _ = output.projection.split(sizes)

        thresholds = self.filter.update(logits_t, batch.ignore_u).to(label.device)
        confident = mixed.confidence >= thresholds[mixed.label.clamp(max=self.classes - 1).long()]

        loss_sup = self.labelled_loss(logits_l, batch.label_l, cross_entropy)
        loss_unsup = confident_cross_entropy(logits_s, mixed.label, confident, mixed.ignore)
        weight = self.spec.contrast_weight
        loss_contrast = contrast_loss(
            projection_l, batch.label_l, projection_u, logits_t, batch.ignore_u, thresholds, self.spec.contrast
        )
        loss = (loss_sup + self.spec.unsup_weight * loss_unsup + weight * loss_contrast) / (
            1 + self.spec.unsup_weight + weight
        )
        valid = batch.ignore_u != IGNORE
        passed = (confidence >= thresholds[label]) & valid
        logs = {
            "loss_sup": loss_sup,
            "loss_unsup": loss_unsup,
            "loss_contrast": loss_contrast,
            "mask_ratio": passed.sum() / valid.sum().clamp(min=1),
        }
        return StepOutput(loss, logits_l, logs)

    def thresholds(self) -> Tensor:
        """Current class thresholds of CDF (K)."""
        return self.filter.thresholds

    def state_dict(self) -> dict[str, Any]:
        """The filter's thresholds."""
        return {"filter": self.filter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.filter.load_state_dict(state["filter"])

    def _paste_labelled(self, batch: Batch, label: Tensor, confidence: Tensor, step_no: int) -> Mixed:
        """CutMix: the i-th labelled image, un-jittered, into the i-th strong view; its ground truth counts as certain."""
        count = len(label)
        source = torch.arange(count, device=label.device) % len(batch.image_l)
        box = cutmix_masks(count, tuple(label.shape[1:]), self.spec.cutmix_probability, self.rng(step_no))
        box = box.to(label.device)
        truth = batch.label_l[source]
        return Mixed(
            image=torch.where(box.unsqueeze(1), batch.image_l[source], batch.image_u_strong),
            label=torch.where(box, truth.to(label.dtype), label),
            confidence=torch.where(box, torch.ones_like(confidence), confidence),
            ignore=torch.where(box, _ignored(truth), batch.ignore_u),
        )


def _ignored(truth: Tensor) -> Tensor:
    """Quirk 10 mended: inside the box a pixel is ignored exactly when the pasted label is."""
    return torch.where(truth == IGNORE, truth, torch.zeros_like(truth))
