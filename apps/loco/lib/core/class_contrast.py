"""Contrast of pixels with their classes: with running statistics in closed form, and at boundaries (AUA, arXiv 2111.10989)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.losses import in_float32
from lib.core.regions import near_boundary
from lib.core.spec import IGNORE


@in_float32
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
    f, y = F.normalize(feature[kept], dim=1), label[kept].long()
    mu, s = F.normalize(mean, dim=1), F.normalize(variance, dim=1) / temperature
    logits = (f @ mu.T + 0.5 * f**2 @ s.T) / temperature
    return F.cross_entropy(logits, y) + 0.5 * (f**2 * s[y]).sum(1).mean() / temperature


@in_float32
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
    z, band = F.normalize(z, dim=1).flatten(2).mT, near_boundary(label).flatten(1)
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
