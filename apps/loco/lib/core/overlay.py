"""One case as a picture for people: its image with the contours of its label and of a prediction."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from torch import Tensor

LABEL, PREDICTION, BOTH = (86, 180, 233), (230, 159, 0), (255, 255, 255)
"""Sky blue and orange, which also the colour-blind tell apart (Okabe and Ito 2008), and white where they coincide."""

_SMALLEST, _LARGEST_SCALE = 256, 4


def overlay(image: Tensor, label: Tensor, prediction: Tensor) -> np.ndarray:
    """Draw the inner contours of each class; of a volume the slice in which the label is largest.

    Args:
        image: `C X Y [Z]` in [0, 1] on the working grid, C = 1 or 3; volumes have RAS axes.
        label: integers `X Y [Z]`, 0 background.
        prediction: the same.

    Returns:
        `rows columns 3` uint8, pixels repeated up to 4 times until the shorter side has 256.
    """
    volume = label.ndim == 3
    if volume:
        at = largest_slice(label, prediction)
        image, label, prediction = image[..., at], label[..., at], prediction[..., at]
    pixels = np.moveaxis(image.numpy(), 0, -1)
    planes = [pixels, label.numpy(), prediction.numpy()]
    planes = [_as_read(p) if volume else p.swapaxes(0, 1) for p in planes]
    scale = min(_LARGEST_SCALE, max(1, -(-_SMALLEST // min(planes[1].shape))))
    pixels, label_at, predicted = (p.repeat(scale, axis=0).repeat(scale, axis=1) for p in planes)
    picture = np.broadcast_to(pixels * 255, (*label_at.shape, 3)).round().astype(np.uint8)
    drawn, found = contours(label_at), contours(predicted)
    for where, colour in ((drawn, LABEL), (found, PREDICTION), (drawn & found, BOTH)):
        picture[where] = colour
    return picture


def largest_slice(label: Tensor, prediction: Tensor) -> int:
    """Position along the last axis with most voxels of the label; without any of the prediction; else the middle.

    >>> import torch
    >>> label = torch.zeros(2, 2, 3, dtype=torch.uint8)
    >>> label[0, 0, 2] = 1
    >>> largest_slice(label, 0 * label), largest_slice(0 * label, label), largest_slice(0 * label, 0 * label)
    (2, 2, 1)
    """
    for mask in (label, prediction):
        counts = (mask > 0).flatten(0, 1).sum(dim=0)
        if int(counts.max()) > 0:
            return int(counts.argmax())
    return label.shape[-1] // 2


def contours(label: np.ndarray) -> np.ndarray:
    """Pixels of a class that have a neighbour (of 4) of another one or outside: bool, of the shape of the label map."""
    edge = np.zeros(label.shape, bool)
    for index in np.unique(label[label > 0]):
        own = label == index
        edge |= own & ~ndimage.binary_erosion(own)
    return edge


def _as_read(plane: np.ndarray) -> np.ndarray:
    """A plane of RAS axes as radiologists see it: the patient's right on the left, anterior or superior on top."""
    return plane.swapaxes(0, 1)[::-1, ::-1]
