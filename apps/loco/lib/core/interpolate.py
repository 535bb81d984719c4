"""What linear upsampling (`align_corners=True`) does to a projection, without ever making the upsampled projection.

Upsampling is linear and separable: z(x) = sum_a w_a(x) z_a over the 2^d corners a of the cell around x. So
class means need its transpose on the masks (`spread`), inner products with a fixed vector need scalar maps only
(`upsample`), and |z(x)|^2 = sum_ab w_a w_b <z_a, z_b> needs inner products of vectors of one cell (`squared_length`).
All functions take 2D and 3D; with equal sizes they reduce to the plain operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def axis_weights(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Left neighbour, int64, and weight of the right one, float32, for each of the `target` positions of an axis."""
    if target == 1 or source == 1:
        return torch.zeros(target, dtype=torch.long, device=device), torch.zeros(target, device=device)
    numerator = torch.arange(target, device=device) * (source - 1)
    low = (numerator // (target - 1)).clamp(max=source - 2)
    return low, (numerator - low * (target - 1)).float() / (target - 1)


def _matrix(low: Tensor, weights: Sequence[Tensor], source: int) -> Tensor:
    """(target, source) float32 with `weights[i]` at column `low + i`; a column past the end has weight 0 and is cut."""
    matrix = torch.zeros(len(low), source + len(weights), device=low.device)
    for i, weight in enumerate(weights):
        matrix.scatter_(1, (low + i)[:, None], weight[:, None])
    return matrix[:, :source]


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply an axis of `x` by `matrix`. No axis is moved to the end for it, which would copy `x` there and back."""
    if axis == x.ndim - 1:
        return x @ matrix.T
    rows = x.flatten(axis + 1).flatten(0, axis - 1)
    product = torch.bmm(matrix.expand(len(rows), -1, -1), rows)
    return product.view(*x.shape[:axis], len(matrix), *x.shape[axis + 1 :])


def upsample(x: Tensor, target: Sequence[int]) -> Tensor:
    """`x` `B C h w [d]` float to `B C H W [D]`, bilinear or trilinear with aligned corners."""
    if tuple(x.shape[2:]) == tuple(target):
        return x
    return F.interpolate(x, tuple(target), mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=True)


def spread(x: Tensor, source: Sequence[int]) -> Tensor:
    """Transpose of `upsample`: `x` `B C H W [D]` float to `B C h w [d]`, so that <x, upsample(z)> = <spread(x), z>."""
    if tuple(x.shape[2:]) == tuple(source):
        return x
    for axis, (small, large) in enumerate(zip(source, x.shape[2:], strict=True), start=2):
        low, right = axis_weights(small, large, x.device)
        x = _along(x, axis, _matrix(low, [1 - right, right], small).T)
    return x


def squared_length(grams: Tensor, target: Sequence[int]) -> Tensor:
    """|z|^2 at each pixel of the upsampled projection, `B H W [D]`, from the second result of `products`.

    With right weight t, an axis contributes (1-t)^2 and t^2 where both corners agree on it, t(1-t) where they differ.
    """
    source = grams.shape[2:]
    if tuple(source) == tuple(target):
        return grams[:, 0]
    axes = [axis_weights(s, t, grams.device) for s, t in zip(source, target, strict=True)]
    straight = [_matrix(low, [(1 - t) ** 2, t**2], s) for (low, t), s in zip(axes, source, strict=True)]
    across = [_matrix(low, [t * (1 - t)], s) for (low, t), s in zip(axes, source, strict=True)]
    maps = dict(zip(_crossings(len(axes)), grams.unbind(1), strict=True))
    for axis in reversed(range(len(axes))):  # halves the number of maps before the next axis makes them larger
        maps = {
            crossed: _along(alike, axis + 1, straight[axis]) + _along(maps[*crossed, axis], axis + 1, across[axis])
            for crossed, alike in maps.items()
            if axis not in crossed
        }
    return maps[()]


def products(z: Tensor, weights: Tensor, means: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """All the contrast needs to know of a projection, differentiable, with a single gradient buffer.

    `z`: `B P h w [d]` float32. `means`: (K, P). Labelled projection: `weights` (B, K, n), n = h*w[*d], and `means` the
    sum of weights * z, computed before; the result's gradient reaches z through it. Otherwise `weights` is (B, 0, n)
    and the gradient goes to `means`. Returns `means`, their inner products with z `B K h w [d]`, and inner products of
    neighbouring vectors `B G h w [d]` for `squared_length` (G = 1 if the sizes are equal, else 2^d).
    """
    return _Products.apply(z, weights, means, tuple(z.shape[2:]) != tuple(target))


class _Products(torch.autograd.Function):
    """See `products`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weights: Tensor, means: Tensor, small: bool) -> tuple[Tensor, Tensor, Tensor]:
        z = z.contiguous()
        ctx.save_for_backward(z, weights, means)
        ctx.small = small
        dots = torch.bmm(means.expand(len(z), -1, -1), z.flatten(2)).view(len(z), -1, *z.shape[2:])
        crossings = _crossings(z.ndim - 2) if small else [()]
        grams = z.new_zeros(len(z), len(crossings), *z.shape[2:])
        flat, maps = z.flatten(2), grams.flatten(2)
        for i, crossed in enumerate(crossings):
            for a, b in _corner_pairs(crossed, z.shape[2:]):
                out, first, second = _shifted((maps[:, i], 0), (flat, a), (flat, b))
                for c in range(z.shape[1]):  # one channel at a time, so that the products are never stored
                    out.addcmul_(first[:, c], second[:, c], value=2.0 if crossed else 1.0)
        return means.clone(), dots, grams

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, g_means: Tensor, g_dots: Tensor, g_grams: Tensor
    ) -> tuple[Tensor, None, Tensor | None, None]:
        z, weights, means = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            g_dots = g_dots.flatten(2)
            g_means = g_means + (g_dots @ z.flatten(2).mT).sum(0)
            left = torch.cat([means, g_means]) if weights.shape[1] else means
            grad = torch.bmm(left.T.expand(len(z), -1, -1), torch.cat([g_dots, weights], 1)).view_as(z)
        crossings, maps = _crossings(z.ndim - 2) if ctx.small else [()], g_grams.flatten(2)
        # On a CPU one channel after the other: its maps stay in the cache until all pairs are added.
        step = 1 if z.device.type == "cpu" else z.shape[1]
        for flat, out in zip(z.flatten(2).split(step, 1), grad.flatten(2).split(step, 1), strict=True):
            for i, crossed in enumerate(crossings):
                for a, b in _corner_pairs(crossed, z.shape[2:]):
                    g, z_a, z_b, out_a, out_b = _shifted(
                        (maps[:, i, None], 0), (flat, a), (flat, b), (out, a), (out, b)
                    )
                    out_a.addcmul_(z_b, g, value=2)
                    if crossed:
                        out_b.addcmul_(z_a, g, value=2)
        return grad, None, None if weights.shape[1] else g_means, None


