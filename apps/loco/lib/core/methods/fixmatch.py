"""FixMatch for segmentation (arXiv 2001.07685, methods specification 8.4).

    L = 0.5 (L_l + L_u),   L_u = sum_i [c_i >= tau] CE_i(f(x_s), y^) / #valid pixels,   tau = 0.95

The teacher labels the weak view; the strong view has the same geometry plus CutMix with another unlabelled image, mixed alike
in image, pseudo-label, confidence and ignore map.
"""

from __future__ import annotations

import torch

from lib.core.batch import Batch
from lib.core.cutmix import cutmix_masks
from lib.core.losses import confident_cross_entropy, cross_entropy
from lib.core.methods.base import Method, StepOutput
from lib.core.spec import IGNORE


class FixMatch(Method):
    """Pseudo-labels of the weak view, above a fixed confidence, supervise the strong view."""

    name = "fixmatch"
    title = "FixMatch"
    several_processes = True

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step; image i of the unlabelled batch takes its box from image B-1-i."""
        probs = torch.softmax(self.network.label(batch.image_u_weak).logits.float(), dim=1)
        confidence, label = probs.max(dim=1)

        box = cutmix_masks(len(label), tuple(label.shape[1:]), self.spec.cutmix_probability, self.rng(step_no))
        box = box.to(label.device)
        image = torch.where(box.unsqueeze(1), batch.image_u_strong.flip(0), batch.image_u_strong)
        label = torch.where(box, label.flip(0), label)
        confidence = torch.where(box, confidence.flip(0), confidence)
        ignore = torch.where(box, batch.ignore_u.flip(0), batch.ignore_u)

        output = self.in_parts(self.network, torch.cat([batch.image_l, image]), len(batch.image_l))
        logits_l, logits_u = output.logits.split([len(batch.image_l), len(image)])

        confident = confidence >= self.spec.threshold
        loss_sup = self.labelled_loss(logits_l, batch.label_l, cross_entropy)
        loss_unsup = confident_cross_entropy(logits_u, label, confident, ignore)
        valid = ignore != IGNORE
        logs = {
            "loss_sup": loss_sup,
            "loss_unsup": loss_unsup,
            "mask_ratio": (confident & valid).sum() / valid.sum().clamp(min=1),
        }
        return StepOutput(0.5 * (loss_sup + loss_unsup), logits_l, logs)
