"""Evidential segmentation: Dirichlet opinions, their fusion, and losses over them (MEDL, arXiv 2505.12418).

Shapes: concentrations alpha and beliefs `B K H W [D]` float32, uncertainties `B 1 H W [D]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGEST, _TINY = 1e4, 1e-8


@dataclass(frozen=True)
class Opinion:
    """`belief` B K H W [D] and `uncertainty` B 1 H W [D]; together they sum to 1."""

    belief: Tensor
    uncertainty: Tensor


def dirichlet(logits: Tensor) -> Tensor:
    """Concentrations alpha = softplus(z) + 1, `B K H W [D]` float32, at most 10^4."""
    return (F.softplus(logits.float()) + 1).clamp(max=_LARGEST)


def opinion(alpha: Tensor) -> Opinion:
    """Subjective opinion of a Dirichlet distribution: b = (alpha - 1) / S, u = K / S."""
    total = alpha.sum(dim=1, keepdim=True)
    return Opinion((alpha - 1) / total, alpha.shape[1] / total)


def fuse(first: Opinion, second: Opinion) -> Opinion:
    """Class-aware evidential fusion: `m_n = b1 b2 + k (b1 u2 + b2 u1)`, `m_u = u1 u2`, normalised; k = 1 / (1 + K)."""
    k = 1 / (1 + first.belief.shape[1])
    mass = first.belief * second.belief + k * (first.belief * second.uncertainty + second.belief * first.uncertainty)
    doubt = first.uncertainty * second.uncertainty
    total = mass.sum(dim=1, keepdim=True) + doubt
    return Opinion(mass / total, doubt / total)


def reliability(fused: Opinion) -> Tensor:
    """`R = exp(u sum_n b_n log2 b_n)` in (0, 1], `B H W [D]`: small where uncertain and ambiguous."""
    ambiguity = (fused.belief * torch.log2(fused.belief.clamp(min=_TINY))).sum(dim=1)
    return torch.exp(fused.uncertainty[:, 0] * ambiguity)


def curriculum(uncertainty: Tensor, valid: Tensor, progress: float, strength: float) -> Tensor:
    """`omega = 1 + strength tanh((2 h/V - 1)(2 progress - 1))`, h the ascending rank of a pixel's uncertainty in its image.

    Args:
        uncertainty: `B H W [D]`.
        valid: bool, same shape: the V pixels that are ranked; the others rank after them and weigh 0.
        progress: share of the run that is done, in [0, 1].
        strength: Xi in [0, 1).

    The paper says descending ranks, which would favour the most uncertain pixels first, against its own words.
    """
    flat = uncertainty.masked_fill(~valid, torch.inf).flatten(1)
    rank = flat.argsort(dim=1).argsort(dim=1) + 1
    count = valid.flatten(1).sum(dim=1, keepdim=True).clamp(min=1)
    weight = 1 + strength * torch.tanh((2 * rank / count - 1) * (2 * progress - 1))
    return weight.view_as(uncertainty) * valid


def fisher_loss(alpha: Tensor, target: Tensor, penalty: float) -> Tensor:
    """Fisher-information evidential loss per pixel, `B H W [D]`, without the KL term.

    `sum_n [(y_n - alpha_n/S)^2 + alpha_n (S - alpha_n) / (S^2 (S+1))] psi1(alpha_n) - penalty log|I(alpha)|` with
    `log|I| = sum_n log psi1(alpha_n) + log(1 - sum_n psi1(S) / psi1(alpha_n))`, psi1 the trigamma function.

    Args:
        alpha: `B K H W [D]`.
        target: one-hot, same shape.
        penalty: lambda_F.
    """
    total = alpha.sum(dim=1, keepdim=True)
    trigamma = torch.polygamma(1, alpha)
    variance = alpha * (total - alpha) / (total**2 * (total + 1))
    fit = (((target - alpha / total) ** 2 + variance) * trigamma).sum(dim=1)
    rest = (1 - (torch.polygamma(1, total) / trigamma).sum(dim=1)).clamp(min=_TINY)
    return fit - penalty * (trigamma.log().sum(dim=1) + rest.log())