def _crossings(dims: int) -> list[tuple[int, ...]]:
    """All sets of axes on which two corners of a cell can differ; the empty one first."""
    return list(chain.from_iterable(combinations(range(dims), n) for n in range(dims + 1)))


def _corner_pairs(crossed: tuple[int, ...], shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Flat distances from a cell's first corner to both of each pair of corners that differ on exactly the axes `crossed`.

    Each pair comes once. `shape`: of the grid.
    """
    steps = [math.prod(shape[axis + 1 :]) for axis in crossed]
    for bits in product((0, 1), repeat=max(0, len(crossed) - 1)):
        first = sum(step for step, bit in zip(steps, (0, *bits), strict=False) if bit)
        if sum(steps) < math.prod(shape):  # else an axis has one pixel, and no cell
            yield first, sum(steps) - first


def _shifted(*maps: tuple[Tensor, int]) -> list[Tensor]:
    """Flat maps `... n`, each from its distance on, all cut to the same length.

    Contiguous pieces are several times as fast as pieces of a grid. They wrap around at the last pixel of a crossed
    axis: no cell begins there, and `squared_length` gives what is found there the weight 0.
    """
    length = maps[0][0].shape[-1] - max(distance for _, distance in maps)
    return [x.narrow(-1, distance, length) for x, distance in maps]


def sampler(z: Tensor, target: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Upsampling of one image at chosen pixels only: a function of places (M, d) int64 in the `target` grid to (M, C).

    `z`: `C h w [d]` float, without gradient.
    """
    source, flat = z.shape[1:], z.flatten(1)
    if tuple(source) == tuple(target):
        return lambda places: flat.index_select(1, _flat(places, source)).T.contiguous()
    vectors = flat.T.contiguous()
    axes = [axis_weights(small, large, z.device) for small, large in zip(source, target, strict=True)]

    def sample(places: Tensor) -> Tensor:
        corners, weights = [torch.zeros_like(places[:, 0])], [1.0]
        for at, small, (low, right) in zip(places.T, source, axes, strict=True):
            first, weight = low.index_select(0, at), right.index_select(0, at)
            corners = [c * small + x for c in corners for x in (first, (first + 1).clamp_(max=small - 1))]
            weights = [w * x for w in weights for x in (1 - weight, weight)]
        pairs = torch.stack(corners).T.contiguous(), torch.stack(weights).T.contiguous()
        return F.embedding_bag(pairs[0], vectors, per_sample_weights=pairs[1], mode="sum")

    return sample


def _flat(places: Tensor, shape: Sequence[int]) -> Tensor:
    """Flat positions (M) of `places` (M, d) in a grid."""
    position = torch.zeros_like(places[:, 0])
    for at, n in zip(places.T, shape, strict=True):
        position = position * n + at
    return position
