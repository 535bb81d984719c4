"""MCCS, a reconstruction from an abstract (Wu et al., EMBC 2023): multiscale contrast with cross supervision.

    L = SUP_1 + SUP_2 + w(t) L_cs + gamma (L_pix + L_patch)

Known are perturbed images and perturbed features whose outputs agree by cross supervision, and contrast of pixels and of patches.
Ours: two networks, the second one with both perturbations; pixels are cells of the projection, patches those of the bottleneck.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.batch import Batch
from lib.core.crossed import crossed
from lib.core.features import channels_of, label_at, projection_channels
from lib.core.losses import one_hot
from lib.core.memory import ClassQueues, info_nce, similarities
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import drop_channels, noisy
from lib.core.pseudo import confident_label
from lib.core.regions import as_vectors, some_of
from lib.core.spec import IGNORE


class MCCS(Method):
    """Two perturbed networks label for each other; pixels and patches of one class are drawn together."""

    name = "mccs"
    title = "Multiscale contrast with cross-supervision"
    reconstruction = True
    second = "twin"

    def prepare(self) -> None:
        """A head for patches and a queue for each class."""
        options, student = self.spec.mccs, self.network.student
        conv = (nn.Conv2d, nn.Conv3d)[student.spatial_dims - 2]
        self.parts["patch"] = conv(channels_of(student)[0][-1], options.dimension, 1)
        self.parts["queues"] = ClassQueues(self.classes, options.queue, projection_channels(student))

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of both networks; `mask_ratio` is the share of pixels that the second one is sure of."""
        options = self.spec.mccs
        images = torch.cat([batch.image_l, batch.image_u_weak])
        generator = self.generator(step_no, images.device)
        other, labelled = self.parts["second"], len(batch.image_l)
        first = self.in_parts(self.network, images, labelled)
        changed = torch.cat([batch.image_l, batch.image_u_strong])
        maps = self.in_parts(other.encode, noisy(changed, options.noise, generator), labelled)
        dropped = [drop_channels(m, options.dropout, generator) for m in maps]
        second = self.in_parts(other.decode, dropped, labelled)

        weight = options.weight * self.ramp(step_no)
        both = crossed(first.logits, second.logits, batch, options.confidence, weight, self.labelled_loss)
        source = self._labels(first.logits, second.logits, batch)
        pixel = self._pixels(first.projection, second.projection, source, first.logits, generator)
        patch = self._patches(first.maps[-1], maps[-1], source)
        active = step_no >= options.start * self.total_steps
        loss = both.loss + options.contrast_weight * active * (pixel + patch)
        logs = {**both.logs, "loss_pixel": pixel, "loss_patch": patch}
        return StepOutput(loss, first.logits[: len(batch.image_l)], logs)

    def _labels(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor:
        """Truth of labelled images; of the others the label of the mean probability where that is high, else 255."""
        count = len(batch.image_l)
        mean = 0.5 * (
            torch.softmax(first[count:].detach().float(), 1) + torch.softmax(second[count:].detach().float(), 1)
        )
        return torch.cat(
            [batch.label_l, confident_label(mean.log(), batch.ignore_u, self.spec.mccs.contrast_confidence)]
        )

    def _pixels(
        self, first: Tensor, second: Tensor, source: Tensor, logits: Tensor, generator: torch.Generator
    ) -> Tensor:
        """`L_pix`: per class some cells, half of them hard, of both views; negatives of a queue besides."""
        options = self.spec.mccs
        size = first.shape[2:]
        label = label_at(source, size).flatten()
        probs = torch.softmax(F.interpolate(logits.detach().float(), size=size, mode="area"), dim=1)
        confidence, predicted = (v.flatten() for v in probs.max(dim=1))
        hard = (predicted != label) | (confidence < options.hard)
        found = []
        for c in range(self.classes):
            difficult = some_of((label == c) & hard, options.anchors // 2, generator)
            found.append(
                torch.cat([difficult, some_of((label == c) & ~hard, options.anchors - len(difficult), generator)])
            )
        points = torch.cat(found)
        if len(points) == 0:
            return 0 * first.sum()
        vectors = torch.cat([F.normalize(as_vectors(v)[points], dim=1) for v in (first, second)])
        classes = label[points].repeat(2)
        against, kinds = self.parts["queues"].beside(vectors, classes)
        same = classes[:, None] == kinds[None, :]
        positive = same.clone()
        positive[:, len(vectors) :] = False  # the queue holds negatives
        positive[:, : len(vectors)].fill_diagonal_(False)
        loss = info_nce(similarities(vectors, against) / options.temperature, positive, ~same)
        self.parts["queues"].push(vectors.detach(), classes)
        return loss

    def _patches(self, first: Tensor, second: Tensor, source: Tensor) -> Tensor:
        """`L_patch`: bottleneck cells; positive are the same cell of the other view and, of pure cells, those of their class.

        A cell of mixed classes has a positive alone: its negatives are all other cells that are not padding.
        """
        options, size = self.spec.mccs, first.shape[2:]
        pool = F.adaptive_avg_pool2d if first.ndim == 4 else F.adaptive_avg_pool3d
        purity, label = pool(one_hot(source, self.classes), size).max(dim=1)
        label = torch.where(purity >= options.purity, label, IGNORE).flatten()
        embedded = [F.normalize(as_vectors(self.parts["patch"](v)), dim=1) for v in (first, second)]
        vectors, classes = torch.cat(embedded), label.repeat(2)
        pure = classes != IGNORE
        same = pure & (classes[:, None] == classes[None, :])
        twin = torch.eye(len(label), dtype=torch.bool, device=label.device).repeat(2, 2)
        valid = (pool((source != IGNORE).float().unsqueeze(1), size).flatten() > 0).repeat(2)
        positive = (same | twin) & ~torch.eye(len(classes), dtype=torch.bool, device=label.device) & valid[:, None]
        negative = torch.where(pure[:, None], pure & ~same, valid & ~twin)
        return info_nce(similarities(vectors, vectors) / options.temperature, positive, negative)
