"""How low the contrast of an image is, in named terms, from one teacher pass.

All terms lie in [0, 1], high = low contrast, and are means over a band along the predicted border. The band is as wide as a
fixed share of the field of view, in mm or, for pictures, in pixels; what lies outside of the field of view (black corners,
padding) is in no band. So the terms depend neither on the size of the image or the object nor on padding or resampling
(active-learning specification 6.2 to 6.4). 2D and 3D in one code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from lib.core.predict import Prediction, likeliest
from lib.core.uncertainty import feature_cosine, image_uncertainty

_BAND = 0.0125
"""Half-width of the band as a share of the mean side of the field of view."""
_MIN_PIXELS = 8
_SPECK = 0.01
"""Smaller components than this share of the class's median size are no finding."""
_MAX_BAND_PIXELS = 50_000
_DEFAULT_AREA = 0.02
"""Area share of a class that was never seen, for the candidate region of an absent class."""
_DARK = 0.05
"""Black corners and masks that reach the edge of a picture are outside its field of view."""
_FLAT = 1e-6
_THIN = 4
"""Means over a whole image look at every fourth pixel along an axis: the projection has no more detail than that."""


@dataclass(frozen=True)
class LowContrast:
    """Terms of one class in one image: `stratum` is "NAME/present" or "NAME/absent"."""

    stratum: str
    terms: Mapping[str, float]


@dataclass(frozen=True)
class ImageScore:
    """All that one teacher pass says of an image.

    `classes`: low-contrast terms, one entry per class. `rivals`: other scores of the same pass (`image_uncertainty`,
    `feature_cosine`, and `border`, the predicted border's length in units of the field of view).
    `embedding`: (K + 1) P float32 of unit length: mean projection of the field of view, then of each class.
    """

    classes: tuple[LowContrast, ...]
    rivals: Mapping[str, float]
    embedding: np.ndarray

    def terms(self) -> dict[str, float]:
        """All terms by the names under which they are stored: "polyp/present/margin", "image/entropy"."""
        named = {f"{entry.stratum}/{name}": value for entry in self.classes for name, value in entry.terms.items()}
        return named | {f"image/{name}": value for name, value in self.rivals.items()}


@dataclass(frozen=True)
class _Band:
    """Places along a border: indices `N d`, weights in (0, 1] (N float), which of them lie inside (N bool).

    `content`: sum of the weights of all places, also of those that were left out of a large band.
    """

    places: Tensor
    weights: Tensor
    inside: Tensor
    content: float

    def of(self, values: Tensor) -> Tensor:
        """`C *S` to `C N` float32."""
        # the networks' maps are channels last: this way whole vectors are copied
        return values.movedim(0, -1)[self.places.unbind(dim=1)].float().T

    def halves(self) -> tuple[Tensor, Tensor]:
        """Weights of the inner and of the outer half, each of sum 1, or of sum 0 where a half is empty (N float)."""
        parts = self.weights * self.inside, self.weights * ~self.inside
        return tuple(part / part.sum().clamp(min=1e-12) for part in parts)


def score_image(
    prediction: Prediction,
    thresholds: Tensor,
    labels: Mapping[str, int],
    areas: Mapping[str, float] | None = None,
    field: Tensor | None = None,
) -> ImageScore:
    """Low-contrast terms of every class, the rivals' scores and the embedding, from one teacher pass.

    Args:
        prediction: probabilities `K *S` and projection `P *S` of the teacher.
        thresholds: confidence thresholds per class (K) of the same teacher.
        labels: class names and indices, without the background.
        areas: median share of the field of view that a class fills in labelled images, from `median_areas`.
        field: field of view, bool `*S`, from `field_of_view`; None: the whole image.

    Returns:
        Per class, when present: threshold deficit, margin, feature contrast; when absent: feature contrast and peak of the
        candidate region.
    """
    probs, projection = prediction.probs, prediction.projection
    field = torch.ones(probs.shape[1:], dtype=torch.bool) if field is None else field
    label = likeliest(probs)
    radius = band_radius(field, prediction.grid.spacing)
    classes, border = [], 0.0
    for name, index in labels.items():
        expected = (areas or {}).get(name, _DEFAULT_AREA) * float(field.sum())
        region = _without_specks((label == index) & field, max(_MIN_PIXELS, _SPECK * expected))
        present = bool(region.any())
        band = _band(region if present else _candidate(probs[index], expected, field), field, radius)
        terms = {"feature_contrast": _feature_contrast(projection, band)}
        if present:
            terms = _confidence_terms(probs, band, thresholds) | terms
            border += _border_length(band, radius, field)
        else:
            terms["peak"] = float(probs[index][field].max())
        classes.append(LowContrast(f"{name}/{'present' if present else 'absent'}", terms))
    thin = tuple(slice(None, None, _THIN if n > _THIN * _MIN_PIXELS else None) for n in label.shape)
    features = projection[(slice(None), *thin)].float()
    cosine = feature_cosine(features, label[thin] > 0)
    rivals = image_uncertainty(probs, labels) | {"feature_cosine": cosine, "border": border}
    return ImageScore(tuple(classes), rivals, _embedding(features, probs[(slice(None), *thin)], field[thin]))


