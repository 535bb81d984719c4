"""MEDL: mutual evidential deep learning (He et al., BIBM 2024, arXiv 2505.12418).

    L(n) = L_l + r(t) L_u + L_w,l + lambda_G r(t) L_I,u      for each of two networks, r a ramp

The networks' outputs are evidence e = softplus(z) of a Dirichlet distribution, alpha = e + 1, p = alpha / S. Their opinions are
fused (CAEF) into pseudo-labels with an uncertainty; pixels are weighted from certain to uncertain as training goes on (omega);
the unlabelled part has the Fisher-information loss without its KL term. The maths is in `core/evidence.py`.

Published with two architectures (V-Net and residual V-Net); here both networks have one, and in 2D the same pretrained encoder,
so that they start apart only in their decoders and heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.batch import Batch
from lib.core.evidence import curriculum, dirichlet, fisher_loss, fuse, opinion, reliability
from lib.core.losses import one_hot
from lib.core.methods.base import Method, StepOutput
from lib.core.spec import IGNORE


def pixel_losses(log_probs: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy of each pixel `B H W [D]`, of log-probabilities `B K H W [D]`; without meaning where not `valid`."""
    # the gradient of nll_loss refuses channels-last memory, in which convolutions may answer
    return F.nll_loss(log_probs.contiguous(), label.long().masked_fill(~valid, 0), reduction="none")


def weighted_losses(probs: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """0.5 cross-entropy + 0.5 Dice, both with a weight per pixel: probabilities `B K H W [D]`, the others `B H W [D]`."""
    valid = label != IGNORE
    weight = weight * valid
    pixel = pixel_losses(probs.clamp(min=1e-8).log(), label, valid)
    target, dims = one_hot(label, probs.shape[1]), [0, *range(2, probs.ndim)]
    w = weight.unsqueeze(1)
    overlap = 2 * (w * probs * target).sum(dims) + 1e-5
    dice = 1 - (overlap / ((w * probs**2).sum(dims) + (w * target**2).sum(dims) + 1e-5)).mean()
    return 0.5 * (pixel * weight).sum() / valid.sum().clamp(min=1) + 0.5 * dice * bool(valid.any())


class MEDL(Method):
    """Two networks whose evidence is fused into pseudo-labels with an uncertainty."""

    name = "medl"
    title = "MEDL"
    second = "twin"

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of both networks; `mask_ratio` is the mean weight of the pseudo-labels."""
        options, labelled = self.spec.medl, len(batch.image_l)
        images = torch.cat([batch.image_l, batch.image_u_weak])
        logits = [self.in_parts(network, images, labelled).logits for network in (self.network, self.parts["second"])]
        alphas = [dirichlet(z) for z in logits]
        with torch.no_grad():
            fused = fuse(*(opinion(a.detach()) for a in alphas))
            valid_u, valid_l = batch.ignore_u != IGNORE, batch.label_l != IGNORE
            pseudo = fused.belief[labelled:].max(dim=1).indices.to(torch.uint8).masked_fill(~valid_u, IGNORE)
            doubt = fused.uncertainty[:, 0]
            trust = reliability(fused)[labelled:]
            trust = (trust * (1 - doubt[labelled:]) if options.weight == "certain" else trust) * valid_u
            progress = step_no / max(1, self.total_steps)
            order_u = curriculum(doubt[labelled:], valid_u, progress, options.curriculum)

        ramp = self.ramp(step_no)
        terms = {
            k: torch.zeros((), device=images.device) for k in ("loss_sup", "loss_unsup", "loss_order", "loss_fisher")
        }
        for alpha in alphas:
            probs = alpha / alpha.sum(dim=1, keepdim=True)
            own = 0.5 * (opinion(alpha.detach()).uncertainty[:labelled, 0] + doubt[:labelled])
            order_l = curriculum(own, valid_l, progress, options.curriculum)
            log_probs = probs[:labelled].log()
            pixel = pixel_losses(log_probs, batch.label_l, valid_l)
            fisher = fisher_loss(alpha[labelled:], one_hot(pseudo, self.classes), options.fisher_penalty)
            terms["loss_sup"] = terms["loss_sup"] + self.labelled_loss(log_probs, batch.label_l)
            terms["loss_unsup"] = terms["loss_unsup"] + weighted_losses(probs[labelled:], pseudo, trust)
            terms["loss_order"] = terms["loss_order"] + (order_l * pixel).sum() / valid_l.sum().clamp(min=1)
            terms["loss_fisher"] = terms["loss_fisher"] + (order_u * fisher).sum() / valid_u.sum().clamp(min=1)

        loss = terms["loss_sup"] + terms["loss_order"]
        loss = loss + ramp * (terms["loss_unsup"] + options.fisher_weight * terms["loss_fisher"])
        terms["mask_ratio"] = trust.sum() / valid_u.sum().clamp(min=1)
        return StepOutput(loss, logits[0][:labelled], terms)
