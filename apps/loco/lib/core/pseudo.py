"""Pseudo-labels: from a teacher's logits to labels that a loss can use. Shapes: logits `B K H W [D]`, labels `B H W [D]`."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from lib.core.spec import IGNORE


def hard_label(logits: Tensor, ignore: Tensor) -> Tensor:
    """Most likely class per pixel, uint8, without gradient; 255 where the ignore map is 255."""
    # `argmax` takes some forty times as long over the classes of a map on a CPU
    return logits.detach().max(dim=1).indices.to(torch.uint8).masked_fill(ignore == IGNORE, IGNORE)


def confident_label(logits: Tensor, ignore: Tensor, threshold: float) -> Tensor:
    """`hard_label`, and 255 as well where the largest probability is below `threshold`."""
    confidence = torch.softmax(logits.detach().float(), dim=1).amax(dim=1)
    return hard_label(logits, ignore).masked_fill(confidence < threshold, IGNORE)


def largest_components(label: Tensor, classes: int) -> Tensor:
    """Keep the largest piece of every foreground class of each image; the other pieces become background.

    Pieces are joined through corners too; of equal ones the first in scan order stays; 255 stays 255. Runs on the CPU.
    """
    maps = label.detach().cpu().numpy().copy()
    structure = np.ones((3,) * (label.ndim - 1))
    for image in maps:
        for c in range(1, classes):
            pieces, count = ndimage.label(image == c, structure)
            if count > 1:
                largest = np.bincount(pieces.ravel())[1:].argmax() + 1
                image[(pieces > 0) & (pieces != largest)] = 0
    return torch.from_numpy(maps).to(label.device)


def passed(label: Tensor, ignore: Tensor) -> Tensor:
    """`mask_ratio`: share of the pixels that are not ignored whose label is not 255; 0 when all are ignored. Scalar."""
    valid = ignore != IGNORE
    return ((label != IGNORE) & valid).sum() / valid.sum().clamp(min=1)
