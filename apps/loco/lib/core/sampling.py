"""Which pixels are hard: neighbourhood, boundary test and selection of LoCo (arXiv 2412.02314). No gradients."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.interpolate import blocks_at
from lib.core.spec import IGNORE, ContrastSpec

NEIGHBOURS = 64
TILE = {2: 8, 3: 4}
"""Side of the tiles in which neighbour similarities are computed, by number of spatial axes."""
SMALL = 1e-12
"""Vectors shorter than this count as having this length."""
CHUNK = 1 << 21
"""Most numbers held at once for the vectors of a chunk of tiles (8 MB)."""


@cache
def neighbours(dims: int) -> tuple[tuple[int, ...], ...]:
    """The 64 grid offsets nearest to the centre, which is left out, by squared distance, then lexicographic.

    2D: all 60 with d^2 <= 18 and, of d^2 = 20, (-4,-2) (-4,2) (-2,-4) (-2,4) in (row, column), the published set.
    3D: all 56 with d^2 <= 5 and the first 8 of d^2 = 6.

    >>> neighbours(2)[:4]
    ((-1, 0), (0, -1), (0, 1), (1, 0))
    """
    offsets = [o for o in product(range(-5, 6), repeat=dims) if any(o)]
    return tuple(sorted(offsets, key=lambda o: (sum(i * i for i in o), o))[:NEIGHBOURS])


def radius(dims: int) -> int:
    """Largest coordinate of `neighbours`: 4 in 2D, 2 in 3D."""
    return max(abs(i) for o in neighbours(dims) for i in o)


def foreground_boundary(label: Tensor, spec: ContrastSpec) -> Tensor:
    """Foreground pixels with a differently labelled neighbour, `B H W [D]` bool. `label`: uint8, 255 = ignore.

    `spec.border` zero: beyond the edge lies background; replicate: the edge pixel goes on.
    `spec.ignored_is_boundary`: a neighbour labelled 255 is another label; False: it is skipped.
    """
    size = label.shape[1:]
    r = radius(len(size))
    if spec.border == "zero":
        padded = F.pad(label, (r, r) * len(size))
    else:
        padded = label
        for axis, n in enumerate(size, start=1):
            padded = padded.index_select(axis, torch.arange(-r, n + r, device=label.device).clamp(0, n - 1))
    found = torch.zeros_like(label, dtype=torch.bool)
    for offset in neighbours(len(size)):
        other = padded
        for axis, (o, n) in enumerate(zip(offset, size, strict=True), start=1):
            other = other.narrow(axis, r + o, n)
        differs = other != label
        found |= differs if spec.ignored_is_boundary else differs & (other != IGNORE)
    return found & (label != 0) & (label != IGNORE)


def least_similarity(z: Tensor, pixels: Tensor) -> Tensor:
    """Smallest cosine between each wanted pixel and its 64 neighbours, `B H W [D]` float32, infinite at other pixels.

    `z`: `B C h w [d]` float32, upsampled block by block; `pixels`: `B H W [D]` bool.
    Beyond the edge the edge pixel goes on. Works tile by tile: one matrix product gives all similarities of a tile.
    """
    size = pixels.shape[1:]
    tile, r = TILE[len(size)], radius(len(size))
    grid = [-(-n // tile) for n in size]
    out = torch.full((len(z), *(n * tile for n in grid)), torch.inf, device=z.device)
    blocks = _as_tiles(out, tile)
    wanted = _as_tiles(
        F.pad(pixels, [p for n, g in zip(size[::-1], grid[::-1], strict=True) for p in (0, g * tile - n)]), tile
    )
    tiles = wanted.flatten(1 + len(size)).any(-1)
    inner, blocked = _tile_pattern(len(size), z.device)
    per_chunk = max(1, CHUNK // (z.shape[1] * (tile + 2 * r) ** len(size)))
    # One buffer for all chunks: fresh memory for each would cost three times as much as the product itself.
    buffer = z.new_empty(min(per_chunk, int(tiles.sum())), *blocked.shape)
    for b in range(len(z)):
        places_of_image = tiles[b].nonzero()
        for places in places_of_image.split(per_chunk) if len(places_of_image) else ():
            vectors = blocks_at(z[b], places * tile - r, tile + 2 * r, size)
            vectors *= vectors.square().sum(1, keepdim=True).clamp_(min=SMALL**2).rsqrt_()
            similarity = torch.bmm(vectors.index_select(2, inner).mT, vectors, out=buffer[: len(places)])
            least = similarity.add_(blocked).amin(-1)
            blocks[b][tuple(places.T)] = least.view(-1, *(tile,) * len(size))
    return out[(slice(None), *(slice(n) for n in size))].masked_fill(~pixels, torch.inf)


def _as_tiles(x: Tensor, tile: int) -> Tensor:
    """View `B H W [D]` as `B H/t W/t [D/t] t t [t]`."""
    dims = x.ndim - 1
    split = x.view(x.shape[0], *(k for n in x.shape[1:] for k in (n // tile, tile)))
    return split.permute(0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2))


def _tile_pattern(dims: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where a tile's pixels lie in its surroundings, (t^d) int64; (t^d, (t+2r)^d): 0 at neighbours, else infinite."""
    tile, r = TILE[dims], radius(dims)
    side = tile + 2 * r
    steps = [side**i for i in reversed(range(dims))]
    inner = torch.tensor(
        [sum((i + r) * s for i, s in zip(p, steps, strict=True)) for p in product(range(tile), repeat=dims)]
    )
    offsets = torch.tensor([sum(i * s for i, s in zip(o, steps, strict=True)) for o in neighbours(dims)])
    blocked = torch.full((len(inner), side**dims), torch.inf)
    blocked.scatter_(1, inner[:, None] + offsets, 0.0)
    return inner.to(device), blocked.to(device)


def lowest_per_class(scores: Mapping[int, Tensor], label: Tensor, keep: Mapping[int, int]) -> Tensor:
    """Positions of the `keep[c]` lowest scores among pixels of class c, for all c one after the other, (M) int64.

    `scores[c]`: (N) float; `label`: (N) integer. The caller makes sure that class c has at least `keep[c]` pixels.
    Which of equal scores are kept is left open (in BCE two pixels unlike each other often share theirs).

    >>> lowest_per_class({1: torch.tensor([5.0, 3.0, 4.0])}, torch.tensor([1, 0, 1]), {1: 1})
    tensor([2])
    """
    found = [torch.zeros(0, dtype=torch.long, device=label.device)]
    for c, n in keep.items():
        if n > 0:
            score = scores[c].masked_fill(label != c, torch.inf)
            found.append(score.topk(n, largest=False, sorted=False).indices)
    return torch.cat(found)
