"""What a segmentation is worth, on the grid of the image: Dice, HD95, and how low the contrast of the true border is.

HD95 is in mm, in pixels for pictures, which have no physical size. Empty masks: absent from both is Dice 1 and HD95 0;
absent from one is Dice 0 and HD95 the diagonal of the image, the largest distance there is, so that a missed object
costs and no case drops out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage
from torch import Tensor, nn

from lib.core.cases import Case, Record, load_case
from lib.core.losses import one_hot
from lib.core.predict import predict
from lib.core.spec import TaskSpec
from lib.core.validate import dice_per_class

_BAND = 0.0125
"""Half-width of the band along the true border as a share of the image's mean side, as in `lib.core.lowcontrast`."""


@dataclass(frozen=True)
class CaseScore:
    """Means over the classes of one case; `missed` counts the classes that are there and were not found at all."""

    dice: float
    hd95: float
    missed: int


def score_cases(
    network: nn.Module, records: Sequence[Record], spec: TaskSpec, device: torch.device
) -> dict[str, CaseScore]:
    """Predict each record as the app does, with a network in evaluation mode, and compare on the voxels of the image."""
    scores = {}
    for record in records:
        case = load_case(record.image, record.label, spec.data, spec.network.classes, keep_native=True)
        prediction = predict(network, case, spec.data, device).native_label()
        truth = case.native_label.reshape(prediction.shape)
        scores[record.id] = score_case(prediction, truth, spec.labels, spacing_of(case))
    return scores


def score_case(prediction: Tensor, truth: Tensor, labels: Mapping[str, int], spacing: Sequence[float]) -> CaseScore:
    """Scores of two label maps `*S` (uint8); `spacing` per axis of S."""
    dice = dice_per_class(prediction, truth, labels)
    distances = hd95_per_class(prediction, truth, labels, spacing)
    missed = sum(bool((truth == i).any()) and dice[name] == 0 for name, i in labels.items())
    return CaseScore(float(np.mean(list(dice.values()))), float(np.mean(list(distances.values()))), missed)


def hd95_per_class(
    prediction: Tensor, truth: Tensor, labels: Mapping[str, int], spacing: Sequence[float]
) -> dict[str, float]:
    """95th percentile of the symmetric surface distance, MONAI's, by class name; see above for empty masks."""
    axes = [a for a, n in enumerate(truth.shape) if n > 1]
    spacing = [float(spacing[a]) for a in axes]
    prediction, truth = prediction.squeeze(), truth.squeeze()
    diagonal = math.dist([0.0] * truth.ndim, [n * s for n, s in zip(truth.shape, spacing, strict=True)])
    classes = max(labels.values()) + 1
    encoded = [one_hot(x[None], classes) for x in (prediction, truth)]
    distances = {}
    for name, index in labels.items():
        ours, theirs = (e[:, index : index + 1] for e in encoded)
        if not ours.any() or not theirs.any():
            distances[name] = diagonal if ours.any() or theirs.any() else 0.0
            continue
        found = compute_hausdorff_distance(ours, theirs, include_background=True, percentile=95, spacing=spacing)
        distances[name] = float(found)
    return distances


def spacing_of(case: Case) -> list[float]:
    """Spacing of the stored axes in mm; 1 for pictures."""
    if case.affine is None:
        return [1.0] * case.native_label[0].ndim
    return np.linalg.norm(case.affine[:3, :3], axis=0).tolist()


def border_contrast(image: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> float:
    """How well the image shows the true border: mean over the classes, infinite without an object.

    Distance between the mean intensities of the two halves of a band along the border, in units of their spread.

    Args:
        image: `C *S`, any intensities.
        label: `*S`, whole numbers, 0 is background.
        spacing: of the axes of S.
    """
    sides = [n * s for n, s in zip(label.shape, spacing, strict=True)]
    width = _BAND * float(np.prod(sides)) ** (1 / len(sides))
    step = [s / max(width, s) for s in spacing]
    found = [_contrast(image, label == index, step) for index in np.unique(label) if index]
    return float(np.mean(found)) if found else math.inf


def border_length(label: np.ndarray) -> int:
    """Pixels of the border of each class, what an annotator draws: object pixels with a neighbour of another class."""
    count = 0
    for index in np.unique(label):
        if index:
            mask = label == index
            count += int(mask.sum() - ndimage.binary_erosion(mask, border_value=0).sum())
    return count


def lowest_third(contrast: Mapping[str, float]) -> list[str]:
    """Ids of the third with the lowest contrast, at least one; ties by id."""
    order = sorted(contrast, key=lambda i: (contrast[i], i))
    return order[: max(1, len(order) // 3)]


def low_contrast_ids(records: Sequence[Record], spec: TaskSpec) -> list[str]:
    """The third of some cases whose true borders have the lowest contrast on the working grid; no network involved."""
    contrast = {}
    for record in records:
        case = load_case(record.image, record.label, spec.data, spec.network.classes)
        contrast[record.id] = border_contrast(case.image.numpy(), case.label[0].numpy(), case.grid.spacing)
    return lowest_third(contrast)


def _contrast(image: np.ndarray, mask: np.ndarray, step: Sequence[float]) -> float:
    inner = mask & (ndimage.distance_transform_edt(mask, sampling=step) <= 1 + 1e-6)
    outer = ~mask & (ndimage.distance_transform_edt(~mask, sampling=step) <= 1 + 1e-6)
    if not inner.any() or not outer.any():
        return math.inf
    a, b = image[:, inner], image[:, outer]
    spread = math.sqrt(float((a.var(axis=1) + b.var(axis=1)).sum()) / 2)
    return float(np.linalg.norm(a.mean(axis=1) - b.mean(axis=1))) / max(spread, 1e-6)
