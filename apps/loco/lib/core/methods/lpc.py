"""LPC: local contrast with pseudo-labels (Chaitanya et al., MedIA 2023, arXiv 2112.09645).

    L = Dice(labelled) + 0.1 mean over pairs of L_pair
    L_pair = 1/(2 P |F|) sum_{c, p} [l(p, x, x) + l(p, x, x') + l(p', x', x') + l(p', x', x)]

l is the cross-entropy of an anchor pixel among the class means of both images of a pair. After supervised training, three
rounds in which a frozen copy labels the unlabelled images; these labels enter the contrast alone. Pairs: each image with its
strong view, labelled with unlabelled ones, unlabelled ones with each other. The projection is the network's, and labels are
brought to its resolution. The largest piece per class replaces the dense CRF. The app's supervised loss pre-trains, and the
Dice sees weak views alone.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lib.core.batch import Batch, Views
from lib.core.features import label_at
from lib.core.local_contrast import joined, pair_sums
from lib.core.losses import image_dice
from lib.core.methods.base import Method, StepOutput
from lib.core.pseudo import hard_label, largest_components, passed


class LPC(Method):
    """Pixels of a class are pulled to its means in other images; unlabelled images take part through pseudo-labels."""

    name = "lpc"
    title = "LPC"
    views = Views(strong_l=True)

    def prepare(self) -> None:
        """The labeller."""
        self.parts["labeller"] = copy.deepcopy(self.network.teacher)

    @property
    def pretraining(self) -> float:
        """Share of the run on labelled images alone."""
        return self.spec.lpc.pretraining

    def pretraining_done(self) -> None:
        """The teacher goes on; it becomes the first labeller in the step that follows."""

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """One pass over both views of all images."""
        options = self.spec.lpc
        label_u = self._pseudo_label(batch, step_no)
        images = [batch.image_l, batch.image_l_strong, batch.image_u_weak, batch.image_u_strong]
        sizes = [len(x) for x in images]
        output = self.in_parts(self.network, torch.cat(images), sizes[0] + sizes[1])
        logits_l = output.logits[: sizes[0]]
        z_l, z_l2, z_u, z_u2 = output.projection.split(sizes)
        y_l, y_u = (label_at(y, z_l.shape[2:]) for y in (batch.label_l, label_u))

        cross = torch.arange(max(sizes[0], sizes[2]))
        from_l, from_u = cross % sizes[0], cross % sizes[2]
        pairs = [(z_l, z_l2, y_l, y_l), (z_u, z_u2, y_u, y_u), (z_l[from_l], z_u[from_u], y_l[from_l], y_u[from_u])]
        pairs += [(z_u, z_u.roll(1, 0), y_u, y_u.roll(1, 0))] if sizes[2] > 1 else []
        z1, z2, y1, y2 = (torch.cat(part) for part in zip(*pairs, strict=True))
        generator = self.generator(step_no, z1.device)
        loss_contrast = joined(
            pair_sums(z1, z2, y1, y2, self.classes, options, generator), self._divisor(), options.division
        )
        loss_sup = image_dice(logits_l, batch.label_l)
        logs = {
            "loss_sup": loss_sup,
            "loss_contrast": loss_contrast,
            "mask_ratio": passed(label_u, batch.ignore_u),
        }
        return StepOutput(loss_sup + options.contrast_weight * loss_contrast, logits_l, logs)

    def _divisor(self) -> int:
        """2 P |F|; with one class of object the background is the second."""
        return 2 * self.spec.lpc.anchors * max(2, self.classes - 1)

    def _pseudo_label(self, batch: Batch, step_no: int) -> Tensor:
        """Labels of the frozen copy, which is the teacher at the start of each round: `B H W [D]`, 255 where padded."""
        first, options = self.pretraining_steps, self.spec.lpc
        length = max(1, (self.total_steps - first) // options.rounds)
        done, started = divmod(step_no - first, length)
        if started == 0 and done < options.rounds:  # what the division leaves over belongs to the last round
            self.parts["labeller"].load_state_dict(self.network.teacher.state_dict())
        with torch.no_grad():
            logits = self.parts["labeller"].eval()(batch.image_u_weak).logits
        label = hard_label(logits, batch.ignore_u)
        return largest_components(label, self.classes) if options.clean == "components" else label
