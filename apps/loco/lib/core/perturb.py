"""Perturbed passes: images of other intensities, feature maps with channels dropped, dropout switched on. All seeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

_DROPOUT = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)
_RATE = 0.1


def noisy(image: Tensor, sigma: float | Tensor, generator: torch.Generator) -> Tensor:
    """`image` plus Gaussian noise of standard deviation `sigma`, cut at twice that; the range is not clipped.

    `sigma`: in the image's units, a number or a tensor that spreads over it.
    """
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return image + (sigma * noise).clamp(-2 * sigma, 2 * sigma)


def spread(image: Tensor) -> Tensor:
    """Standard deviation of each image of `B C *S`, as `B 1 *1`: the unit of noise that is published of standardised images."""
    return image.flatten(1).std(dim=1).view(-1, *[1] * (image.ndim - 1))


def drop_channels(feature: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Zero whole channels of `B F h w [d]` with `probability`, each image its own, and scale the rest up to keep the mean."""
    kept = torch.rand(feature.shape[:2], generator=generator, device=feature.device) >= probability
    kept = kept.view(*kept.shape, *[1] * (feature.ndim - 2))
    return feature * kept.to(feature.dtype) / (1 - probability)


def changed_intensity(image: Tensor, rng: np.random.Generator) -> Tensor:
    """`C H W` in [0, 1]: noise, gamma, shift and blur, each with probability 0.2; the range is restored by clipping."""
    if rng.random() < 0.2:
        image = image + 0.05 * torch.from_numpy(rng.standard_normal(image.shape)).to(image)
    if rng.random() < 0.2:
        image = image.clamp(0, 1) ** rng.uniform(1.2, 1.8)
    if rng.random() < 0.2:
        image = image + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.2:
        image = gaussian_blur(image, [5, 5], [float(rng.uniform(0.5, 1.5))])
    return image.clamp(0, 1)


@contextmanager
def stochastic(network: nn.Module) -> Iterator[None]:
    """Within it, dropout is active. A network without any has it in front of its classifier, at a rate of 0.1.

    `network` is in evaluation mode and has a `classifier`, as all of `networks` have.
    """
    own = [m for m in network.modules() if isinstance(m, _DROPOUT) and m.p > 0]
    for module in own:
        module.train()
    hook = None if own else network.classifier.register_forward_pre_hook(lambda _, x: (F.dropout(x[0], _RATE, True),))
    try:
        yield
    finally:
        for module in own:
            module.eval()
        if hook is not None:
            hook.remove()


@contextmanager
def seeded_dropout(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """`stochastic`, with random numbers from a seed of `generator`; those outside the block are not disturbed."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[generator.device] if generator.device.type == "cuda" else []):
        torch.manual_seed(seed)
        with stochastic(network):
            yield