def low_contrast_band(prediction: Prediction, labels: Mapping[str, int], field: Tensor | None = None) -> Tensor:
    """Where `score_image` looks, to be shown: `*S` float32 in [0, 1].

    Zero outside of the bands of all classes; inside the margin `1 - (p1 - p2)` of each place, the highest of several bands.
    Of classes that were not found, the band of the candidate region. Arguments as `score_image`, whose areas are not known
    here: specks and candidate regions may differ a little from those of the score.
    """
    probs = prediction.probs
    field = torch.ones(probs.shape[1:], dtype=torch.bool) if field is None else field
    label, expected = probs.argmax(dim=0), _DEFAULT_AREA * float(field.sum())
    radius = band_radius(field, prediction.grid.spacing)
    best = probs.topk(2, dim=0).values
    shown = torch.zeros(probs.shape[1:])
    for index in labels.values():
        region = _without_specks((label == index) & field, max(_MIN_PIXELS, _SPECK * expected))
        region = region if bool(region.any()) else _candidate(probs[index], expected, field)
        band = _band(region, field, radius, most=region.numel())
        where = band.places.unbind(dim=1)
        shown[where] = torch.maximum(shown[where], (1 - (best[0] - best[1]))[where] * band.weights)
    return shown


def field_of_view(image: Tensor, picture: bool) -> Tensor:
    """Where an image `C *S` in [0, 1] shows something, bool `*S`.

    Outside are leading and trailing lines of one value (padding) and, in a picture, dark pixels that are connected to its
    edge (black corners and masks). In a volume air and lung are as dark, and count. An image without any content is inside.
    """
    grey = image.float().mean(dim=0).numpy()
    inside = np.zeros(grey.shape, dtype=bool)
    inside[tuple(_content(grey, axis) for axis in range(grey.ndim))] = True
    if picture:
        dark, _ = ndimage.label(grey <= _DARK)
        edges = [np.take(dark, end, axis=axis) for axis in range(dark.ndim) for end in (0, -1)]
        touching = np.unique(np.concatenate([edge.ravel() for edge in edges]))
        inside &= ~np.isin(dark, touching[touching > 0])
    return torch.from_numpy(inside if inside.any() else np.ones_like(inside))


def confidence(probs: Tensor, label: Tensor) -> float:
    """Mean of the highest class probability `K *S` over the foreground of `label` `*S`; over everything when there is none."""
    top, foreground = probs.amax(dim=0), label > 0
    count = int(foreground.sum())
    return float((top * foreground).sum(dtype=torch.float64)) / count if count else float(top.mean())


def band_radius(field: Tensor, spacing: Sequence[float]) -> list[float]:
    """Half-width of the band in working pixels per axis, at least 1, equal in mm along all axes; `field` bool `*S`."""
    width = _BAND * (float(field.sum()) * float(np.prod(spacing))) ** (1 / field.ndim)
    return [max(1.0, width / s) for s in spacing]


def _content(grey: np.ndarray, axis: int) -> slice:
    """From the first to the last line across `axis` that is not of one value; everything when there is none."""
    others = tuple(a for a in range(grey.ndim) if a != axis)
    varied = np.flatnonzero(grey.max(axis=others) - grey.min(axis=others) > _FLAT)
    return slice(int(varied[0]), int(varied[-1]) + 1) if len(varied) else slice(None)


def _confidence_terms(probs: Tensor, band: _Band, thresholds: Tensor) -> dict[str, float]:
    """Threshold deficit `mean max(0, (T - q) / (T - 1/K))` and margin `mean (1 - (p1 - p2))` over the band."""
    if not len(band.weights):
        return {"threshold_deficit": 0.0, "margin": 0.0}
    best, found = band.of(probs).topk(2, dim=0)
    wanted = thresholds.to(best)[found[0]]
    deficit = ((wanted - best[0]) / (wanted - 1 / probs.shape[0]).clamp(min=1e-6)).clamp(0, 1)
    weights = band.weights / band.weights.sum()
    return {
        "threshold_deficit": float((weights * deficit).sum()),
        "margin": float((weights * (1 - (best[0] - best[1]))).sum()),
    }


