"""BCP: bidirectional copy-paste (Bai et al., CVPR 2023, arXiv 2305.00673), in the form for ACDC, in 2D and 3D.

    x_out = M x_ua + (1 - M) x_la,   x_in = M x_lb + (1 - M) x_ub
    L = sum over both of SUP(labelled region) + 0.5 SUP(unlabelled region)

M is 1 outside one box of two thirds of each side, the same for the batch; a and b are the halves of the batch. The unlabelled
region learns the teacher's labels, of which the largest piece per class stays. Before that the student is pre-trained on
labelled images mixed in the same way, both regions with weight 1. The published code for LA (3D) uses the plain Dice per
sample; here one Dice serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.copypaste import cycled, halves, hole_mask, paste, region_losses
from lib.core.methods.base import Method, StepOutput
from lib.core.pseudo import hard_label, largest_components, passed


class BCP(Method):
    """Labelled and unlabelled images are pasted into each other."""

    name = "bcp"
    title = "BCP"

    @property
    def pretraining(self) -> float:
        """Share of the run on mixed labelled images."""
        return self.spec.bcp.pretraining

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One half of the labelled images into the other."""
        a, b = halves(len(batch.image_l))
        mask = self._mask(batch, step_no)
        logits = self.network(paste(batch.image_l[a], batch.image_l[b], mask)).logits
        loss = sum(region_losses(logits, batch.label_l[a], batch.label_l[b], mask))
        return StepOutput(loss, None, {"loss_sup": loss.detach(), "mask_ratio": 0.0})

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Both mixtures in one pass."""
        label_u = self.pseudo_label(batch)
        (la, lb), (ua, ub) = self._pairs(batch)
        mask = self._mask(batch, step_no)
        x_out = paste(batch.image_u_weak[ua], batch.image_l[la], mask)
        x_in = paste(batch.image_l[lb], batch.image_u_weak[ub], mask)
        logits_out, logits_in = self.network(torch.cat([x_out, x_in])).logits.split(len(la))

        out_u, out_l = region_losses(logits_out, label_u[ua], batch.label_l[la], mask)
        in_l, in_u = region_losses(logits_in, batch.label_l[lb], label_u[ub], mask)
        loss_sup, loss_unsup = out_l + in_l, out_u + in_u
        logs = {
            "loss_sup": loss_sup.detach(),
            "loss_unsup": loss_unsup.detach(),
            "mask_ratio": passed(label_u, batch.ignore_u),
        }
        return StepOutput(loss_sup + self.spec.bcp.unsup_weight * loss_unsup, None, logs)

    def pseudo_label(self, batch: Batch) -> Tensor:
        """The teacher's labels of the unlabelled images, cleaned: `B H W [D]` uint8, 255 where padded."""
        training = self.spec.bcp.teacher == "training"
        logits = self.network.label(batch.image_u_weak, training=training).logits
        return largest_components(hard_label(logits, batch.ignore_u), self.classes)

    def after_step(self, step_no: int, decay: float) -> None:
        """The teacher's average, from the first step on if so chosen."""
        self.network.update_teacher(step_no, decay, warm=self.spec.bcp.ema == "warm")

    def _mask(self, batch: Batch, step_no: int) -> Tensor:
        mask = hole_mask(tuple(batch.image_l.shape[2:]), self.spec.bcp.hole, self.rng(step_no))
        return mask.to(batch.image_l.device)

    def _pairs(self, batch: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Positions of the halves a and b of the labelled and of the unlabelled images, all equally long."""
        labelled, unlabelled = halves(len(batch.image_l)), halves(len(batch.image_u_weak))
        length = max(len(labelled[0]), len(unlabelled[0]))
        (la, lb), (ua, ub) = (tuple(cycled(h, length) for h in pair) for pair in (labelled, unlabelled))
        return (la, lb), (ua, ub)
