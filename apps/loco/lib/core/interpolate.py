"""What linear upsampling (`align_corners=True`) does to a projection, without ever making the upsampled projection.

Upsampling is linear and separable: z(x) = sum_a w_a(x) z_a over the 2^d corners a of the cell around x. So
class means need its transpose on the masks (`spread`), inner products with a fixed vector need scalar maps only
(`upsample`), and |z(x)|^2 = sum_ab w_a w_b <z_a, z_b> needs inner products of vectors of one cell (`squared_length`).
All functions take 2D and 3D; with equal sizes they reduce to the plain operation.
"""

from __future__ import annotations

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


def _along_axes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply the i-th spatial axis of `x` (`B C ...`) by the i-th matrix."""
    for axis, matrix in enumerate(matrices, start=2):
        x = (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return x


def upsample(x: Tensor, target: Sequence[int]) -> Tensor:
    """`x` `B C h w [d]` float to `B C H W [D]`, bilinear or trilinear with aligned corners."""
    if tuple(x.shape[2:]) == tuple(target):
        return x
    return F.interpolate(x, tuple(target), mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=True)


def spread(x: Tensor, source: Sequence[int]) -> Tensor:
    """Transpose of `upsample`: `x` `B C H W [D]` float to `B C h w [d]`, so that <x, upsample(z)> = <spread(x), z>."""
    if tuple(x.shape[2:]) == tuple(source):
        return x
    matrices = []
    for small, large in zip(source, x.shape[2:], strict=True):
        low, right = axis_weights(small, large, x.device)
        matrices.append(_matrix(low, [1 - right, right], small).T)
    return _along_axes(x, matrices)


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
    maps = [
        _along_axes(grams[:, i, None], [across[a] if a in crossed else straight[a] for a in range(len(axes))])
        for i, crossed in enumerate(_crossings(len(axes)))
    ]
    return torch.stack(maps).sum(0)[:, 0]


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
        ctx.save_for_backward(z, weights, means)
        ctx.small = small
        dots = torch.bmm(means.expand(len(z), -1, -1), z.flatten(2)).view(len(z), -1, *z.shape[2:])
        crossings = _crossings(z.ndim - 2) if small else [()]
        grams = z.new_zeros(len(z), len(crossings), *z.shape[2:])
        for i, crossed in enumerate(crossings):
            for a, b, corner in _cell_pairs(z, crossed):
                _add_inner(corner(grams[:, i]), a, b, 2.0 if crossed else 1.0)
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
        for i, crossed in enumerate(_crossings(z.ndim - 2) if ctx.small else [()]):
            pairs = zip(_cell_pairs(grad, crossed), _cell_pairs(z, crossed), strict=True)
            for (grad_a, grad_b, corner), (a, b, _) in pairs:
                g = corner(g_grams[:, i])[:, None]
                grad_a.addcmul_(b, g, value=2)
                if crossed:
                    grad_b.addcmul_(a, g, value=2)
        return grad, None, None if weights.shape[1] else g_means, None


def _crossings(dims: int) -> list[tuple[int, ...]]:
    """All sets of axes on which two corners of a cell can differ; the empty one first."""
    return list(chain.from_iterable(combinations(range(dims), n) for n in range(dims + 1)))


def _cell_pairs(x: Tensor, crossed: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]]:
    """Views of `x` (`B C h w [d]`) at both ends of each pair of corners that differ on exactly the axes `crossed`.

    Each pair comes once, with the function that cuts a map `B h w [d]` to the cells' first corners.
    """

    def first(m: Tensor) -> Tensor:
        for axis in crossed:
            m = m.narrow(1 + axis, 0, x.shape[2 + axis] - 1)
        return m

    for bits in product((0, 1), repeat=max(0, len(crossed) - 1)):
        a, b = x, x
        for axis, bit in zip(crossed, (0, *bits), strict=False):
            length = x.shape[2 + axis] - 1
            a, b = a.narrow(2 + axis, bit, length), b.narrow(2 + axis, 1 - bit, length)
        yield a, b, first


def _add_inner(out: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """Add factor * <a, b> over channels to `out`, one channel at a time so that the product is never stored."""
    for c in range(a.shape[1]):
        out.addcmul_(a[:, c], b[:, c], value=factor)


def blocks_at(z: Tensor, start: Tensor, side: int, target: Sequence[int]) -> Tensor:
    """Upsampled vectors of cubic blocks of one image, (T, C, side^d). Beyond the edge the edge pixel goes on.

    `z`: `C h w [d]` float; `start`: (T, d) int64, first pixels of the blocks in the `target` grid.
    """
    source, dims = z.shape[1:], len(target)
    steps = torch.arange(side, device=z.device)
    pixels = [(start[:, a, None] + steps).clamp(0, n - 1) for a, n in enumerate(target)]
    if tuple(source) == tuple(target):
        return _gather(z, _flat(pixels, source)).flatten(2)
    places, matrices = [], []
    for at, small, large in zip(pixels, source, target, strict=True):
        low, right = (x[at] for x in axis_weights(small, large, z.device))
        width = min(small, (side - 1) * (small - 1) // max(1, large - 1) + 3)
        first = low[:, :1].clamp(max=small - width)
        matrix = z.new_zeros(*low.shape, width + 1)
        matrix.scatter_(2, (low - first)[..., None], (1 - right)[..., None])
        matrix.scatter_(2, (low - first)[..., None] + 1, right[..., None])
        matrices.append(matrix[..., :width])
        places.append(first + torch.arange(width, device=z.device))
    out = _gather(z, _flat(places, source))
    for axis in range(dims):
        out = torch.einsum("tsw,tcwr->tcrs", matrices[axis], out.flatten(3))
        out = out.unflatten(2, [*(m.shape[2] for m in matrices[axis + 1 :]), *[side] * axis]) if dims > 1 else out
    return out.flatten(2)


def _gather(z: Tensor, position: Tensor) -> Tensor:
    """Vectors of `z` (`C h w [d]`) at flat positions (T, ...) int64, as (T, C, ...). Faster than `z[:, i]`."""
    found = z.flatten(1).index_select(1, position.flatten())
    return found.view(len(z), *position.shape).movedim(0, 1)


def _flat(axes: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Flat positions, (T, m1, m2, ...) int64, of the grid points whose axis coordinates are `axes`, each (T, m)."""
    out = axes[0]
    for at, n in zip(axes[1:], shape[1:], strict=True):
        out = out[..., None] * n + at.view(len(at), *(1,) * (out.ndim - 1), at.shape[1])
    return out
