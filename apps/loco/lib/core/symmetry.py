"""Smooth and symmetric objects (ERSR, arXiv 2508.19815): how rough a map is, mirror images, and losses between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from lib.core.perturb import changed_intensity

_SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
_LAPLACE = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])


def roughness(prob: Tensor, border: Literal["replicate", "zero"] = "replicate") -> tuple[Tensor, Tensor]:
    """`s_edge`, mean Sobel magnitude, and `s_edt`, mean |Laplacian| of the distance outside the object; `B 1 H W` to `B` each.

    `border` says what lies beyond the image: its last pixel, or 0 as published, where the border of the image makes up most of
    `s_edt` and so size and place of the object decide the rank. Without an object `s_edt` has no meaning.
    """

    def filtered(image: Tensor, kernels: Tensor) -> Tensor:
        mode = "constant" if border == "zero" else border
        return F.conv2d(F.pad(image, [1] * 4, mode=mode), kernels.unsqueeze(1).to(image))

    slope = filtered(prob, torch.stack([_SOBEL, _SOBEL.T])).square().sum(dim=1)
    outside = [ndimage.distance_transform_edt(p <= 0.5) for p in prob[:, 0].cpu().numpy()]
    distance = torch.from_numpy(np.stack(outside)).unsqueeze(1).to(prob)
    bend = filtered(distance, _LAPLACE.unsqueeze(0))
    return (slope + 1e-6).sqrt().mean(dim=(1, 2)), bend.abs().mean(dim=(1, 2, 3))


class Mirror:
    """Reflection of one image `H W` across the line through `centre` whose normal has the angle of the axis.

    Where the mirror image of a pixel lies outside, the nearest pixel of the image stands for it.
    """

    def __init__(
        self, height: int, width: int, centre: tuple[float, float], angle: float, device: torch.device
    ) -> None:
        y, x = torch.meshgrid(
            torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
        )
        normal = float(np.cos(angle)), float(np.sin(angle))
        distance = (x - centre[0]) * normal[0] + (y - centre[1]) * normal[1]
        column = (x - 2 * distance * normal[0]).round().clamp(0, width - 1).long()
        row = (y - 2 * distance * normal[1]).round().clamp(0, height - 1).long()
        self.left = (distance < 0).to(device)
        """Bool `H W`: the side of negative distance."""
        self._index = (row * width + column).flatten().to(device)

    def __call__(self, image: Tensor) -> Tensor:
        """The mirror image of `C H W`, nearest pixel; gradients go through."""
        return image.flatten(1)[:, self._index].view_as(image)

    def halves(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`C H W` restricted to the left and to the right side, zero elsewhere."""
        return image * self.left, image * ~self.left

    def completed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """SL and SR: each half plus its mirror image."""
        left, right = self.halves(image)
        return left + self(left), right + self(right)


def completed_images(
    image: Tensor, label: Tensor, mirror: Mirror, rng: np.random.Generator, compose: Literal["paste", "add"]
) -> tuple[Tensor, Tensor]:
    """X_L and X_R, `C H W`: the object's one half, perturbed, and its mirror image, perturbed, in the place of the other.

    `paste` puts the halves over the image; `add` (published) adds both to the image without the object.
    """
    pair = []
    for half in mirror.halves(label):
        own, other = changed_intensity(image * half, rng), changed_intensity(mirror(image * half), rng)
        if compose == "add":
            pair.append(image * (1 - label) + own + other)
        else:
            pair.append(torch.where(half > 0, own, torch.where(mirror(half) > 0, other, image)))
    return pair[0], pair[1]


def symmetry_losses(
    plain: Tensor, left: Tensor, right: Tensor, label: Tensor, mirrors: Sequence[Mirror], valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`L_seg`, `L_aug`, `L_mir`: mean squared errors over the valid pixels.

    Args:
        plain: probabilities `B 1 H W` on the image, `left` and `right` on the images completed from one half.
        left: see `plain`.
        right: see `plain`.
        label: refined label, same shape, 0 or 1.
        mirrors: one per image.
        valid: same shape, 0 where padded.
    """

    def mse(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square() * valid).sum() / valid.sum().clamp(min=1)

    targets = [torch.stack(t) for t in zip(*(m.completed(p) for m, p in zip(mirrors, plain, strict=True)), strict=True)]
    aug = 0.5 * (mse(left, targets[0]) + mse(right, targets[1]))
    sides = [[m.halves(p) for m, p in zip(mirrors, x, strict=True)] for x in (left, right)]
    mir = 0.5 * sum(
        mse(torch.stack([a for a, _ in s]), torch.stack([m(b) for m, (_, b) in zip(mirrors, s, strict=True)]))
        for s in sides
    )
    return mse(plain, label), aug, mir
