"""CPS: cross pseudo supervision (Chen et al., CVPR 2021, arXiv 2106.01226), in the form of SSL4MIS.

    L = SUP_1 + SUP_2 + w(t) [CE(f_1(x), argmax f_2(x)) + CE(f_2(x), argmax f_1(x))]

x the unlabelled images (in the paper the labelled ones too, with a constant weight). No confidence threshold. Published
inference is network 1; the app serves its average, as for every method.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.losses import cross_entropy
from lib.core.methods.base import Method, StepOutput
from lib.core.pseudo import hard_label
from lib.core.spec import IGNORE


def cross_supervision(logits_1: Tensor, logits_2: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each network against the other's hard labels; `B K H W [D]`, ignore map `B H W [D]`."""
    first = cross_entropy(logits_1, hard_label(logits_2, ignore))
    return first, cross_entropy(logits_2, hard_label(logits_1, ignore))


class CPS(Method):
    """Two networks label the unlabelled images for each other; a pretrained encoder is the same in both at the start."""

    name = "cps"
    title = "CPS"
    several_processes = True
    second = "twin"

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of both networks on the same images; `mask_ratio` is 1: every pixel takes part."""
        images = torch.cat([batch.image_l, batch.image_u_weak])
        labelled = len(batch.image_l)
        logits = [self.in_parts(network, images, labelled).logits for network in (self.network, self.parts["second"])]
        sup = [self.labelled_loss(z[:labelled], batch.label_l) for z in logits]
        ignore = torch.cat([torch.where(batch.label_l == IGNORE, batch.label_l, 0), batch.ignore_u])
        first = 0 if self.spec.cps.images == "all" else labelled
        cross = cross_supervision(logits[0][first:], logits[1][first:], ignore[first:])

        weight = self.spec.consistency_weight * self.ramp(step_no)
        logs = {
            "loss_sup": sup[0],
            "loss_sup_2": sup[1],
            "loss_cross": cross[0],
            "loss_cross_2": cross[1],
            "weight": weight,
            "mask_ratio": 1.0,
        }
        return StepOutput(sum(sup) + weight * sum(cross), logits[0][:labelled], logs)
