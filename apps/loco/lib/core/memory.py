"""Feature vectors of earlier steps, and contrastive losses over vectors. Vectors are `N C` float32, labels `N` int64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The latest `size` vectors of `features` numbers, part of the saved state; `push` stores without gradient."""

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.register_buffer("stored", torch.zeros(size, features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def vectors(self) -> Tensor:
        """What is stored, `n C`, oldest first."""
        return self.stored[len(self.stored) - int(self.count) :]

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Add vectors `N C`; the oldest go."""
        size = len(self.stored)
        self.stored.copy_(torch.cat([self.stored, vectors.to(self.stored)])[-size:])
        self.count.copy_((self.count + len(vectors)).clamp(max=size))


def info_nce(similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """`mean_i 1/|P_i| sum_{j in P_i} -log(e^(s_ij) / (e^(s_ij) + sum_{k in N_i} e^(s_ik)))`, scalar.

    Args:
        similarity: `N M` float32, divided by the temperature.
        positive: bool `N M`.
        negative: bool `N M`.

    Returns:
        Mean over the rows that have a positive; 0 with a graph when none has.
    """
    against = similarity.masked_fill(~negative, -torch.inf)
    # a row without negatives costs nothing; its -inf would give NaN gradients
    total = torch.logsumexp(torch.cat([against, torch.full_like(against[:, :1], -1e4)], dim=1), dim=1, keepdim=True)
    pairs = F.softplus(total - similarity) * positive
    count = positive.sum(dim=1)
    return (pairs.sum(dim=1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def ranked_list_loss(
    vectors: Tensor, labels: Tensor, anchors: Tensor, *, alpha: float, margin: float, sharpness: float
) -> Tensor:
    """Ranked list loss of unit vectors, Euclidean distances d; mean over the anchors that have others of both kinds.

    `l_pos = mean [d - (alpha - margin)]_+` over positives farther than alpha - margin; `l_neg = sum w [alpha - d]_+ / sum w` over
    negatives nearer than alpha, `w = e^(sharpness (alpha - d))`.

    Args:
        vectors: `N C` of length 1.
        labels: `N`.
        anchors: bool `N`.
        alpha: distance beyond which a negative costs nothing.
        margin: between the furthest free positive and alpha.
        sharpness: weight of near negatives.

    Returns:
        Scalar; 0 with a graph when there is no such anchor.
    """
    gram = 2 - 2 * vectors @ vectors.T
    distance = gram.clamp(min=1e-8).sqrt()
    same = labels[:, None] == labels[None, :]
    other = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    far = same & other & (distance > alpha - margin)
    near = ~same & (distance < alpha)
    attract = (F.relu(distance - (alpha - margin)) * far).sum(dim=1) / far.sum(dim=1).clamp(min=1)
    weight = torch.exp(sharpness * (alpha - distance)) * near
    repel = (weight * F.relu(alpha - distance)).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-8)
    usable = anchors & (same & other).any(dim=1) & (~same).any(dim=1)
    return ((attract + repel) * usable).sum() / usable.sum().clamp(min=1)
