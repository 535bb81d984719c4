"""ERSR: ellipse-constrained refinement and symmetric regularisation (Zhou et al., IEEE JBHI 2025, arXiv 2508.19815).

    L = L_sup + w(t) (L_seg + L_aug + L_mir)

For one roughly elliptical and symmetric object. The teacher's maps with the smoothest borders are kept, an ellipse is fitted to
each and refines it to the label of L_seg; the image is completed from either half, mirrored at the ellipse's axis (L_aug, L_mir).
Pre-training has the app's labelled loss on two classes, L_sup is one of the sigmoid. Geometry: `core/ellipse.py` and
`core/symmetry.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.cases import Record
from lib.core.ellipse import ellipse_of, likenesses, refined
from lib.core.losses import foreground_logit, foreground_loss
from lib.core.methods.base import Method, StepOutput
from lib.core.ranking import LatestScores, best_of
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import IGNORE, SpecError, TaskSpec
from lib.core.symmetry import Mirror, completed_images, roughness, symmetry_losses

_OVAL = 0.75
"""Median likeness of the labels to their ellipses that is asked for: polyps have 0.90, left ventricles 0.94, the crescents of
right ventricles 0.60 and the rings of myocardium 0.36."""
_LOOKED_AT = 20
"""Labels that `check` looks at, at most."""


class ERSR(Method):
    """Elliptical, symmetric pseudo-labels of one object."""

    name = "ersr"
    title = "ERSR"
    kinds = ("frame", "slice")
    kinds_reason = "fits ellipses in the plane"

    def prepare(self) -> None:
        """Scores of the latest images."""
        self.parts["seen"] = LatestScores(self.spec.ersr.pool)

    @classmethod
    def check(cls, spec: TaskSpec, records: Sequence[Record] = ()) -> None:
        """One object in the plane, and an oval one if labels are there to look at. Raises `SpecError` otherwise."""
        super().check(spec, records)
        if len(spec.labels) != 1:
            raise SpecError(
                f"expected one label for the method ersr, which fits one ellipse per image, but got {len(spec.labels)} "
                f"({', '.join(spec.labels)}); choose another method"
            )
        labels = [r.label for r in records if r.label is not None]
        found = likenesses(labels[:: -(-len(labels) // _LOOKED_AT) or 1], spec.data)
        if found and np.median(found) < _OVAL:
            raise SpecError(
                f"expected an oval object for the method ersr, which fits an ellipse to it with an overlap of {_OVAL:.0%} "
                f"or more in half of the labels, but got {np.median(found):.0%} in {len(found)}; choose another method"
            )

    @property
    def pretraining(self) -> float:
        """Share of the run on labelled images alone."""
        return self.spec.ersr.pretraining

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step in two passes: labelled and kept unlabelled images; then both completed images."""
        options, labelled = self.spec.ersr, len(batch.image_l)
        padded = (batch.ignore_u == IGNORE).unsqueeze(1)
        prob = torch.softmax(self.network.label(batch.image_u_weak).logits.float(), dim=1)[:, 1:].masked_fill(padded, 0)
        positions = self._kept(prob, step_no)
        label, mirrors, kept = self._labels(prob, positions)
        images = batch.image_u_weak[kept]
        logits = self.in_parts(self.network, torch.cat([batch.image_l, images]), labelled).logits
        loss_sup = foreground_loss(foreground_logit(logits[:labelled]), batch.label_l)
        logs = {"loss_sup": loss_sup, "mask_ratio": len(kept) / len(padded)}
        if not kept:
            nothing = torch.zeros((), device=prob.device)
            return StepOutput(loss_sup, logits[:labelled], {**logs, **dict.fromkeys(_TERMS, nothing)})

        rng = self.rng(step_no)
        pairs = [
            completed_images(x, y, m, rng, options.compose) for x, y, m in zip(images, label, mirrors, strict=True)
        ]
        completed = torch.cat([torch.stack(side) for side in zip(*pairs, strict=True)])
        left, right = torch.sigmoid(foreground_logit(self.network(completed).logits)).split(len(kept))
        plain = torch.sigmoid(foreground_logit(logits[labelled:]))
        terms = symmetry_losses(plain, left, right, label, mirrors, (~padded[kept]).float())
        weight = options.weight * self.ramp(step_no)
        logs |= {**dict(zip(_TERMS, terms, strict=True)), "weight": weight}
        return StepOutput(loss_sup + weight * sum(terms), logits[:labelled], logs)

    def _kept(self, prob: Tensor, step_no: int) -> list[int]:
        options = self.spec.ersr
        edge, bend = roughness(prob, options.border)
        empty = (prob <= 0.5).flatten(1).all(dim=1)  # neither smooth nor rough: never before a map with an object
        scores = (options.edge_share * edge + (1 - options.edge_share) * bend).masked_fill(empty, torch.inf).tolist()
        first = self.pretraining_steps
        share = options.keep + (1 - options.keep) * sigmoid_rampup(step_no - first, self.total_steps - first)
        return best_of(scores, self.parts["seen"].add(scores), share, options.floor)

    def _labels(self, prob: Tensor, positions: list[int]) -> tuple[Tensor, list[Mirror], list[int]]:
        """Refined labels `N 1 H W`, a mirror each, and the positions of the images that have an ellipse."""
        labels, mirrors, kept = [], [], []
        height, width = prob.shape[2:]
        for i in positions:
            own = prob[i, 0].cpu().numpy()
            ellipse = ellipse_of(own, self.spec.ersr.threshold)
            if ellipse is None:
                continue
            better = refined(own, ellipse.level(height, width), self.spec.ersr.threshold) > self.spec.ersr.threshold
            labels.append(torch.from_numpy(better).float().unsqueeze(0))
            mirrors.append(Mirror(height, width, ellipse.centre, ellipse.angle, prob.device))
            kept.append(i)
        stacked = torch.stack(labels) if labels else torch.zeros(0, 1, height, width)
        return stacked.to(prob.device), mirrors, kept


_TERMS = ("loss_seg", "loss_aug", "loss_mir")