def _feature_contrast(projection: Tensor, band: _Band) -> float:
    """`0.5 (1 + cos(mean inside, mean outside))` of features of unit length (6.3); 0.5 when one of the halves is empty."""
    inner, outer = band.halves()
    if not bool(inner.any()) or not bool(outer.any()):
        return 0.5
    # in float64: features of a young model lie in a narrow cone, where float32 leaves little of 1 minus a cosine
    features = _unit(band.of(projection).double())
    means = features @ torch.stack([inner, outer], dim=1).double()
    return float(0.5 * (1 + F.cosine_similarity(means[:, 0], means[:, 1], dim=0)))


def _unit(features: Tensor) -> Tensor:
    """Columns of `P N` float at length 1; those of zeros stay. `F.normalize` takes over three times as long on a CPU."""
    return features * features.square().sum(dim=0).clamp(min=1e-24).rsqrt()


def _border_length(band: _Band, radius: Sequence[float], field: Tensor) -> float:
    """Content of the band over its width, in units of the field of view (2D: its mean side; 3D: that squared)."""
    width = 2 * float(np.prod(radius)) ** (1 / len(radius))
    return band.content / width / float(field.sum()) ** (1 - 1 / field.ndim)


def _embedding(features: Tensor, probs: Tensor, field: Tensor) -> np.ndarray:
    """Mean feature of the field of view and, weighted by its probability, of each class in it.

    `P *S`, `K *S` and bool `*S` to (K + 1) P float32. What lies outside would make images alike, or odd, by their borders.
    """
    inside = field if bool(field.any()) else torch.ones_like(field)
    flat = _unit(features[:, inside])
    weights = torch.cat([torch.ones(1, flat.shape[1]), probs[:, inside]])
    means = F.normalize(flat @ weights.T, dim=0)
    return F.normalize(means.T.flatten(), dim=0).numpy().astype(np.float32)


def _band(region: Tensor, field: Tensor, radius: Sequence[float], most: int | None = None) -> _Band:
    """Places of the field within the ellipsoid `radius` of the border of a region; of more than `most` (50,000) every n-th.

    A ring that lies only partly within the radius has the part as its weight: so a band of 1.6 pixels is 1.6 wide, and the
    same image on a finer grid has the same band.
    """
    mask = region.numpy()
    box = _box(mask, radius)
    step = [1 / r for r in radius]
    ring = float(np.mean(step))
    inside = mask[box]
    outside = field.numpy()[box] & ~inside
    if not mask.any() or not outside.any():
        return _Band(torch.zeros(0, mask.ndim, dtype=torch.long), torch.zeros(0), torch.zeros(0, dtype=torch.bool), 0.0)
    distance = np.where(
        inside,
        ndimage.distance_transform_edt(~outside, sampling=step),
        ndimage.distance_transform_edt(~inside, sampling=step),
    )
    weights = np.clip((1 - distance) / ring + 1, 0, 1) * (inside | outside)
    places = np.argwhere(weights > _FLAT)
    places = places[:: max(1, -(-len(places) // (most or _MAX_BAND_PIXELS)))]
    index = tuple(places.T)
    start = np.array([s.start for s in box])
    return _Band(
        torch.from_numpy(places + start),
        torch.from_numpy(weights[index]).float(),
        torch.from_numpy(inside[index]),
        float(weights.sum()),
    )


def _box(mask: np.ndarray, radius: Sequence[float]) -> tuple[slice, ...]:
    """Bounding box of a mask and its band."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return tuple(slice(0, n) for n in mask.shape)
    margins = [int(np.ceil(r)) + 1 for r in radius]
    return tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(found[0], margins, mask.shape, strict=True)
    )


def _without_specks(region: Tensor, least: float) -> Tensor:
    components, count = ndimage.label(region.numpy())
    if count == 0:
        return region
    sizes = np.bincount(components.ravel())
    keep = sizes >= least
    keep[0] = False
    return torch.from_numpy(keep[components])


def _candidate(probability: Tensor, expected: float, field: Tensor) -> Tensor:
    """Where an unpredicted class would most likely be: the `expected` number of pixels with its highest probability."""
    inside = field.flatten().nonzero()[:, 0]
    count = int(np.clip(round(expected), min(_MIN_PIXELS, len(inside)), max(_MIN_PIXELS, len(inside) // 2)))
    chosen = torch.zeros(probability.numel(), dtype=torch.bool)
    chosen[inside[probability.flatten()[inside].topk(min(count, len(inside))).indices]] = True
    return chosen.reshape(probability.shape)
