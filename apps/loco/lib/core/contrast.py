"""Hard-pixel contrast of LoCo, arXiv 2412.02314: class prototypes against the pixels that are hard to tell.

Inter-class enhancement (ICE) takes pixels unlike the prototype of their own class, boundary enhancement (BCE) takes
pixels of class borders unlike a neighbour. One code for 2D and 3D, at the resolution of the labels, whatever that of
the projection. The loss is a function of cosines only, so it needs a few scalar maps and never gathers a vector.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lib.core.interpolate import products, spread, squared_length, upsample
from lib.core.sampling import SMALL, foreground_boundary, least_similarity, lowest_per_class
from lib.core.spec import IGNORE, ContrastSpec


class _Pool(NamedTuple):
    """Where hard pixels are looked for: the labelled pixels or the trusted unlabelled ones."""

    label_ice: Tensor
    """`B H W [D]` uint8, 255 = not to be taken."""
    label_bce: Tensor
    counts: list[int]
    """Pixels of each class in `label_ice`."""
    pixels: int
    """Size of the pool, of which the quota of ICE is a share; the labelled one counts ignored pixels too."""


def contrast_loss(
    projection_l: Tensor,
    label_l: Tensor,
    projection_u: Tensor,
    logits_u: Tensor,
    ignore_u: Tensor | None,
    threshold: Tensor,
    spec: ContrastSpec,
) -> Tensor:
    """Contrast between class prototypes and hard pixels, a float32 scalar, also under autocast.

    `projection_l`, `projection_u`: `B P h w [d]` float; sizes below those of the labels mean the linear upsampling with
    aligned corners, which is never carried out. `label_l`: `B H W [D]` integer, 255 = ignore.
    `logits_u`: `B K H W [D]`, the teacher's, used without gradient. `ignore_u`: `B H W [D]`, 255 = padded, or None.
    `threshold`: (K), of the confidence of `logits_u`.
    Zero, with zero gradients, when no labelled pixel or no hard pixel exists.
    Raises `ValueError` on shapes or labels that do not fit.
    """
    _check(projection_l, label_l, projection_u, logits_u, ignore_u, threshold)
    with torch.autocast(projection_l.device.type, enabled=False):
        z_l, z_u = projection_l.float(), projection_u.float()
        with torch.no_grad():
            label_l = label_l.to(torch.uint8)
            for_ice, for_bce = confident_labels(logits_u, ignore_u, threshold, spec)
            counts_l, counts_u = _class_counts((label_l, for_ice), classes=logits_u.shape[1])
            classes = [c for c, n in enumerate(counts_l) if n]
            weights, means = _class_means(z_l, label_l, {c: counts_l[c] for c in classes})
        if not classes:
            return 0.0 * (z_l.mean() + z_u.mean())
        pool_l = _Pool(label_l, label_l, counts_l, label_l.numel())
        pool_u = _Pool(for_ice, for_bce, counts_u, sum(counts_u))
        anchors, *similarity_l = products(z_l, weights, means, label_l.shape[1:])
        _, *similarity_u = products(z_u, weights.new_zeros(len(z_u), 0, z_u[0, 0].numel()), anchors, label_l.shape[1:])
        chosen_l = _hard_cosines(z_l, anchors, similarity_l, pool_l, classes, spec)
        chosen_u = _hard_cosines(z_u, anchors, similarity_u, pool_u, classes, spec)
        cosine, label = (torch.cat(pair, -1) for pair in zip(chosen_l, chosen_u, strict=True))
        if cosine.numel() == 0:
            return 0.0 * (z_l.mean() + z_u.mean())
        return anchored_contrast(cosine, label, classes, temperature=spec.temperature)


def confident_labels(
    logits: Tensor, ignore: Tensor | None, threshold: Tensor, spec: ContrastSpec
) -> tuple[Tensor, Tensor]:
    """Labels of the teacher for ICE and for BCE, each `B H W [D]` uint8 with 255 where it is not trusted.

    A pixel is trusted when its confidence exceeds the threshold of its class. ICE never takes padded pixels; BCE takes
    them if `spec.bce_respects_padding` is False.
    """
    confidence, label = logits.float().softmax(1).max(1)
    bars = threshold if spec.fixed_threshold is None else torch.full_like(threshold, spec.fixed_threshold)
    bar = bars.to(confidence).index_select(0, label.flatten()).view_as(label)  # a tenth of the time of `bars[label]`
    trusted = label.to(torch.uint8).masked_fill_(confidence <= bar, IGNORE)
    if ignore is None:
        return trusted, trusted
    inside = trusted.masked_fill(ignore == IGNORE, IGNORE)
    return inside, inside if spec.bce_respects_padding else trusted


def anchored_contrast(cosine: Tensor, label: Tensor, classes: list[int], *, temperature: float) -> Tensor:
    """InfoNCE with a prototype as anchor, every positive against all negatives but no other positive. Float32 scalar.

    `cosine`: (K', M) float32, of the prototypes of `classes` with the chosen pixels; `label`: (M) integer, the pixels'.
    With s = cosine / temperature: mean over k of the mean over j in Pos_k of log(e^s_kj + sum_n e^s_kn) - s_kj, n over
    the pixels of other classes than k. Pixels of class k equal to its prototype are not in Pos_k.

    >>> round(float(anchored_contrast(torch.zeros(2, 2), torch.tensor([0, 1]), [0, 1], temperature=0.1)), 4)
    0.6931
    """
    s = cosine / temperature
    same = label == torch.tensor(classes, device=label.device)[:, None]
    positive = same & (1 - cosine.detach() > 1e-6)
    negatives = s.masked_fill(same, -1e30).logsumexp(1, keepdim=True)
    terms = torch.nn.functional.softplus(negatives - s) * positive
    return (terms.sum(1) / (positive.sum(1) + 1e-6)).mean()


def quota(pixels: int, rate: float, classes: int) -> int:
    """ICE pixels of each class, floor(pixels * rate / classes).

    >>> quota(1000, 0.1, 3)
    33
    """
    return int(pixels * rate / classes) if classes else 0


def _class_counts(labels: tuple[Tensor, ...], *, classes: int) -> list[list[int]]:
    """Pixels of each class in each map, with one transfer to the host. Raises `ValueError` on other values than 255."""
    counts = torch.stack([torch.stack([(x == c).sum() for c in (*range(classes), IGNORE)]) for x in labels]).tolist()
    if sum(counts[0]) != labels[0].numel():
        raise ValueError(
            f"expected `label_l` to hold 0 to {classes - 1} and {IGNORE}, but got other values; "
            "map the labels to the classes of the network"
        )
    return [c[:-1] for c in counts]


def _class_means(z: Tensor, label: Tensor, counts: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Mean upsampled vector of each class in `counts`, (K', P), and what z was weighted with to get it, (B, K', n)."""
    masks = torch.zeros((len(z), len(counts), *label.shape[1:]), device=z.device)
    for i, (c, n) in enumerate(counts.items()):
        masks[:, i] = (label == c) / n
    weights = spread(masks, z.shape[2:]).flatten(2)
    return weights, (weights @ z.flatten(2).mT).sum(0)


def _hard_cosines(
    z: Tensor, anchors: Tensor, similarity: list[Tensor], pool: _Pool, classes: list[int], spec: ContrastSpec
) -> tuple[Tensor, Tensor]:
    """Cosines of all prototypes with the hard pixels of one pool, (K', M) float32 with gradient, and their labels (M).

    `similarity`: inner products of `z` with the prototypes and with itself, as `products` gives them.
    """
    dots, grams = similarity
    size = pool.label_ice.shape[1:]
    dots = upsample(dots, size).movedim(1, 0).flatten(1)
    squares = squared_length(grams, size).flatten()
    with torch.no_grad():
        pixels = []
        if spec.ice:
            pixels.append(_ice_pixels(dots * squares.clamp(min=SMALL**2).rsqrt(), pool, classes, spec))
        if spec.bce and classes:
            pixels.append(_bce_pixels(z, pool.label_bce, len(pool.counts), spec))
        chosen = torch.cat([*pixels, torch.zeros(0, dtype=torch.long, device=z.device)])
    lengths = squares[chosen].clamp(min=SMALL**2).sqrt()
    scale = torch.linalg.vector_norm(anchors, dim=1).clamp(min=SMALL)
    return dots[:, chosen] / lengths / scale[:, None], pool.label_bce.flatten()[chosen]


def _ice_pixels(score: Tensor, pool: _Pool, classes: list[int], spec: ContrastSpec) -> Tensor:
    """For each class the pixels least like its prototype. `score`: (K', N), cosines times the prototype's length."""
    most = quota(pool.pixels, spec.ice_rate, len(classes))
    keep = {c: min(most, pool.counts[c]) for c in classes}
    return lowest_per_class(dict(zip(classes, score, strict=True)), pool.label_ice.flatten(), keep)


def _bce_pixels(z: Tensor, label: Tensor, classes: int, spec: ContrastSpec) -> Tensor:
    """The share `spec.bce_rate` of each foreground class's boundary that is least (or most) similar to a neighbour."""
    boundary = foreground_boundary(label, spec)
    label = label.masked_fill(~boundary, IGNORE)
    score = least_similarity(z, boundary).flatten()
    if spec.bce_keep == "most_similar":
        score = -score
    (counts,) = _class_counts((label,), classes=classes)
    keep = {c: int(counts[c] * spec.bce_rate) for c in range(1, classes)}
    return lowest_per_class(dict.fromkeys(keep, score), label.flatten(), keep)


def _check(
    projection_l: Tensor,
    label_l: Tensor,
    projection_u: Tensor,
    logits_u: Tensor,
    ignore_u: Tensor | None,
    threshold: Tensor,
) -> None:
    dims = label_l.ndim - 1
    if dims not in (2, 3):
        raise ValueError(
            f"expected `label_l` to be of shape B H W [D], but got {tuple(label_l.shape)}; drop the channel axis"
        )
    size = tuple(label_l.shape[1:])
    for name, z, batch in (("projection_l", projection_l, len(label_l)), ("projection_u", projection_u, len(logits_u))):
        fits = z.ndim == dims + 2 and len(z) == batch and all(s <= t for s, t in zip(z.shape[2:], size, strict=True))
        if not fits or z.shape[1] != projection_l.shape[1]:
            raise ValueError(
                f"expected `{name}` to be of shape {batch} P h w [d], at most {size}, but got {tuple(z.shape)}; "
                "pass the projection of the same crops, at the network's resolution"
            )
    _expect("logits_u", logits_u, (len(logits_u), logits_u.shape[1], *size))
    if ignore_u is not None:
        _expect("ignore_u", ignore_u, (len(logits_u), *size))
    _expect("threshold", threshold, (logits_u.shape[1],))


def _expect(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(x.shape) != shape:
        raise ValueError(
            f"expected `{name}` to be of shape {shape}, but got {tuple(x.shape)}; pass maps of one crop size"
        )
