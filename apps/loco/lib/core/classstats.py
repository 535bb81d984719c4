"""Running statistics of features per class, and contrast with them in closed form (AUA, arXiv 2111.10989)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.spec import IGNORE


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
            new = feature[label == c].float()
            if not len(new):
                continue
            share = len(new) / (len(new) + self.count[c])
            shift = new.mean(0) - self.mean[c]
            spread = share * new.var(0, unbiased=False) + share * (1 - share) * shift**2
            self.variance[c] = (1 - share) * self.variance[c] + spread
            self.mean[c] += share * shift
            self.count[c] += len(new)


def prototype_contrast(
    feature: Tensor, label: Tensor, mean: Tensor, variance: Tensor, temperature: float, ignored: int = 0
) -> Tensor:
    """Cross-entropy with `(f mu_c + 0.5 f^2 s_c / t) / t` as logits, plus `0.5 mean(f^2 s_y / t) / t`.

    Features (N, F), means and variances (K, F) are brought to unit length first. Pixels labelled `ignored` or 255 are left
    out; 0 with a graph when none is left.
    """
    kept = (label != ignored) & (label != IGNORE)
    if not bool(kept.any()):
        return feature.sum() * 0.0
    f, y = F.normalize(feature[kept].float(), dim=1), label[kept].long()
    mu, s = F.normalize(mean, dim=1), F.normalize(variance, dim=1) / temperature
    logits = (f @ mu.T + 0.5 * f**2 @ s.T) / temperature
    return F.cross_entropy(logits, y) + 0.5 * (f**2 * s[y]).sum(1).mean() / temperature


def near_boundary(label: Tensor) -> Tensor:
    """Bool `B H W [D]`: pixels one of whose direct or diagonal neighbours has another label; 255 is no label."""
    pool = F.max_pool2d if label.ndim == 3 else F.max_pool3d
    values = label.float().unsqueeze(1)
    ignored = (label == IGNORE).unsqueeze(1)
    highest = pool(values.masked_fill(ignored, -1), 3, stride=1, padding=1)
    lowest = -pool(-values.masked_fill(ignored, IGNORE), 3, stride=1, padding=1)
    return ((highest != lowest) & ~ignored).squeeze(1)


def boundary_contrast(z: Tensor, label: Tensor, temperature: float, most: int, generator: torch.Generator) -> Tensor:
    """Supervised contrast of the pixels near a boundary, for each image, mean over the images that have some.

    Args:
        z: `B P h w [d]`, brought to unit length here.
        label: `B h w [d]`, 255 ignored.
        temperature: of the similarities.
        most: pixels per image, chosen at random.
        generator: source of that choice.

    Returns:
        Scalar; 0 with a graph when no image has a boundary. A class with a single pixel is no anchor.
    """
    z, band = F.normalize(z.float(), dim=1).flatten(2).mT, near_boundary(label).flatten(1)
    losses = []
    for vectors, y, near in zip(z, label.flatten(1), band, strict=True):
        chosen = torch.nonzero(near).flatten()
        if len(chosen) > most:
            order = torch.randperm(len(chosen), generator=generator, device=chosen.device)
            chosen = chosen[order[:most]]
        v, same = vectors[chosen], y[chosen][:, None] == y[chosen]
        diagonal = torch.eye(len(v), dtype=torch.bool, device=v.device)
        positive = same & ~diagonal
        anchors = positive.any(1)
        if not bool(anchors.any()):
            continue
        s = v @ v.T / temperature
        log_probs = s - s.masked_fill(diagonal, -1e30).logsumexp(1, keepdim=True)
        each = -(log_probs * positive).sum(1) / positive.sum(1).clamp(min=1)
        losses.append(each[anchors].mean())
    return torch.stack(losses).mean() if losses else z.sum() * 0.0
