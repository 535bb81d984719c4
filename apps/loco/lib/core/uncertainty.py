"""Uncertainty of a prediction, as the published rivals of the low-contrast score define it; pure functions.

nnActive (arXiv 2511.19183) and ClaSP PE (arXiv 2601.13677): entropies, box mean, power noise, schedule. MONAI Label 0.8.5:
epistemic entropy and variance of stochastic passes. ISBI 2024 (arXiv 2403.14350): cosine of foreground and background.
`*S` stands for `H W [D]`, K for the classes with the background, M for models or passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ENTROPY_FLOOR = 5e-5
_VARIANCE_FLOOR = 5e-4
FIRST_BETA, LAST_BETA = 1.0, 100.0
"""Ends of ClaSP PE's noise schedule."""
WINDOW_SHARE = 0.25
"""Side of the window over which ClaSP PE at image level averages, as a share of the image's sides."""


def predictive_entropy(probs: Tensor) -> Tensor:
    """Entropy in nats of the mean of M predictions, `M K *S` to `*S`; 0 ln 0 counts 0."""
    return _entropy(probs.mean(dim=0))


def expected_entropy(probs: Tensor) -> Tensor:
    """Mean over M predictions of their entropies in nats, `M K *S` to `*S`."""
    return torch.stack([_entropy(one) for one in probs]).mean(dim=0)


def bald(probs: Tensor) -> Tensor:
    """Mutual information of prediction and model in nats, `M K *S` to `*S`."""
    return predictive_entropy(probs) - expected_entropy(probs)


def class_entropy(probs: Tensor) -> Tensor:
    """Entropy of the mean prediction weighted by each class's probability (ClaSP PE), `M K *S` to `K *S`."""
    mean = probs.mean(dim=0)
    return mean * _entropy(mean)


def box_mean(values: Tensor, window: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Mean over every window that lies wholly inside, `*S` to one value per window position; sizes and steps per axis.

    Averages axis by axis: unlike a convolution by FFT it never turns tiny positive values into negative ones, whose
    logarithm would be NaN. A window larger than the image is cut to it.
    """
    for axis, (side, step) in enumerate(zip(window, stride, strict=True)):
        values = values.unfold(axis, min(side, values.shape[axis]), step).mean(dim=-1)
    return values


def power_key(scores: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`ln score + noise` (N float, -inf for a score of 0); its order is a draw with P(first) ~ score ** beta.

    `noise`: Gumbel numbers of scale 1 / beta (Kirsch et al., arXiv 2106.12059).
    """
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(scores, 0.0)) + noise


def power_beta(step: int, steps: int, first: float = FIRST_BETA, last: float = LAST_BETA) -> float:
    """Sharpness of the noise at query `step` of `steps`: geometric from `first` towards `last`."""
    return float(first * (last / first) ** (step / max(1, steps - 1)))


def epistemic_entropy(passes: Tensor) -> Tensor:
    """MONAI Label's entropy of R stochastic passes, `R K *S` to `*S`: values <= 0 count 5e-5; K may be 1."""
    mean = torch.where(passes <= 0, _ENTROPY_FLOOR, passes).mean(dim=0)
    return -(mean * mean.log()).sum(dim=0)


def epistemic_variance(passes: Tensor) -> Tensor:
    """MONAI Label's variance over R stochastic passes, summed over channels, `R K *S` to `*S`; values <= 0 count 5e-4."""
    return torch.where(passes <= 0, _VARIANCE_FLOOR, passes).var(dim=0, unbiased=False).sum(dim=0)


def image_uncertainty(probs: Tensor, labels: Mapping[str, int]) -> dict[str, float]:
    """The rivals' scores of one image from one pass, each in [0, 1], high = uncertain.

    Args:
        probs: `K *S` float.
        labels: class names and indices, without the background.

    Returns:
        `entropy` and `margin`: means over the image of the entropy (in units of ln K) and of 1 - (p1 - p2).
        `clasp` and `clasp NAME`: largest window mean of the entropy, and of it weighted by the probability of a class:
        ClaSP PE with one model and the image as the unit that is asked for.
    """
    entropy = _entropy(probs) / math.log(probs.shape[0])
    gap = (probs[0] - probs[1]).abs() if len(probs) == 2 else -probs.topk(2, dim=0).values.diff(dim=0)[0]
    window = [max(1, round(WINDOW_SHARE * n)) for n in entropy.shape]
    stride = [max(1, side // 4) for side in window]
    terms = {
        "entropy": float(entropy.mean()),
        "margin": float((1 - gap).mean()),
        "clasp": float(box_mean(entropy, window, stride).max()),
    }
    for name, index in labels.items():
        terms[f"clasp {name}"] = float(box_mean(probs[index] * entropy, window, stride).max())
    return terms


def feature_cosine(features: Tensor, foreground: Tensor) -> float:
    """Likeness in [0, 1] of the mean features of foreground and background, ISBI 2024; 0.5 when one of them is empty.

    `features` `P *S`, `foreground` bool `*S`; `(1 + cos) / 2`, so that it is a score of low contrast like the others.
    """
    flat, mask = features.flatten(1).float(), foreground.flatten()
    count = int(mask.sum())
    if count in (0, len(mask)):
        return 0.5
    inside = flat @ mask.to(flat)
    outside = (flat.sum(dim=1) - inside) / (len(mask) - count)
    return float((1 + F.cosine_similarity(inside / count, outside, dim=0)) / 2)


def _entropy(probs: Tensor) -> Tensor:
    """Entropy in nats over the first axis, `K *S` to `*S`."""
    return torch.special.entr(probs).sum(dim=0)
