"""M3HL: mutual mask mix with high- and low-level feature consistency (Liu et al., MICCAI 2025, arXiv 2508.03752).

    L = L_seg(x_out) + L_seg(x_in) + 0.5 (L_low + L_high)
    L_low = mean |F_low^S - F_low^T|,   L_high = mean 1 - cos(F_high^S, F_high^T)

The mixtures and L_seg are those of BCP, with a random half of a grid of blocks in place of one box and a mask for each image.
The student's features of both mixtures follow the teacher's of both plain unlabelled images, four pairs: HIGH is the
encoder's bottleneck, LOW the decoder's last feature (at stride 4 in the 2D networks here). The released code for LA returns
an all-ones mask by mistake and so mixes nothing; here 3D is masked as the text says, with the mixtures and the Dice of the form
for ACDC.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.copypaste import block_masks
from lib.core.features import is_valid, mean_cosine_distance, mean_difference
from lib.core.methods.base import StepOutput
from lib.core.methods.bcp import BCP
from lib.core.pseudo import passed

Depths = tuple[Tensor, Tensor, Tensor]
"""HIGH `B F h w [d]`, LOW `B F h w [d]` and the valid pixels `B H W [D]` of some images."""


def feature_losses(students: list[Depths], teachers: list[Depths]) -> tuple[Tensor, Tensor]:
    """L_low and L_high: means over all pairs of a student's and a teacher's images."""
    low, high = [], []
    for (high_s, low_s, valid_s), (high_t, low_t, valid_t) in product(students, teachers):
        valid = valid_s & valid_t
        low.append(mean_difference(low_s, low_t, valid))
        high.append(mean_cosine_distance(high_s, high_t, valid))
    return torch.stack(low).mean(), torch.stack(high).mean()


class M3HL(BCP):
    """Blocks change owner, and features agree at two depths."""

    name = "m3hl"
    title = "M3HL"
    several_processes = False

    @property
    def pretraining(self) -> float:
        """Share of the run on mixed labelled images; the released code has none."""
        return self.spec.m3hl.pretraining

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Both mixtures in one pass; the teacher's one pass gives labels and features."""
        options, taught = self.spec.m3hl, self._teacher_output(batch)
        label_u = self._cleaned(taught, batch)
        mixed = self._mix(batch, label_u, step_no)
        output = self.network(mixed.image)
        loss_sup, loss_unsup = mixed.losses(output.logits, self.labelled_loss)

        out_u, out_l, in_l, in_u = (is_valid(label) for label in mixed.labels)
        valid = (torch.where(mixed.mask, out_u, out_l), torch.where(mixed.mask, in_l, in_u))
        students = list(zip(output.maps[-1].chunk(2), output.feature.chunk(2), valid, strict=True))
        valid_u = is_valid(batch.ignore_u)
        teachers = [(taught.maps[-1][u], taught.feature[u], valid_u[u]) for u in mixed.unlabelled]
        loss_low, loss_high = feature_losses(students, teachers)

        loss = loss_sup + options.unsup_weight * loss_unsup + options.feature_weight * (loss_low + loss_high)
        logs = {
            "loss_sup": loss_sup,
            "loss_unsup": loss_unsup,
            "loss_low": loss_low,
            "loss_high": loss_high,
            "mask_ratio": passed(label_u, batch.ignore_u),
        }
        return StepOutput(loss, None, logs)

    def _mask(self, batch: Batch, step_no: int, count: int = 1) -> Tensor:
        options, rng = self.spec.m3hl, self.rng(step_no)
        ratio = float(rng.uniform(*options.ratio)) if options.ratio[0] < options.ratio[1] else options.ratio[0]
        return block_masks(count, tuple(batch.image_l.shape[2:]), options.blocks, ratio, rng).to(batch.image_l.device)
