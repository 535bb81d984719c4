"""BCP: bidirectional copy-paste (Bai et al., CVPR 2023, arXiv 2305.00673), in the form for ACDC, in 2D and 3D.

    x_out = M x_ua + (1 - M) x_la,   x_in = M x_lb + (1 - M) x_ub
    L = sum over both of SUP(labelled region) + 0.5 SUP(unlabelled region)

M is 1 outside one box of two thirds of each side, the same for the batch; a and b are the halves of the batch. The unlabelled
region learns the teacher's labels, of which the largest piece per class stays. Before that the student is pre-trained on
labelled images mixed in the same way, both regions with weight 1. The published code for LA (3D) uses the plain Dice per
sample; here one Dice serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.copypaste import cycled, halves, hole_mask, paste, region_loss, region_losses
from lib.core.losses import PixelLoss
from lib.core.methods.base import Method, StepOutput
from lib.core.networks import NetworkOutput
from lib.core.pseudo import hard_label, largest_components, passed


@dataclass(frozen=True)
class Mixtures:
    """Both mixtures `2n C H W [D]`, the mask, the labels inside and outside it of x_out and of x_in.

    `unlabelled` holds the positions of the unlabelled images in each.
    """

    image: Tensor
    mask: Tensor
    labels: tuple[Tensor, Tensor, Tensor, Tensor]
    unlabelled: tuple[Tensor, Tensor]

    def losses(self, logits: Tensor, sup: PixelLoss) -> tuple[Tensor, Tensor]:
        """`sup` of the labelled and of the unlabelled regions, summed over both mixtures, for logits `2n K H W [D]`."""
        out, into = logits.chunk(2)
        out_u, out_l = region_losses(out, self.labels[0], self.labels[1], self.mask, sup)
        in_l, in_u = region_losses(into, self.labels[2], self.labels[3], self.mask, sup)
        return out_l + in_l, out_u + in_u


class BCP(Method):
    """Labelled and unlabelled images are pasted into each other."""

    name = "bcp"
    title = "BCP"
    several_processes = True

    def labelled_loss(self, logits: Tensor, label: Tensor, own: PixelLoss = region_loss) -> Tensor:
        """As of all methods; the published one is BCP's own."""
        return super().labelled_loss(logits, label, own)

    @property
    def pretraining(self) -> float:
        """Share of the run on mixed labelled images."""
        return self.spec.bcp.pretraining

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One half of the labelled images into the other."""
        a, b = halves(len(batch.image_l))
        mask = self._mask(batch, step_no, len(a))
        logits = self.network(paste(batch.image_l[a], batch.image_l[b], mask)).logits
        loss = sum(region_losses(logits, batch.label_l[a], batch.label_l[b], mask, self.labelled_loss))
        return StepOutput(loss, None, {"loss_sup": loss, "mask_ratio": 0.0})

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Both mixtures in one pass, with the teacher's labels."""
        return self._mixed_step(batch, self._cleaned(self._teacher_output(batch), batch), step_no)

    def _mixed_step(self, batch: Batch, label_u: Tensor, step_no: int) -> StepOutput:
        """The step with cleaned labels `B H W [D]` uint8 of the unlabelled images, 255 where padded."""
        mixed = self._mix(batch, label_u, step_no)
        logits = self.network(mixed.image).logits
        loss_sup, loss_unsup = mixed.losses(logits, self.labelled_loss)
        logs = {
            "loss_sup": loss_sup,
            "loss_unsup": loss_unsup,
            "mask_ratio": passed(label_u, batch.ignore_u),
        }
        return StepOutput(loss_sup + self.spec.bcp.unsup_weight * loss_unsup, None, logs)

    def _teacher_output(self, batch: Batch) -> NetworkOutput:
        return self.network.label(batch.image_u_weak, training=self.spec.bcp.teacher == "training")

    def _cleaned(self, output: NetworkOutput, batch: Batch) -> Tensor:
        logits = output.logits
        return largest_components(hard_label(logits, batch.ignore_u), self.classes)

    def after_step(self, step_no: int, decay: float) -> None:
        """The teacher's average, from the first step on if so chosen."""
        self.network.update_teacher(step_no, decay, warm=self.spec.bcp.ema == "warm")

    def _mix(self, batch: Batch, label_u: Tensor, step_no: int) -> Mixtures:
        """x_out and x_in, one after the other, with what holds in each region."""
        (la, lb), (ua, ub) = self._pairs(batch)
        mask = self._mask(batch, step_no, len(la))
        x_out = paste(batch.image_u_weak[ua], batch.image_l[la], mask)
        x_in = paste(batch.image_l[lb], batch.image_u_weak[ub], mask)
        labels = (label_u[ua], batch.label_l[la], batch.label_l[lb], label_u[ub])
        return Mixtures(torch.cat([x_out, x_in]), mask, labels, (ua, ub))

    def _mask(self, batch: Batch, step_no: int, count: int = 1) -> Tensor:
        """M, bool `[count] H W [D]`; here one for all."""
        mask = hole_mask(tuple(batch.image_l.shape[2:]), self.spec.bcp.hole, self.rng(step_no))
        return mask.to(batch.image_l.device)

    def _pairs(self, batch: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Positions of the halves a and b of the labelled and of the unlabelled images, all equally long."""
        labelled, unlabelled = halves(len(batch.image_l)), halves(len(batch.image_u_weak))
        length = max(len(labelled[0]), len(unlabelled[0]))
        (la, lb), (ua, ub) = (tuple(cycled(h, length) for h in pair) for pair in (labelled, unlabelled))
        return (la, lb), (ua, ub)
