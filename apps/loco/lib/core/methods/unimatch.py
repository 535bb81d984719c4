"""UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910), with the recipe that its code has for ACDC.

    L = 0.5 (L_x + 0.25 L_s1 + 0.25 L_s2 + 0.5 L_fp),   L_x = SUP,   the others Dice over the confident pixels

The weak view's label, where its confidence reaches tau, supervises two strong views, each with a CutMix box of its own, and a
pass whose encoder maps lost half of their channels. A box comes from image B-1-i of the batch; the published code draws a
second unlabelled batch for that, which would be a larger budget than the other methods have.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.core.batch import Batch, Views
from lib.core.cutmix import cutmix_masks
from lib.core.losses import confident_cross_entropy, dice_loss
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import drop_channels
from lib.core.pseudo import confident_label, hard_label, passed
from lib.core.spec import IGNORE


def mix(own: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    """`partner` inside the box, `own` outside: images `B C H W [D]` or maps `B H W [D]`; box bool `B H W [D]`."""
    return torch.where(box.unsqueeze(1) if own.ndim > box.ndim else box, partner, own)


class UniMatch(Method):
    """Two strong views and one feature perturbation learn from the weak view."""

    name = "unimatch"
    title = "UniMatch"
    several_processes = True
    views = Views(strong_u=2)

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step in two passes: labelled, weak and feature-perturbed images; then both strong views."""
        options, student = self.spec.unimatch, self.network.student
        count = len(batch.image_u_weak)
        generator = self.generator(step_no, batch.image_u_weak.device)

        maps = self.in_parts(student.encode, torch.cat([batch.image_l, batch.image_u_weak]), len(batch.image_l))
        dropped = [drop_channels(m[-count:], options.feature_dropout, generator) for m in maps]
        perturbed = self.in_parts(
            student.decode, [torch.cat(pair) for pair in zip(maps, dropped, strict=True)], len(batch.image_l)
        )
        logits_l, logits_w, logits_fp = perturbed.logits.split([len(batch.image_l), count, count])

        if options.labeller == "teacher":
            logits_w = self.network.label(batch.image_u_weak).logits
        label = hard_label(logits_w, batch.ignore_u)
        sure = confident_label(logits_w, batch.ignore_u, self.spec.threshold)

        rng = self.rng(step_no)
        boxes = [self._box(label, rng), self._box(label, rng)]
        strong = zip((batch.image_u_strong, batch.image_u_strong_2), boxes, strict=True)
        logits_s = self.network(torch.cat([mix(x, x.flip(0), box) for x, box in strong])).logits.split(count)

        loss_sup = self.labelled_loss(logits_l, batch.label_l)
        loss_1, loss_2 = (
            self._loss(z, *(mix(t, t.flip(0), box) for t in (label, sure)))
            for z, box in zip(logits_s, boxes, strict=True)
        )
        loss_fp = self._loss(logits_fp, label, sure)
        unsup = options.strong_weight * (loss_1 + loss_2) + options.feature_weight * loss_fp
        logs = {
            "loss_sup": loss_sup,
            "loss_strong": (loss_1 + loss_2) / 2,
            "loss_feature": loss_fp,
            "mask_ratio": passed(sure, batch.ignore_u),
        }
        return StepOutput(0.5 * (loss_sup + unsup), logits_l, logs)

    def _box(self, label: Tensor, rng: np.random.Generator) -> Tensor:
        masks = cutmix_masks(len(label), tuple(label.shape[1:]), self.spec.cutmix_probability, rng)
        return masks.to(label.device)

    def _loss(self, logits: Tensor, label: Tensor, sure: Tensor) -> Tensor:
        """Loss of one view against the labels, and against those of them that are confident, both `B H W [D]`."""
        if self.spec.unimatch.loss == "dice":
            return dice_loss(logits, sure)
        return confident_cross_entropy(logits, label, sure != IGNORE, label)
