"""M&N: a 2D network with natural-image weights and a 3D one teach each other (Yeung et al., MLMI 2025, arXiv 2509.15167).

    L = Dice + KL against one-hot labels of labelled volumes and soft outputs of the other network for unlabelled ones
    n_U = floor((e - E_t) / (E - E_t) B),   n_L = B - n_U

First both train on labels alone; then the unlabelled share of the batch grows. The 3D network is served. Changed: the 2D
network is the app's, fully trained, instead of SegFormer with LoRA; both train in every step, so that the one that is served
gets as many steps as other methods give it (`turns` alternates as published); fractions of n_U are rounded at random, since
batches are small; n_U and n_L end at what was loaded; unlabelled volumes are never validation ones, unlike in the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.batch import Batch
from lib.core.losses import one_hot
from lib.core.methods.base import Method, StepOutput
from lib.core.spec import IGNORE


def slices_of(volume: Tensor) -> Tensor:
    """`B C H W D` to `B*D C H W`, all slices of the first volume first."""
    return volume.movedim(-1, 1).flatten(0, 1)


def volume_of(slices: Tensor, depth: int) -> Tensor:
    """Inverse of `slices_of`."""
    return slices.unflatten(0, (-1, depth)).movedim(1, -1)


def unlabelled_count(step: float, first: int, total: int, batch: int) -> float:
    """n_U before rounding: from 0 at step `first` to `batch` at `total`.

    >>> unlabelled_count(1200, 500, 4000, 5)
    1.0
    """
    return max(0.0, step - first) / (total - first) * batch


def soft_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Dice plus KL of `B K H W D` logits against probabilities; `valid` bool `B H W D`; 0 with a graph where it is empty.

    Dice: 2 sum(p y) / (sum p^2 + sum y^2) over the batch, mean over all classes. KL: mean over all elements.
    """
    mask = valid.unsqueeze(1)
    log_probs = torch.log_softmax(logits.float(), dim=1)
    probs, target = log_probs.exp() * mask, target * mask
    dims = (0, *range(2, logits.ndim))
    denominator = (probs**2).sum(dims) + (target**2).sum(dims)
    dice = torch.where(denominator > 0, 2 * (probs * target).sum(dims) / denominator.clamp(min=1e-6), 1.0)
    divergence = (F.kl_div(log_probs, target, reduction="none") * mask).sum()
    return 1 - dice.mean() + divergence / (mask.sum() * logits.shape[1]).clamp(min=1)


class MN(Method):
    """Slices and volumes: two views of the data by two networks of different kind."""

    name = "mn"
    title = "M&N"
    kinds = ("volume",)
    kinds_reason = "has a 3D network learn from a 2D one and the other way round"
    second = "slices"

    @property
    def pretraining(self) -> float:
        """Share of the run on labels alone."""
        return self.spec.mn.pretraining

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Both networks on the labelled volumes."""
        target, valid = one_hot(batch.label_l, self.classes), batch.label_l != IGNORE
        losses = [soft_loss(logits, target, valid) for logits in self._answers(batch.image_l, (True, True))]
        logs = {"loss_sup": losses[0], "loss_sup_2": losses[1], "mask_ratio": 0.0}
        return StepOutput(sum(losses), None, logs)

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Each network learns from labels and from the other; `mask_ratio` is the share of unlabelled volumes used."""
        count_l, count_u, trained = *self._counts(batch, step_no), self._turn(step_no)
        image_l, image_u = batch.image_l[:count_l], batch.image_u_weak[:count_u]
        targets = self._targets(image_u)
        label = batch.label_l[:count_l]
        valid = torch.cat([label != IGNORE, batch.ignore_u[:count_u] != IGNORE])
        losses = []
        for logits, target in zip(self._answers(torch.cat([image_l, image_u]), trained), targets, strict=True):
            losses.append(soft_loss(logits, torch.cat([one_hot(label, self.classes), target]), valid))
        logs = {"loss_sup": losses[0], "loss_2": losses[1], "mask_ratio": count_u / len(batch.image_u_weak)}
        return StepOutput(sum(loss for loss, on in zip(losses, trained, strict=True) if on), None, logs)

    def _answers(self, image: Tensor, trained: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
        """Logits `B K H W D` of the 3D and of the 2D network; one that is not trained evaluates, and nothing of it moves."""
        calls = (self.parts["second"], slices_of(image), trained[1]), (self.network.student, image, trained[0])
        logits = []
        for network, x, on in calls:
            network.train(on)
            with torch.set_grad_enabled(on):
                logits.append(network(x).logits)
            network.train()
        return logits[1], volume_of(logits[0], image.shape[-1])

    def _targets(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the 3D and the 2D network shall say: the other's probabilities in evaluation mode, without gradient."""
        if not len(image):
            empty = image.new_zeros((0, self.classes, *image.shape[2:]))
            return empty, empty
        volumes, slices = self._answers(image, (False, False))
        return torch.softmax(slices, 1), torch.softmax(volumes, 1)

    def _counts(self, batch: Batch, step_no: int) -> tuple[int, int]:
        """n_L and n_U, neither more than was loaded of its kind."""
        size = len(batch.image_l) + len(batch.image_u_weak)
        wanted = unlabelled_count(step_no, self.pretraining_steps, self.total_steps, size)
        count = min(int(wanted + self.rng(step_no).random()), size - 1)
        return min(len(batch.image_l), size - count), min(len(batch.image_u_weak), count)

    def _turn(self, step_no: int) -> tuple[bool, bool]:
        """Whether the 3D and the 2D network train in this step; the 2D one begins."""
        if not self.spec.mn.turns:
            return True, True
        turn = (step_no - self.pretraining_steps) // self.spec.mn.turns % 2
        return turn == 1, turn == 0
