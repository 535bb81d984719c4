"""A segmentation that is a distribution: low-rank Gaussian over logits, its likelihood, and the distance of two sets of samples.

Source: AUA (arXiv 2111.10989). Shapes: samples `S B K H W [D]`, logits `B K H W [D]`, labels `B H W [D]`, 255 ignored.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.losses import in_float32
from lib.core.networks import NetworkOutput
from lib.core.spec import IGNORE

_FLOOR = 1e-5


class GaussianHead(nn.Module):
    """Covariance of the logits from the decoder's feature: `F F^T + D` with F of `rank` columns and D diagonal.

    The mean is the network's own classifier, so that the network can be used without this head.
    """

    def __init__(self, features: int, classes: int, rank: int, dims: int) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.rank = rank
        self.log_diagonal, self.factor = conv(features, classes, 1), conv(features, rank * classes, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Diagonal `B K h w [d]` and factor `B R K h w [d]` of `B F h w [d]`, float32; channels of the factor are rank-major."""
        feature = torch.relu(feature)
        factor = self.factor(feature).float()
        return self.log_diagonal(feature).float().exp() + 2 * _FLOOR, factor.unflatten(1, (self.rank, -1))


@in_float32
def antithetic(mean: Tensor, diagonal: Tensor, factor: Tensor, noise_factor: Tensor, noise_diagonal: Tensor) -> Tensor:
    """Samples `mean + e` and then all `mean - e`, `S B K h w [d]`.

    `noise_factor`: standard normal numbers `S/2 B R`; `noise_diagonal`: `S/2 B K h w [d]`.
    """
    e = torch.einsum("sbr,brk...->sbk...", noise_factor, factor) + diagonal.sqrt() * noise_diagonal
    return torch.cat([mean + e, mean - e])


def sampled(output: NetworkOutput, head: GaussianHead, count: int, generator: torch.Generator) -> Tensor:
    """`count` antithetic samples of a network's output at the size of its logits, `S B K H W [D]`."""
    diagonal, factor = head(output.feature)
    size = output.logits.shape[2:]
    draws = {"generator": generator, "device": diagonal.device}
    noise_f = torch.randn(count // 2, *factor.shape[:2], **draws)
    noise_d = torch.randn(count // 2, *diagonal.shape, **draws)
    deviation = antithetic(torch.zeros_like(diagonal), diagonal, factor, noise_f, noise_d)
    if deviation.shape[3:] != size:
        mode = "bilinear" if len(size) == 2 else "trilinear"
        deviation = F.interpolate(deviation.flatten(0, 1), size, mode=mode, align_corners=True)
        deviation = deviation.unflatten(0, (count // 2 * 2, -1))
    return output.logits + deviation


def negative_log_likelihood(samples: Tensor, label: Tensor) -> Tensor:
    """`-1/V mean_b [logsumexp_s sum_v log softmax(g_s)_{v, y_v} - ln S]`, V the valid pixels of an image; 0 without any."""
    valid = label != IGNORE
    log_probs = torch.log_softmax(samples.float(), dim=2)
    index = torch.where(valid, label, torch.zeros_like(label)).long()[None, :, None]
    picked = log_probs.gather(2, index.expand(len(samples), *index.shape[1:])).squeeze(2) * valid
    likelihood = picked.flatten(2).sum(-1).logsumexp(0) - math.log(len(samples))
    pixels = valid.flatten(1).sum(1)
    return (-likelihood / pixels.clamp(min=1) * (pixels > 0)).mean()


@in_float32
def energy_distance(first: Tensor, second: Tensor, valid: Tensor, eps: float = 1e-5) -> Tensor:
    """Squared generalised energy distance of two sets of samples for each image, (B).

    2 mean d(a, b) - mean d(a, a') - mean d(b, b') with d = 1 - mean_c (2 sum a b + eps) / (sum a^2 + sum b^2 + eps) of the
    probabilities. `valid`: bool `B H W [D]`.
    """
    mask = valid[None, :, None]
    a, b = ((torch.softmax(g, dim=2) * mask).flatten(3).permute(1, 2, 0, 3) for g in (first, second))
    squares = [(p**2).sum(-1) for p in (a, b)]

    def distance(p: Tensor, q: Tensor, pp: Tensor, qq: Tensor) -> Tensor:
        ratio = (2 * p @ q.mT + eps) / (pp.unsqueeze(-1) + qq.unsqueeze(-2) + eps)
        return (1 - ratio.mean(1)).mean((1, 2))

    return (
        2 * distance(a, b, *squares) - distance(a, a, squares[0], squares[0]) - distance(b, b, squares[1], squares[1])
    )
