"""SPCL: self-paced contrastive learning with meta-labels (Peng et al., NeurIPS 2021, arXiv 2107.13741).

    L_sp = 1/2N sum_i 1/|P(i)| sum_{j in P(i)} w_ij l_ij,   l_ij = -log e^{z_i z_j / t} / sum_{a != i} e^{z_i z_a / t}
    w_ij = max(0, 1 - l_ij / gamma) (soft) or [l_ij <= gamma] (hard),   gamma = g0 + (g1 - g0) sqrt(e / E)

z are pooled bottleneck features behind a projector per meta-label; P(i) are the images with the same one. Meta-labels here:
the third of the volume that a slice lies in, the patient, and the slice itself where its weight is not 0; the cardiac phase of
the paper is unknown to a datastore. First the encoder alone, on all images, of which one view is flipped and turned; then
cross-entropy on labels plus the contrast of the unlabelled images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.batch import Batch, Origin, Views
from lib.core.features import channels_of, is_valid
from lib.core.losses import cross_entropy, in_float32
from lib.core.methods.base import Method, StepOutput
from lib.core.selfpaced import gamma_at, partition, self_paced, turned
from lib.core.spec_methods import MetaLabel


def _scale(images: int) -> float:
    """Largest pair loss of a random network, as a share of that for the published 30 images; never 0."""
    return math.log(max(2, 2 * images - 1)) / math.log(59)


class Projector(nn.Module):
    """Global mean, two linear layers, unit length: `B F h w` -> `B 256`."""

    def __init__(self, features: int, width: int = 256) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)

    @in_float32
    def forward(self, feature: Tensor) -> Tensor:
        """Project the bottleneck."""
        pooled = feature.flatten(2).mean(-1)
        return F.normalize(self.second(F.leaky_relu(self.first(pooled), 0.01)), dim=-1)


class SPCL(Method):
    """Slices at the same height, and of the same patient, look alike: easy pairs first."""

    name = "spcl"
    title = "SPCL"
    kinds = ("slice",)
    kinds_reason = "compares slices by their position in the volume and their patient"
    views = Views(strong_l=True)

    def prepare(self) -> None:
        """A projector for each meta-label."""
        maps, _ = channels_of(self.network.student)
        self.parts["projectors"] = nn.ModuleDict(
            {label.name: Projector(maps[-1]) for label in self.spec.spcl.meta_labels}
        )

    @property
    def pretraining(self) -> float:
        """Share of the run on the encoder alone."""
        return self.spec.spcl.pretraining

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """The contrast of all images, labelled or not; the second view has a geometry of its own."""
        second = torch.cat([batch.image_l_strong, batch.image_u_strong])
        views = torch.cat([batch.image_l, batch.image_u_weak]), turned(second, self.rng(step_no))
        valid = torch.cat([is_valid(batch.label_l), is_valid(batch.ignore_u)])
        bottleneck = self.network.student.encode(torch.cat(views))[-1]
        origins = [*batch.origin_l, *batch.origin_u]
        contrast, weight = self._contrast(bottleneck, origins, valid, step_no / max(1, self.pretraining_steps))
        return StepOutput(contrast, None, {"loss_sup": 0.0, "loss_contrast": contrast, "mask_ratio": weight})

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Cross-entropy on labels, contrast on both views of the unlabelled images, in one pass."""
        labelled, first = len(batch.image_l), self.pretraining_steps
        output = self.in_parts(
            self.network, torch.cat([batch.image_l, batch.image_u_weak, batch.image_u_strong]), labelled
        )
        logits_l = output.logits[:labelled]
        progress = (step_no - first) / max(1, self.total_steps - first)
        contrast, weight = self._contrast(
            output.maps[-1][labelled:], batch.origin_u, is_valid(batch.ignore_u), progress
        )
        loss_sup = self.labelled_loss(logits_l, batch.label_l, cross_entropy)
        logs = {"loss_sup": loss_sup, "loss_contrast": contrast, "mask_ratio": weight}
        return StepOutput(loss_sup + self.spec.spcl.contrast_weight * contrast, logits_l, logs)

    def _contrast(
        self, bottleneck: Tensor, origins: Sequence[Origin], valid: Tensor, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum over meta-labels, and the mean pair weight of the first one; whole padded images are left out."""
        kept = torch.nonzero(valid.flatten(1).any(1)).flatten()
        origins = [origins[i] for i in kept.tolist()]
        views = bottleneck.unflatten(0, (2, -1))[:, kept].flatten(0, 1)
        losses, weights = [bottleneck.sum() * 0.0], []
        for label in self.spec.spcl.meta_labels if origins else ():
            z = self.parts["projectors"][label.name](views)
            same = self._same(label, origins, z.device)
            gamma = gamma_at(label.gamma, progress) * _scale(len(origins))
            loss, weight = self_paced(z, same, gamma, self.spec.spcl)
            losses.append(label.weight * loss)
            weights.append(weight)
        return torch.stack(losses).sum(), weights[0] if weights else torch.zeros(())

    def _same(self, label: MetaLabel, origins: Sequence[Origin], device: torch.device) -> Tensor:
        """Number of the meta-label of each image, (N)."""
        keys = {
            "partition": [partition(o.slice, o.slices, self.spec.spcl.partitions) for o in origins],
            "patient": [o.patient for o in origins],
            "self": list(range(len(origins))),
        }[label.name]
        order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return torch.tensor([order[key] for key in keys], device=device)
