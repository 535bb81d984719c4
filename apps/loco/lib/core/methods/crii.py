"""CRII-style training, a reconstruction from an abstract (Du et al., IEEE JBHI 2023): two networks and ranked patches.

    L = L_s + lambda(t) L_cr + 0.1 L_intra + 0.1 L_inter

Known are a coarse and a refined network that agree on unlabelled images, a ranked loss of pixels within patches on the border
(intra) and one of whole patches, against low contrast (inter). Ours: the refined network sees the image plus a learned map of the
coarse probabilities; it teaches the coarse one, which serves; the losses live on the refined network's projection.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.batch import Batch
from lib.core.features import label_at, projection_channels
from lib.core.losses import masked_mse, one_hot
from lib.core.memory import ClassQueues, ranked_list_loss
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import noisy
from lib.core.regions import around, near_border, some_of
from lib.core.spec import IGNORE


class CRII(Method):
    """A refined network teaches a coarse one; features are ranked at borders and between patches."""

    name = "crii"
    title = "CRII-Net"
    reconstruction = True
    kinds = ("frame", "slice")
    kinds_reason = "ranks patches of pictures"
    second = "twin"

    def prepare(self) -> None:
        """What the refined network sees besides the image, and a bank of patches."""
        self.parts["adapter"] = nn.Conv2d(self.classes, 1, 1)
        with torch.no_grad():  # at first the refined network sees the image as it is
            self.parts["adapter"].weight.mul_(0.1)
            self.parts["adapter"].bias.zero_()
        self.parts["bank"] = ClassQueues(2, self.spec.crii.bank, projection_channels(self.network.student))

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One step of both networks; `mask_ratio` is the share of pixels of which the refined network is confident."""
        options, labelled = self.spec.crii, len(batch.image_l)
        generator = self.generator(step_no, batch.image_l.device)
        changed = torch.cat([batch.image_l, noisy(batch.image_u_strong, options.noise, generator)])
        coarse = self.in_parts(self.network, changed, labelled).logits
        with torch.no_grad():
            first = torch.softmax(self.network.label(batch.image_u_weak).logits.float(), dim=1)
        guide = torch.cat([torch.softmax(coarse[:labelled].float(), dim=1), first])
        images = torch.cat([batch.image_l, batch.image_u_weak])
        refined = self.in_parts(self.parts["second"], images + self.parts["adapter"](guide), labelled)

        loss_sup = self.labelled_loss(coarse[:labelled], batch.label_l)
        loss_fine = self.labelled_loss(refined.logits[:labelled], batch.label_l)
        target = torch.softmax(refined.logits[labelled:].detach().float(), dim=1)
        unsure = (target.amax(dim=1) < options.confidence) | (batch.ignore_u == IGNORE)
        ignore = batch.ignore_u.masked_fill(unsure, IGNORE)
        loss_cr = masked_mse(torch.softmax(coarse[labelled:].float(), dim=1), target, ignore)

        vectors = F.normalize(refined.projection[:labelled].float(), dim=1)
        label = label_at(batch.label_l, vectors.shape[2:])
        loss_intra = self._intra(vectors, label, step_no)
        loss_inter = self._inter(vectors, label, generator)
        weight = options.weight * self.ramp(step_no)
        logs = {
            "loss_sup": loss_sup,
            "loss_fine": loss_fine,
            "loss_cr": loss_cr,
            "loss_intra": loss_intra,
            "loss_inter": loss_inter,
            "weight": weight,
            "mask_ratio": (~unsure).sum() / (batch.ignore_u != IGNORE).sum().clamp(min=1),
        }
        loss = loss_sup + loss_fine + weight * loss_cr + options.rank_weight * (loss_intra + loss_inter)
        return StepOutput(loss, coarse[:labelled], logs)

    def _rank(self, vectors: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
        options = self.spec.crii
        return ranked_list_loss(
            vectors, labels, anchors, alpha=options.alpha, margin=options.margin, sharpness=options.sharpness
        )

    def _intra(self, vectors: Tensor, label: Tensor, step_no: int) -> Tensor:
        """Mean over patches of two classes or more around border cells: cells are ranked, those of the border as anchors."""
        options, rng = self.spec.crii, self.rng(step_no)
        known = label != IGNORE
        band = near_border(label > 0, options.band, known) & known
        terms = []
        for image, classes, near in zip(vectors, label, band, strict=True):
            centres = near.nonzero()
            for centre in centres[torch.from_numpy(rng.permutation(len(centres))[: options.patches])].tolist():
                rows, columns = (around(c, options.cells, n) for c, n in zip(centre, classes.shape, strict=True))
                own, edge = classes[rows, columns].flatten(), near[rows, columns].flatten()
                usable = own != IGNORE
                if len(own[usable].unique()) < 2:
                    continue
                terms.append(self._rank(image[:, rows, columns].flatten(1).T[usable], own[usable], edge[usable]))
        return sum(terms) / len(terms) if terms else 0 * vectors.sum()

    def _inter(self, vectors: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
        """Mean vectors of object and background patches of all images are ranked, earlier ones in the bank among them."""
        options = self.spec.crii
        step = min(options.cells, *label.shape[1:])
        target = one_hot(label, self.classes)
        inside, known = target[:, 1:].sum(dim=1, keepdim=True), target.sum(dim=1, keepdim=True)
        share, full = F.avg_pool2d(inside, step), F.avg_pool2d(known, step)
        object_mean = F.avg_pool2d(vectors * inside, step) / share.clamp(min=1e-6)
        mean = F.avg_pool2d(vectors, step)
        lesion = share > options.object_share
        background = (share < options.background_share) & (full > 0.99)
        close = F.max_pool2d(lesion.float(), 5, 1, 2) > 0
        chosen = []
        for mask, values in ((background & close, mean), (lesion, object_mean)):
            found = some_of(mask[:, 0], options.per_type, generator)
            chosen.append(F.normalize(values.movedim(1, -1).flatten(0, -2)[found], dim=1))
        new = torch.cat(chosen)
        own = torch.cat([torch.full((len(v),), kind, device=label.device) for kind, v in enumerate(chosen)])
        stacked, kinds = self.parts["bank"].beside(new, own)
        anchors = torch.arange(len(stacked), device=label.device) < len(new)
        loss = self._rank(stacked, kinds, anchors) if len(stacked) else 0 * vectors.sum()
        self.parts["bank"].push(new.detach(), own)
        return loss
