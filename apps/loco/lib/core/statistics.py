"""Running mean and covariance of feature vectors per class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WIDEST = 64
"""With more features than this the covariances are diagonal."""


class ClassDistribution(nn.Module):
    """Running count, mean and covariance of feature vectors per class, by the pooled formulas; forgets beyond `limit`."""

    def __init__(self, classes: int, features: int, limit: int) -> None:
        super().__init__()
        self._limit = limit
        shape = (features, features) if features <= _WIDEST else (features,)
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, features))
        self.register_buffer("covariance", torch.zeros(classes, *shape))

    @torch.no_grad()
    def update(self, vectors: Tensor, c: int) -> None:
        """Add vectors `N D` of class `c`: with g = m/(n+m), `S <- (1-g) S + g S_b + g (1-g) (m_b - mu)(m_b - mu)^T`."""
        added = len(vectors)
        if added == 0:
            return
        centre = vectors.mean(dim=0)
        share = added / (float(self.count[c]) + added)
        step = centre - self.mean[c]
        if self.covariance.ndim == 3:
            own = (vectors - centre).T @ (vectors - centre) / added
            jump = torch.outer(step, step)
        else:
            own, jump = vectors.var(dim=0, unbiased=False), step**2
        self.covariance[c] = (1 - share) * self.covariance[c] + share * own + share * (1 - share) * jump
        self.mean[c] += share * step
        self.count[c] = min(float(self.count[c]) + added, self._limit)
