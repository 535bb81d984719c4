"""Supervised contrast with a weight for each pair that grows with training (SPCL, arXiv 2107.13741)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.core.losses import in_float32
from lib.core.spec_methods import SPCLSpec


def partition(index: int, count: int, parts: int) -> int:
    """Part of a volume of `count` slices that slice `index` lies in.

    Three parts as for ACDC; any other number by the rule of the other data sets, which may give fewer parts than asked.

    >>> [partition(i, 7, 3) for i in range(7)], [partition(i, 8, 4) for i in range(8)]
    ([0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2, 2])
    """
    if parts == 3:
        cut = count // 3
        return 0 if index <= cut - 1 else 1 if index <= 2 * cut else 2
    return index // (count // parts + 1)


def gamma_at(ends: tuple[float, float], progress: float, power: float = 0.5) -> float:
    """Age parameter `g0 + (g1 - g0) progress^power`, progress from 0 to 1.

    >>> gamma_at((5.0, 65.0), 0.25)
    35.0
    """
    return ends[0] + (ends[1] - ends[0]) * progress**power


def turned(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each of `B C H W` flipped along either axis and, where square, transposed, at random: one of the square's 8 symmetries."""
    views = []
    for image in images:
        image = image.flip([axis for axis in (1, 2) if rng.random() < 0.5])
        views.append(image.mT if image.shape[1] == image.shape[2] and rng.random() < 0.5 else image)
    return torch.stack(views)


def pair_losses(z: Tensor, same: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """l_ij of all pairs, (2N, 2N), and which are positive, bool.

    `z`: unit vectors (2N, P), view 1 of all images, then view 2; `same`: meta-label of each image (N). The diagonal of l has
    no meaning.
    """
    similarity = z @ z.T / temperature
    diagonal = torch.eye(len(z), dtype=torch.bool, device=z.device)
    losses = similarity.masked_fill(diagonal, -1e30).logsumexp(1, keepdim=True) - similarity
    labels = same.repeat(2)
    return losses, (labels[:, None] == labels) & ~diagonal


def pair_weights(losses: Tensor, positive: Tensor, gamma: float, mode: str) -> Tensor:
    """w_ij without gradient: 1 - l/gamma, at least 0 (`soft`), or whether l is at most gamma (`hard`); 0 for no positives."""
    losses = losses.detach()
    weight = (1 - losses / gamma).clamp(min=0) if mode == "soft" else (losses <= gamma).float()
    return weight * positive


@in_float32
def self_paced(z: Tensor, same: Tensor, gamma: float, spec: SPCLSpec) -> tuple[Tensor, Tensor]:
    """L_sp, and the mean weight of the positive pairs; an infinite gamma gives weights of 1, the plain contrast."""
    losses, positive = pair_losses(z, same, spec.temperature)
    weight = pair_weights(losses, positive, gamma, spec.mode)
    loss = ((weight * losses * positive).sum(1) / positive.sum(1).clamp(min=1)).mean()
    mean_weight = weight.sum() / positive.sum().clamp(min=1)
    if spec.correct_gradient and bool(mean_weight > 0):
        loss = loss / mean_weight
    return loss, mean_weight
