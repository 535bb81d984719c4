"""IDEAL-style training, a reconstruction (ICASSP 2023, arXiv 2210.15075): dense local contrast, then two decoders.

    first:  L_a = L_dense [+ L_global at the start]      then:  L_b = SUP_1 + SUP_2 + r(t) [CE(p_1, y_2) + CE(p_2, y_1)]

Known are the query and key encoders with a 1x1 head, positives by dense correspondence, and two different decoders on an encoder
of equal weights that learn each other's thresholded labels. Everything else is ours: DenseCL's form of the loss, one shared
encoder, decoders that differ in their weights and in the channels dropped before the second.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.batch import Batch
from lib.core.crossed import crossed
from lib.core.features import channels_of, mean_vectors, valid_at
from lib.core.memory import Queue, info_nce, similarities
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import drop_channels
from lib.core.regions import far_apart, some_of
from lib.core.spec import IGNORE
from lib.core.teacher import follow

_FAR = 3.0
"""Cells of one image that are farther apart are negatives of each other."""


def matches(query: Tensor, key: Tensor) -> Tensor:
    """For each location of `F n` query features the key location of the highest cosine, `n` int64."""
    return similarities(F.normalize(query, dim=0).T, F.normalize(key, dim=0).T).argmax(dim=1)


class IDEAL(Method):
    """Self-supervised dense contrast of the encoder, then cross supervision of two decoders."""

    name = "ideal"
    title = "IDEAL"
    reconstruction = True
    second = "twin"

    def prepare(self) -> None:
        """Heads of the contrast and a queue of images."""
        options, student = self.spec.ideal, self.network.student
        head = (nn.Conv2d, nn.Conv3d)[student.spatial_dims - 2](channels_of(student)[0][-1], options.dimension, 1)
        self.parts["head"] = head
        self.parts["key_head"] = copy.deepcopy(head).requires_grad_(False)
        self.parts["queue"] = Queue(options.queue, options.dimension)

    @property
    def pretraining(self) -> float:
        """Share of the run on the dense contrast."""
        return self.spec.ideal.pretraining

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """`L_a`: the weak view asks, the strong view answers through the averaged encoder."""
        options = self.spec.ideal
        feature = self.network.student.encode(batch.image_u_weak)[-1]
        with torch.no_grad():
            feature_k = self.network.teacher.encode(batch.image_u_strong)[-1]
            key = F.normalize(self.parts["key_head"](feature_k).flatten(2).float(), dim=1)
        query = F.normalize(self.parts["head"](feature).flatten(2).float(), dim=1)
        valid = valid_at(batch.ignore_u != IGNORE, feature.shape[2:])
        dense = self._dense(query, key, feature.detach().float(), feature_k.float(), valid[:, 0] > 0, step_no)
        means = [mean_vectors(v, valid.flatten(1) > 0) for v in (query, key)]
        candidates = torch.cat([means[1], self.parts["queue"].vectors])
        own = torch.eye(len(means[0]), len(candidates), dtype=torch.bool, device=query.device)
        whole = info_nce(similarities(means[0], candidates) / options.temperature, own, ~own)
        self.parts["queue"].push(means[1])
        share = 0.5 if step_no < options.warm_share * self.pretraining_steps else 0.0
        logs = {"loss_sup": 0.0, "loss_dense": dense, "loss_global": whole, "mask_ratio": 1.0}
        return StepOutput((1 - share) * dense + share * whole, None, logs)

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """`L_b`: one encoder, two decoders; the second one reads maps with channels dropped."""
        options = self.spec.ideal
        generator = self.generator(step_no, batch.image_l.device)
        student, labelled = self.network.student, len(batch.image_l)
        maps = self.in_parts(student.encode, torch.cat([batch.image_l, batch.image_u_weak]), labelled)
        dropped = [*maps[:-1], drop_channels(maps[-1], options.dropout, generator)]
        decoders = ((student.decode, maps), (self.parts["second"].decode, dropped))
        logits = [self.in_parts(decode, each, labelled).logits for decode, each in decoders]
        weight = options.weight * self.ramp(step_no)
        both = crossed(*logits, batch, options.confidence, weight, self.labelled_loss)
        return StepOutput(both.loss, logits[0][:labelled], both.logs)

    def after_step(self, step_no: int, decay: float) -> None:
        """The averages of the network and, during the contrast, of the head."""
        super().after_step(step_no, decay)
        follow(self.parts["key_head"], self.parts["head"], decay)

    def _dense(
        self, query: Tensor, key: Tensor, feature: Tensor, feature_k: Tensor, valid: Tensor, step_no: int
    ) -> Tensor:
        """`L_dense`: negatives are other images' cells, far ones of the own image, and the means of earlier images.

        Args:
            query: unit vectors `B C n` of the weak view.
            key: those of the strong view.
            feature: map `B F h w [d]` of the weak view, by which cells are matched.
            feature_k: that of the strong view.
            valid: bool `B h w [d]`, cells that are not padding.
            step_no: of the run.
        """
        options = self.spec.ideal
        generator = self.generator(step_no, query.device)
        far = far_apart(tuple(valid.shape[1:]), _FAR, query.device)
        valid = valid.flatten(1)
        image, cell = valid.nonzero().T
        stored = self.parts["queue"].vectors
        candidates = torch.cat([key.mT[valid], stored])
        terms = []
        for b in valid.any(dim=1).nonzero()[:, 0].tolist():
            chosen, inside = some_of(valid[b], options.locations, generator), valid[b].nonzero()[:, 0]
            match = inside[matches(feature[b].flatten(1)[:, chosen], feature_k[b].flatten(1)[:, inside])]
            positive = (image == b) & (cell == match[:, None])
            negative = (image != b) | far[match][:, cell]
            similarity = similarities(query[b].T[chosen], candidates) / options.temperature
            beside = (0, len(stored))
            terms.append(info_nce(similarity, F.pad(positive, beside), F.pad(negative, beside, value=True)))
        return sum(terms) / len(terms) if terms else 0 * query.sum()
