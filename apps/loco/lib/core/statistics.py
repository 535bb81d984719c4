"""Running statistics of feature vectors per class, by the pooled formulas.

With n vectors so far, m new ones and g = m/(n+m): `mean <- mean + g d`, `spread <- (1-g) spread + g spread_new + g (1-g) d^2`,
d from the old mean to that of the new ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.core.losses import in_float32

_WIDEST = 64
"""With more features than this covariances are diagonal."""


class ClassStatistics(nn.Module):
    """Count (K), mean (K, F) and variance (K, F) of all features seen so far, by class; exact, whatever the batches."""

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, features))
        self.register_buffer("variance", torch.zeros(classes, features))

    @torch.no_grad()
    def update(self, feature: Tensor, label: Tensor) -> None:
        """Add features (N, F) with labels (N); other labels than 0 to K-1 are left out."""
        for c in range(len(self.count)):
            _add(feature[label == c].float(), self.count[c], self.mean[c], self.variance[c])


class ClassDistribution(nn.Module):
    """Running count, mean and covariance of feature vectors per class; forgets beyond `limit`."""

    def __init__(self, classes: int, features: int, limit: int) -> None:
        super().__init__()
        self._limit = limit
        shape = (features, features) if features <= _WIDEST else (features,)
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, features))
        self.register_buffer("covariance", torch.zeros(classes, *shape))

    @torch.no_grad()
    def update(self, vectors: Tensor, c: int) -> None:
        """Add vectors `N D` of class `c`."""
        _add(vectors, self.count[c], self.mean[c], self.covariance[c])
        self.count[c].clamp_(max=self._limit)


@in_float32
def _add(new: Tensor, count: Tensor, mean: Tensor, spread: Tensor) -> None:
    """Add vectors `N D` to `count` (scalar), `mean` (D) and `spread`: a covariance `D D`, or its diagonal `D`; in place."""
    if not len(new):
        return
    centre = new.mean(dim=0)
    share = len(new) / (count + len(new))
    step = centre - mean
    if spread.ndim == 2:
        own, jump = (new - centre).T @ (new - centre) / len(new), torch.outer(step, step)
    else:
        own, jump = new.var(dim=0, unbiased=False), step**2
    spread.copy_((1 - share) * spread + share * own + share * (1 - share) * jump)
    mean += share * step
    count += len(new)
