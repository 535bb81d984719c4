"""CAD-style training, a reconstruction from an abstract (Xiao et al., arXiv 2502.00536), after ABD (arXiv 2405.00378).

    L = SUP(S1(x_l)) + SUP(S2(x_l strong)) + w(t) (L_cps + L_mix + L_mt)

Known are the replacement of the largest low-confidence region by a confident patch (LLCR), whose size and threshold grow during
training (DTE), and targets from mean teacher and cross pseudo supervision. Ours: the procedure in `core/displace.py`, its
schedules, and one averaged teacher, that of the first network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.core.batch import Batch, Views
from lib.core.displace import donor_box, escalated, mean_classes, unsure_box
from lib.core.losses import dice_loss, masked_mse
from lib.core.methods.base import Method, StepOutput
from lib.core.pseudo import hard_label
from lib.core.spec import IGNORE


class CAD(Method):
    """Unsure regions of unlabelled images are replaced by sure patches; two networks and a teacher label the mixtures."""

    name = "cad"
    title = "CAD"
    reconstruction = True
    kinds = ("frame", "slice")
    kinds_reason = "replaces regions of pictures"
    views = Views(strong_l=True)
    second = "twin"

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of both networks; `mask_ratio` is the share of unlabelled images in which a region was replaced."""
        labelled, count = len(batch.image_l), len(batch.image_u_weak)
        with torch.no_grad():
            everything = torch.cat([batch.image_l, batch.image_u_weak])
            probs = torch.softmax(self.network.label(everything).logits.float(), dim=1)
        truth = batch.label_l
        other = torch.arange(count).roll(1)
        label_u = hard_label(probs[labelled:], batch.ignore_u)
        cycle = torch.arange(count) % labelled
        donors = (
            (batch.image_u_weak[other], probs[labelled:][other], label_u[other]),
            (batch.image_l[cycle], probs[:labelled][cycle], truth[cycle]),
        )
        mixed = [self._replace(batch.image_u_weak, probs[labelled:], batch.ignore_u, d, step_no) for d in donors]

        views_l = (batch.image_l, batch.image_l_strong)
        networks = (self.network, self.parts["second"])
        parts = [labelled, count, count, count]
        outputs = [
            self.in_parts(n, torch.cat([x, batch.image_u_weak, batch.image_u_strong, m[0]]), labelled).logits.split(
                parts
            )
            for n, x, m in zip(networks, views_l, mixed, strict=True)
        ]
        sup = [self.labelled_loss(o[0], truth) for o in outputs]
        hard = [hard_label(o[1], batch.ignore_u) for o in outputs]
        loss_cps = dice_loss(outputs[0][1], hard[1]) + dice_loss(outputs[1][1], hard[0])
        loss_mix = sum(dice_loss(o[3], m[1]) for o, m in zip(outputs, mixed, strict=True))
        loss_mt = sum(masked_mse(torch.softmax(o[2].float(), 1), probs[labelled:], batch.ignore_u) for o in outputs)
        seen = float(bool((batch.ignore_u != IGNORE).any()))
        weight = self.spec.consistency_weight * self.ramp(step_no) * seen
        logs = {
            "loss_sup": sup[0],
            "loss_sup_2": sup[1],
            "loss_cps": loss_cps,
            "loss_mix": loss_mix,
            "loss_mt": loss_mt,
            "threshold": self._threshold(step_no),
            "weight": weight,
            "mask_ratio": sum(m[2] for m in mixed) / (2 * count),
        }
        loss = sum(sup) + weight * (loss_cps + loss_mix + loss_mt)
        return StepOutput(loss, outputs[0][0], logs)

    def _threshold(self, step_no: int) -> float:
        return escalated(*self.spec.cad.confidence, step_no / max(1, self.total_steps))

    def _replace(
        self, images: Tensor, probs: Tensor, ignore: Tensor, donor: tuple[Tensor, Tensor, Tensor], step_no: int
    ) -> tuple[Tensor, Tensor, int]:
        """Mixed images, their labels (255 where the teacher is unsure, outside the boxes), and how many were changed."""
        threshold = self._threshold(step_no)
        cap = escalated(*self.spec.cad.cap, step_no / max(1, self.total_steps))
        confidence = probs.amax(dim=1)
        label = hard_label(probs, ignore).masked_fill(confidence < threshold, IGNORE)
        mixed, changed = images.clone(), 0
        for i, own in enumerate(confidence):
            box = unsure_box(own.masked_fill(ignore[i] == IGNORE, 1.0), threshold, cap)
            if box is None:
                continue
            size = box[0].stop - box[0].start, box[1].stop - box[1].start
            sure = donor[1][i] * (donor[2][i] != IGNORE)  # what has no label is no donor
            source = donor_box(sure, mean_classes(probs[i], box), size)
            mixed[i][:, box[0], box[1]] = donor[0][i][:, source[0], source[1]]
            label[i][box] = donor[2][i][source].to(label.dtype)
            changed += 1
        return mixed, label, changed
