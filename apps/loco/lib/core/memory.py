"""Feature vectors of earlier steps, and contrastive losses over vectors. Vectors are `N C` float32, labels `N` int64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.losses import in_float32


class Queue(nn.Module):
    """The latest `size` vectors of `features` numbers, part of the saved state; `push` stores without gradient.

    Of size 0 it stays empty.
    """

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
        self.stored.copy_(torch.cat([self.stored, vectors.to(self.stored)])[len(vectors) :])
        self.count.copy_((self.count + len(vectors)).clamp(max=size))


class ClassQueues(nn.ModuleList):
    """One queue per class."""

    def __init__(self, classes: int, size: int, features: int) -> None:
        super().__init__(Queue(size, features) for _ in range(classes))

    def beside(self, vectors: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `N C` and their classes `N`, and after them all that are stored with theirs."""
        stored = [queue.vectors for queue in self]
        kinds = [torch.full((len(v),), c, device=classes.device) for c, v in enumerate(stored)]
        return torch.cat([vectors, *stored]), torch.cat([classes, *kinds])

    def push(self, vectors: Tensor, classes: Tensor) -> None:
        """Add vectors `N C` to the queues of their classes `N`."""
        for c, queue in enumerate(self):
            queue.push(vectors[classes == c])


@in_float32
def similarities(vectors: Tensor, others: Tensor) -> Tensor:
    """Inner products of vectors `N C` and `M C`, `N M` float32."""
    return vectors @ others.T


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
    negatives nearer than alpha, `w = e^(sharpness (alpha - d))` without gradient, or farther negatives would be drawn nearer.

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
    distance = (2 - 2 * similarities(vectors, vectors)).clamp(min=1e-6).sqrt()
    same = labels[:, None] == labels[None, :]
    other = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    far = same & other & (distance > alpha - margin)
    near = ~same & (distance < alpha)
    attract = (F.relu(distance - (alpha - margin)) * far).sum(dim=1) / far.sum(dim=1).clamp(min=1)
    weight = torch.softmax((-sharpness * distance.detach()).masked_fill(~near, -1e30), dim=1) * near
    repel = (weight * F.relu(alpha - distance)).sum(dim=1)
    usable = anchors & (same & other).any(dim=1) & (~same).any(dim=1)
    return ((attract + repel) * usable).sum() / usable.sum().clamp(min=1)


def outcome_contrast(
    a: Tensor, b: Tensor, foreground_a: Tensor, foreground_b: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """ODCL of one pair of views: `l_int` and `l_uni`, scalars.

    With s_i the cosine at point i, I_i and U_i whether both or either of the two predict foreground there,
    `l_int = mean_i -log(e^(I_i s_i/tau) / (sum_j e^((1-I_j) s_j/tau) + e^(I_i s_i/tau)))`, `l_uni` the same with 1-U_i and U_j.

    Args:
        a: projections `N C` of network A; normalised here.
        b: those of network B at the same points.
        foreground_a: bool `N`, predictions of A.
        foreground_b: bool `N`, predictions of B.
        tau: temperature.
    """
    cosine = F.cosine_similarity(a.float(), b.float(), dim=1) / tau
    both, either = (foreground_a & foreground_b).float(), (foreground_a | foreground_b).float()

    def term(positive: Tensor, negative: Tensor) -> Tensor:
        own = positive * cosine
        return (torch.logaddexp(torch.logsumexp(negative * cosine, dim=0), own) - own).mean()

    return term(both, 1 - both), term(1 - either, either)
