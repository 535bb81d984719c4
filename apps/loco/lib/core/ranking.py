"""Which images of a batch are among the best of the latest ones (ERSR, arXiv 2508.19815). Low scores are good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


def best_of(scores: Sequence[float], seen: Sequence[float], share: float, floor: float) -> list[int]:
    """Positions of the scores among the best `share` of all seen (these included), then refills up to the floor.

    At least `max(1, int(floor * B))` are kept.
    """
    ranked = sorted(seen)
    count = int(len(ranked) * share)
    bar = ranked[count - 1] if count else -np.inf
    kept = [i for i, s in enumerate(scores) if s <= bar]
    rest = sorted((i for i in range(len(scores)) if i not in kept), key=lambda i: scores[i])
    return kept + rest[: max(0, max(1, int(floor * len(scores))) - len(kept))]


class LatestScores(nn.Module):
    """The latest scores, to rank new ones among; part of the saved state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("scores", torch.full((size,), torch.inf))

    def add(self, scores: list[float]) -> list[float]:
        """Remember new scores; returns all that are remembered."""
        self.scores.copy_(torch.cat([self.scores, torch.tensor(scores).to(self.scores)])[len(scores) :])
        return self.scores[self.scores.isfinite()].tolist()
