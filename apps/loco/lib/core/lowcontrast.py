"""How low the contrast of an image is, in named terms, from one teacher pass.

All terms lie in [0, 1], high = low contrast, and are means over a band along the predicted border, so that they do not depend on
the size of the image or of the object (active-learning specification 6.2 to 6.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from lib.core.predict import Prediction

_BAND = 0.0125
"""Half-width of the band as a share of the image's mean side."""
_MIN_PIXELS = 8
_MAX_BAND_PIXELS = 50_000
_DEFAULT_AREA = 0.02
"""Area share of a class that was never seen, for the candidate region of an absent class."""


@dataclass(frozen=True)
class LowContrast:
    """Terms of one image: `stratum` "class/present" or "class/absent"; `embedding` P float32 of unit length."""

    stratum: str
    terms: Mapping[str, float]
    embedding: np.ndarray


def low_contrast(
    prediction: Prediction,
    thresholds: Tensor,
    labels: Mapping[str, int],
    areas: Mapping[str, float] | None = None,
) -> list[LowContrast]:
    """Terms of every class of one image.

    Args:
        prediction: probabilities `K *S` and projection `P *S` of the teacher.
        thresholds: confidence thresholds per class (K) of the same teacher.
        labels: class names and indices, without the background.
        areas: median share of the image that a class fills in labelled images; used when the class is not predicted.

    Returns:
        One entry per class. Present: threshold deficit, margin, feature contrast. Absent: feature contrast and peak of the
        candidate region.
    """
    probs, projection = prediction.probs, prediction.projection.float()
    label = probs.argmax(dim=0)
    radius = _band_radius(prediction)
    entries = []
    for name, index in labels.items():
        region = _without_specks(label == index)
        present = bool(region.any())
        if not present:
            region = _candidate(probs[index], (areas or {}).get(name, _DEFAULT_AREA))
        inner, outer = _band(region, radius)
        contrast = _feature_contrast(projection, inner, outer)
        if present:
            band = inner | outer
            deficit, margin = _confidence_terms(probs, label, band, thresholds)
            terms = {"threshold_deficit": deficit, "margin": margin, "feature_contrast": contrast}
        else:
            terms = {"feature_contrast": contrast, "peak": float(probs[index].max())}
        stratum = f"{name}/{'present' if present else 'absent'}"
        entries.append(LowContrast(stratum, terms, _embedding(projection, region)))
    return entries


def confidence(probs: Tensor) -> float:
    """Mean of the highest class probability over predicted foreground (over everything when there is none), `K *S`."""
    top, label = probs.max(dim=0)
    foreground = label > 0
    return float(top[foreground].mean() if bool(foreground.any()) else top.mean())


def _confidence_terms(probs: Tensor, label: Tensor, band: Tensor, thresholds: Tensor) -> tuple[float, float]:
    """Threshold deficit `mean max(0, (T - q) / (T - 1/K))` and margin `mean (1 - (p1 - p2))` over the band."""
    if not bool(band.any()):
        return 0.0, 0.0
    inside = probs[:, band]
    best = inside.topk(2, dim=0).values
    wanted = thresholds.to(inside)[label[band]]
    deficit = ((wanted - best[0]) / (wanted - 1 / probs.shape[0]).clamp(min=1e-6)).clamp(0, 1)
    return float(deficit.mean()), float((1 - (best[0] - best[1])).mean())


def _feature_contrast(projection: Tensor, inner: Tensor, outer: Tensor) -> float:
    """`0.5 (1 + cos(mean inside, mean outside))` of the projection in the two halves of the band."""
    if not bool(inner.any()) or not bool(outer.any()):
        return 0.5
    means = [F.normalize(_sample(projection, half), dim=0).mean(dim=1) for half in (inner, outer)]
    return float(0.5 * (1 + F.cosine_similarity(means[0], means[1], dim=0)))


def _embedding(projection: Tensor, region: Tensor) -> np.ndarray:
    vectors = F.normalize(_sample(projection, region if bool(region.any()) else torch.ones_like(region)), dim=0)
    return F.normalize(vectors.mean(dim=1), dim=0).numpy().astype(np.float32)


def _sample(projection: Tensor, mask: Tensor) -> Tensor:
    """Projection vectors `P N` at the pixels of a mask, every k-th of them when there are very many."""
    places = torch.nonzero(mask)
    step = -(-len(places) // _MAX_BAND_PIXELS) if len(places) else 1
    return projection[(slice(None), *places[::step].unbind(dim=1))]


def _band_radius(prediction: Prediction) -> list[float]:
    """Half-width of the band in working pixels per axis, at least 1, equal in mm along all axes."""
    spacing = prediction.grid.spacing
    extents = [n * s for n, s in zip(prediction.probs.shape[1:], spacing, strict=True)]
    width = _BAND * float(np.prod(extents)) ** (1 / len(extents))
    return [max(1.0, width / s) for s in spacing]


def _band(region: Tensor, radius: list[float]) -> tuple[Tensor, Tensor]:
    """Inner and outer half of the band around a region: voxels within the ellipsoid `radius` of the border."""
    mask = region.numpy()
    step = [1 / r for r in radius]
    if not mask.any() or mask.all():
        return torch.zeros_like(region), torch.zeros_like(region)
    inner = mask & (ndimage.distance_transform_edt(mask, sampling=step) <= 1 + 1e-6)
    outer = ~mask & (ndimage.distance_transform_edt(~mask, sampling=step) <= 1 + 1e-6)
    return torch.from_numpy(inner), torch.from_numpy(outer)


def _without_specks(region: Tensor) -> Tensor:
    components, count = ndimage.label(region.numpy())
    if count == 0:
        return region
    sizes = np.bincount(components.ravel())
    keep = sizes >= _MIN_PIXELS
    keep[0] = False
    return torch.from_numpy(keep[components])


def _candidate(probability: Tensor, area: float) -> Tensor:
    """Where an unpredicted class would most likely be: the `area` share of pixels with its highest probability."""
    count = int(np.clip(round(area * probability.numel()), _MIN_PIXELS, max(_MIN_PIXELS, probability.numel() // 2)))
    chosen = torch.zeros(probability.numel(), dtype=torch.bool)
    chosen[probability.flatten().topk(min(count, probability.numel())).indices] = True
    return chosen.reshape(probability.shape)
