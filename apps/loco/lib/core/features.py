"""Comparing features of images `B F h w [d]`, at whatever depth, under a map of valid pixels `B H W [D]`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.spec import IGNORE


def channels_of(network: nn.Module) -> tuple[list[int], int]:
    """Channels of the encoder's maps, fine to coarse, and of the decoder's last feature; leaves the network as it was."""
    weight = next(network.parameters())
    was = network.training
    network.eval()
    with torch.no_grad():
        output = network(torch.zeros(1, 1, *[32] * network.spatial_dims, device=weight.device))
    network.train(was)
    return [m.shape[1] for m in output.maps], output.feature.shape[1]


def projection_channels(network: nn.Module) -> int:
    """Channels of the projection: those of its last convolution."""
    return [m for m in network.projector.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)][-1].out_channels


def label_at(label: Tensor, size: tuple[int, ...]) -> Tensor:
    """Labels `B H W [D]` at another size, nearest neighbour with aligned corners as the network's maps; same type."""
    index = [
        torch.linspace(0, n - 1, m, device=label.device).round().long()
        for n, m in zip(label.shape[1:], size, strict=True)
    ]
    for axis, chosen in enumerate(index, start=1):
        label = label.index_select(axis, chosen)
    return label


def valid_at(valid: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bool map at a smaller size, `B 1 h w [d]` float: 1 where at least half of the pixels are valid."""
    pool = F.adaptive_avg_pool2d if valid.ndim == 3 else F.adaptive_avg_pool3d
    return (pool(valid.unsqueeze(1).float(), size) >= 0.5).float()


def mean_vectors(vectors: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid ones of `B C n`, of length 1, for each image that has any: `b C`; `valid` bool `B n`."""
    return F.normalize((vectors * valid.unsqueeze(1)).sum(dim=2)[valid.any(dim=1)], dim=1)


def mean_difference(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of two maps over valid pixels and all channels; 0 with a graph when none is valid."""
    mask = valid_at(valid, first.shape[2:])
    return ((first - second).abs() * mask).sum() / (mask.sum() * first.shape[1]).clamp(min=1)


def mean_cosine_distance(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """`1 - cos` of the maps as one vector per image, mean over the batch; an image without a valid pixel counts 0."""
    mask = valid_at(valid, first.shape[2:])
    cosine = F.cosine_similarity((first * mask).flatten(1), (second * mask).flatten(1))
    return ((1 - cosine) * mask.flatten(1).amax(1)).mean()


def is_valid(label: Tensor) -> Tensor:
    """Bool map of the pixels whose label or ignore map is not 255."""
    return label != IGNORE
