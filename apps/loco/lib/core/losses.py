"""Pixel losses that skip ignored pixels. Shapes: logits `B K H W [D]` float, labels `B H W [D]` integer, 255 ignored.

The pixel loss is masked, never the logits: a zeroed logit would be a uniform prediction, not an ignored pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.spec import IGNORE

_HALF = (torch.float16, torch.bfloat16)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def in_float32(function: _Function) -> _Function:
    """Decorator: computes in float32 under autocast too, where a matrix product that sums over pixels exceeds float16.

    It takes a tensor, or several, as positional arguments; those in half precision are converted.
    """

    @wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, Tensor))
        wide = (a.float() if isinstance(a, Tensor) and a.dtype in _HALF else a for a in args)
        with torch.autocast(device.type, enabled=False):
            return function(*wide, **kwargs)

    return inner


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not 255; 0 with a graph when there are none."""
    valid = (label != IGNORE).sum()
    summed = F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="sum")
    return summed / valid.clamp(min=1)


def dice_loss(logits: Tensor, label: Tensor, eps: float = 1e-5) -> Tensor:
    """`1 - mean_c (2 sum(p g) + eps) / (sum(p^2) + sum(g^2) + eps)`, sums over the whole batch, all classes.

    Source: SSL4MIS form, `DICE` of the methods' common conventions.
    """
    valid = (label != IGNORE).unsqueeze(1)
    probs = torch.softmax(logits.float(), dim=1) * valid
    target = one_hot(label, logits.shape[1]) * valid
    dims = [0, *range(2, logits.ndim)]
    overlap = 2 * (probs * target).sum(dims) + eps
    return 1 - (overlap / ((probs**2).sum(dims) + (target**2).sum(dims) + eps)).mean()


def image_dice(logits: Tensor, label: Tensor, eps: float = 1e-10) -> Tensor:
    """`1 - mean 2 sum(p y) / (sum p + sum y + eps)` over images and all classes; images that are ignored whole count 0.

    Source: LPC, arXiv 2112.09645.
    """
    valid = label != IGNORE
    probs = torch.softmax(logits.float(), dim=1) * valid.unsqueeze(1)
    target = one_hot(label, logits.shape[1])
    dims = tuple(range(2, logits.ndim))
    dice = 2 * (probs * target).sum(dims) / (probs.sum(dims) + target.sum(dims) + eps)
    return ((1 - dice.mean(1)) * valid.flatten(1).any(1)).mean()


def foreground_dice(logits: Tensor, label: Tensor, eps: float = 1e-5) -> Tensor:
    """`1 - mean_{c > 0} (2 sum(p g) + eps) / (sum p^2 + sum g^2 + eps)`, sums over the whole batch."""
    valid = (label != IGNORE).unsqueeze(1)
    probs = torch.softmax(logits.float(), dim=1) * valid
    target = one_hot(label, logits.shape[1])
    dims = (0, *range(2, logits.ndim))
    ratio = (2 * (probs * target).sum(dims) + eps) / ((probs**2).sum(dims) + (target**2).sum(dims) + eps)
    return 1 - ratio[1:].mean()


def foreground_loss(logit: Tensor, label: Tensor) -> Tensor:
    """0.5 (binary cross-entropy + soft Dice per image, eps 1e-5) of a foreground logit `B 1 H W`; 255 is left out."""
    valid = (label != IGNORE).unsqueeze(1).float()
    target = (label == 1).unsqueeze(1).float()
    pixel = F.binary_cross_entropy_with_logits(logit, target, reduction="none") * valid
    prob = torch.sigmoid(logit) * valid
    overlap = 2 * (prob * target).sum(dim=(1, 2, 3)) + 1e-5
    dice = 1 - overlap / (prob.sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3)) + 1e-5)
    return 0.5 * (pixel.sum() / valid.sum().clamp(min=1) + dice.mean() * bool(valid.any()))


def foreground_logit(logits: Tensor) -> Tensor:
    """Two class logits `B 2 H W` as one of the foreground, `B 1 H W`."""
    return (logits[:, 1:] - logits[:, :1]).float()


def supervised_loss(logits: Tensor, label: Tensor) -> Tensor:
    """`SUP = 0.5 CE + 0.5 DICE`."""
    return 0.5 * cross_entropy(logits, label) + 0.5 * dice_loss(logits, label)


def foreground_supervised_loss(logits: Tensor, label: Tensor) -> Tensor:
    """`0.5 CE + 0.5 Dice` of the foreground classes (`foreground_dice`)."""
    return 0.5 * (cross_entropy(logits, label) + foreground_dice(logits, label))


def image_dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """`0.2 CE + 0.8 Dice` with the Dice of each image and plain sums (`image_dice`).

    Of a small object in a short run the Dice learns more; the cross-entropy keeps the confidence graded, which scoring reads.
    """
    return 0.2 * cross_entropy(logits, label) + 0.8 * image_dice(logits, label)


PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""Of logits `B K H W [D]` and labels `B H W [D]`, 255 ignored: a scalar."""

LABELLED_LOSSES: Mapping[str, PixelLoss] = {
    "ce": cross_entropy,
    "ce_dice": supervised_loss,
    "ce_image_dice": image_dice_loss,
    "image_dice": image_dice,
}
"""What `MethodSpec.labelled_loss` may name."""


def confident_cross_entropy(logits: Tensor, label: Tensor, confident: Tensor, ignore: Tensor) -> Tensor:
    """Cross-entropy of the confident pixels, divided by the number of all valid ones (FixMatch, LoCo `Lu`).

    Args:
        logits: `B K H W [D]`.
        label: pseudo-labels `B H W [D]`, values in 0..K-1, or 255 where the ignore map is set.
        confident: bool `B H W [D]`.
        ignore: uint8 `B H W [D]`, 255 = ignored.

    Returns:
        Scalar; 0 with a graph when no pixel is confident or valid.
    """
    valid = (ignore != IGNORE) & (label != IGNORE)
    target = torch.where(valid, label, torch.zeros_like(label)).long()
    pixel = F.cross_entropy(logits.float(), target, reduction="none")
    return (pixel * (confident & valid)).sum() / valid.sum().clamp(min=1)


def masked_mse(probs: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Mean squared difference of two `B K H W [D]` probability maps over the pixels whose ignore map is not 255."""
    valid = (ignore != IGNORE).unsqueeze(1)
    squared = (probs - target) ** 2 * valid
    return squared.sum() / (valid.sum() * probs.shape[1]).clamp(min=1)


def one_hot(label: Tensor, classes: int) -> Tensor:
    """`B H W [D]` integer to `B K H W [D]` float32; 255 becomes all zeros."""
    valid = label != IGNORE
    clean = torch.where(valid, label, torch.zeros_like(label)).long()
    encoded = F.one_hot(clean, classes).movedim(-1, 1).float()
    return encoded * valid.unsqueeze(1)
