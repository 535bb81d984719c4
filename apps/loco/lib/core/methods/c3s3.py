"""C3S3: complementary competition and contrastive selection (He et al., ICME 2025, arXiv 2506.07368).

    L = sum_n [L_sup(n) + L_cos(n)] + w(t) L_cp(loser) + lambda L_iuc

Two networks see two views. The one with the smaller supervised score wins and its sharpened probabilities teach the other; the
contrast L_iuc (ODCL) works where their foregrounds intersect and unite. Published for two classes: with more, the contrast is
the mean over the foreground classes.

Published with two architectures (V-Net and residual V-Net); here both networks have one, and in 2D the same pretrained encoder,
so that they start apart only in their decoders and heads. The views differ in noise alone.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.batch import Batch
from lib.core.features import label_at
from lib.core.losses import cross_entropy, foreground_dice, foreground_supervised_loss, masked_mse
from lib.core.memory import outcome_contrast
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import noisy, spread
from lib.core.regions import as_vectors, near_border, some_of
from lib.core.spec import IGNORE

_REACH = 3
"""Pixels within which a point is near the border of a foreground."""


def sharpened(logits: Tensor, temperature: float) -> Tensor:
    """`p_k^(1/T) / sum_k p_k^(1/T)` of `B K H W [D]`, without gradient: a softmax of logits / T."""
    return torch.softmax(logits.detach().float() / temperature, dim=1)


def cosine_distance(first: Tensor, second: Tensor, valid: Tensor, over: str) -> Tensor:
    """Mean of 1 - cos of two `B K H W [D]` logits; over the last axis of the logits (published) or over the classes.

    Over the classes the softmax is compared, at the pixels of the bool map `valid`, `B H W [D]`; 0 where there are none.
    """
    if over == "last_axis":
        return (1 - F.cosine_similarity(first.float(), second.float(), dim=-1)).mean()
    distance = 1 - F.cosine_similarity(torch.softmax(first.float(), 1), torch.softmax(second.float(), 1), dim=1)
    return (distance * valid).sum() / valid.sum().clamp(min=1)


class C3S3(Method):
    """Two networks compete: the better one of each step teaches the other."""

    name = "c3s3"
    title = "C3S3"
    second = "twin"

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of both networks on two views; `mask_ratio` is 1: every pixel takes part."""
        options, labelled = self.spec.c3s3, len(batch.image_l)
        images = torch.cat([batch.image_l, batch.image_u_weak])
        generator = self.generator(step_no, images.device)
        sigma = options.view_noise * spread(images)
        views = [noisy(images, sigma, generator) if options.view_noise else images for _ in range(2)]
        networks = (self.network, self.parts["second"])
        outputs = [[self.in_parts(network, view, labelled) for view in views] for network in networks]
        logits = [[o.logits for o in pair] for pair in outputs]

        ce = [sum(cross_entropy(z[:labelled], batch.label_l) for z in pair) for pair in logits]
        dice = [sum(foreground_dice(z[:labelled], batch.label_l) for z in pair) for pair in logits]
        score = [float((options.alpha * c + (1 - options.alpha) * d).detach()) for c, d in zip(ce, dice, strict=True)]
        winner = 0 if score[0] < score[1] else 1
        loss_cp = sum(
            masked_mse(
                torch.softmax(z[labelled:].float(), 1), sharpened(q[labelled:], options.sharpening), batch.ignore_u
            )
            for z, q in zip(logits[1 - winner], logits[winner], strict=True)
        )
        valid = torch.cat([batch.label_l, batch.ignore_u]) != IGNORE
        loss_cos = sum(cosine_distance(*pair, valid, options.cosine) for pair in logits)
        loss_sup = sum(
            self.labelled_loss(z[:labelled], batch.label_l, foreground_supervised_loss) for pair in logits for z in pair
        )
        loss_iuc = self._contrast(outputs, valid, generator)
        weight = self.spec.consistency_weight * self.ramp(step_no)
        logs = {
            "loss_sup": loss_sup,
            "loss_cos": loss_cos,
            "loss_cp": loss_cp,
            "loss_iuc": loss_iuc,
            "winner": float(winner),
            "weight": weight,
            "mask_ratio": 1.0,
        }
        loss = loss_sup + loss_cos + weight * loss_cp + options.contrast_weight * loss_iuc
        return StepOutput(loss, logits[0][0][:labelled], logs)

    def _contrast(self, outputs: list, valid: Tensor, generator: torch.Generator) -> Tensor:
        """`L_iuc`: ODCL of the four pairs of views at some points of the projection's grid, mean over foreground classes."""
        size = outputs[0][0].projection.shape[2:]
        reach = max(1, round(_REACH * size[-1] / valid.shape[-1]))
        predicted = [[label_at(o.logits.detach().max(dim=1).indices, size) for o in pair] for pair in outputs]
        projected = [[as_vectors(o.projection) for o in pair] for pair in outputs]
        points = self._points(predicted, label_at(valid, size), reach, generator)
        total = 0 * projected[0][0].sum()
        if len(points) == 0:
            return total
        for c, v, w in product(range(1, self.classes), range(2), range(2)):
            found = [(p == c).flatten()[points] for p in (predicted[0][v], predicted[1][w])]
            vectors = projected[0][v][points], projected[1][w][points]
            total = total + sum(outcome_contrast(*vectors, *found, self.spec.c3s3.temperature))
        return total / (self.classes - 1)

    def _points(self, predicted: list, valid: Tensor, reach: int, generator: torch.Generator) -> Tensor:
        """Positions of at most `points` valid grid points: half within `reach` of a foreground's border, the others anywhere."""
        union = (torch.stack([p for pair in predicted for p in pair]) > 0).any(dim=0)
        limit = self.spec.c3s3.points
        if limit >= int(valid.sum()):
            return valid.flatten().nonzero()[:, 0]
        near = some_of(near_border(union, reach, valid) & valid, limit // 2, generator)
        return torch.cat([near, some_of(valid, limit - len(near), generator)])
