"""ERSR: ellipse-constrained refinement and symmetric regularisation (Zhou et al., IEEE JBHI 2025, arXiv 2508.19815).

    L = L_sup + w(t) (L_seg + L_aug + L_mir)

For one roughly elliptical and symmetric object. The teacher's maps with the smoothest borders are kept, an ellipse is fitted to
each and refines it to the label of L_seg; the image is completed from either half, mirrored at the ellipse's axis (L_aug, L_mir).
Geometry: `core/ellipse.py` and
`core/symmetry.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.core.batch import Batch
from lib.core.cases import Record
from lib.core.ellipse import ellipse_of, refined
from lib.core.losses import foreground_logit, foreground_loss
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import changed_intensity
from lib.core.ranking import LatestScores, best_of
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import IGNORE, SpecError, TaskSpec
from lib.core.symmetry import Mirror, roughness, symmetry_losses


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
        """One object in the plane. Raises `SpecError` with a sentence otherwise."""
        super().check(spec, records)
        if len(spec.labels) != 1:
            raise SpecError(
                f"expected one label for the method ersr, which fits one ellipse per image, but got {len(spec.labels)} "
                f"({', '.join(spec.labels)}); choose another method"
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
        logits = self.network(torch.cat([batch.image_l, images])).logits
        loss_sup = foreground_loss(foreground_logit(logits[:labelled]), batch.label_l)
        logs = {"loss_sup": loss_sup, "mask_ratio": len(kept) / len(padded)}
        if not kept:
            nothing = torch.zeros((), device=prob.device)
            return StepOutput(loss_sup, logits[:labelled], {**logs, **dict.fromkeys(_TERMS, nothing)})

        rng = self.rng(step_no)
        pairs = [self._completed(x, y, m, rng) for x, y, m in zip(images, label, mirrors, strict=True)]
        completed = torch.cat([torch.stack(side) for side in zip(*pairs, strict=True)])
        left, right = torch.sigmoid(foreground_logit(self.network(completed).logits)).split(len(kept))
        plain = torch.sigmoid(foreground_logit(logits[labelled:]))
        terms = symmetry_losses(plain, left, right, label, mirrors, (~padded[kept]).float())
        weight = options.weight * self.ramp(step_no)
        logs |= {**dict(zip(_TERMS, terms, strict=True)), "weight": weight}
        return StepOutput(loss_sup + weight * sum(terms), logits[:labelled], logs)

    def _kept(self, prob: Tensor, step_no: int) -> list[int]:
        options = self.spec.ersr
        edge, bend = roughness(prob)
        scores = (options.edge_share * edge + (1 - options.edge_share) * bend).tolist()
        share = options.keep + (1 - options.keep) * sigmoid_rampup(step_no, self.total_steps)
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

    def _completed(
        self, image: Tensor, label: Tensor, mirror: Mirror, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """X_L and X_R: the object's one half, perturbed, and its mirror image, perturbed, in the place of the other."""
        pair = []
        for half in mirror.halves(label):
            own, other = changed_intensity(image * half, rng), changed_intensity(mirror(image * half), rng)
            if self.spec.ersr.compose == "add":
                pair.append(image * (1 - label) + own + other)
            else:
                pair.append(torch.where(half > 0, own, torch.where(mirror(half) > 0, other, image)))
        return pair[0], pair[1]


_TERMS = ("loss_seg", "loss_aug", "loss_mir")
