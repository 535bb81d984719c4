"""Which pixels are hard: neighbourhood, boundary test and selection of LoCo (arXiv 2412.02314). No gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.interpolate import sampler
from lib.core.spec import IGNORE, ContrastSpec

NEIGHBOURS = 64
SMALL = 1e-12
"""Vectors shorter than this count as having this length."""
SLAB = {2: 32, 3: 16}
"""Pixels of the first axis whose neighbours are looked at together, by number of spatial axes: few enough that their
vectors stay in the processor's cache and that memory does not depend on how much boundary there is."""
CHUNK = 4096
"""Most pixels in one sparse product."""

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")


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
    padded = label
    if spec.border == "zero":
        padded = F.pad(label, (r, r) * len(size))
    else:
        for axis, n in enumerate(size, start=1):
            padded = padded.index_select(axis, torch.arange(-r, n + r, device=label.device).clamp(0, n - 1))
    # Flattened with its padding, the map of the neighbours at an offset is one contiguous piece of memory.
    steps = [math.prod(padded.shape[a + 2 :]) for a in range(len(size))]
    flat, margin = padded.flatten(), r * sum(steps)
    own = flat[margin : flat.numel() - margin]
    found = torch.zeros_like(flat, dtype=torch.bool)
    for offset in neighbours(len(size)):
        start = margin + sum(o * s for o, s in zip(offset, steps, strict=True))
        other = flat[start : start + own.numel()]
        differs = other != own
        found[margin : margin + own.numel()] |= differs if spec.ignored_is_boundary else differs & (other != IGNORE)
    found = found.view_as(padded)[(slice(None), *(slice(r, -r) for _ in size))]
    return found & (label != 0) & (label != IGNORE)


def least_similarity(z: Tensor, pixels: Tensor) -> Tensor:
    """Smallest cosine between each wanted pixel and its 64 neighbours, `B H W [D]` float32, infinite at other pixels.

    `z`: `B C h w [d]` float32, upsampled at the wanted pixels and around them only; `pixels`: `B H W [D]` bool.
    Beyond the edge the edge pixel goes on.
    """
    size = pixels.shape[1:]
    slab, r = SLAB[len(size)], radius(len(size))
    out = torch.full(pixels.shape, torch.inf, device=z.device)
    highest = torch.tensor(size, device=z.device) - 1
    for image, wanted, scores in zip(z, pixels, out, strict=True):
        sample = sampler(image, size)
        for start, part, found in zip(range(0, size[0], slab), wanted.split(slab), scores.split(slab), strict=True):
            centre = F.pad(part, (r, r) * len(size))
            near = _dilated(centre, r)
            places = near.nonzero() - r
            if not len(places):
                continue
            places[:, 0] += start
            unit = sample(places.clamp_(min=0).minimum(highest))
            unit /= torch.linalg.vector_norm(unit, dim=1, keepdim=True).clamp_(min=SMALL)
            found[part] = _least_products(unit, centre, near)
    return out


def _dilated(mask: Tensor, reach: int) -> Tensor:
    """`mask`, bool, with everything at most `reach` pixels away along each axis. The outer `reach` pixels are unset."""
    for axis, n in enumerate(mask.shape):
        wide = mask.clone()
        for step in range(1, reach + 1):
            wide.narrow(axis, step, n - step).logical_or_(mask.narrow(axis, 0, n - step))
            wide.narrow(axis, 0, n - step).logical_or_(mask.narrow(axis, step, n - step))
        mask = wide
    return mask


def _least_products(vectors: Tensor, centre: Tensor, near: Tensor) -> Tensor:
    """Smallest inner product of the vector of each pixel in `centre` with those of its 64 neighbours, (N).

    `near`: bool, the pixels that `vectors` (M, C) float32 belong to, among them `centre` and all its neighbours. A
    sparse matrix product computes the wanted inner products, no others, and never gathers vectors for them.
    """
    rank = near.flatten().cumsum(0, dtype=torch.int32) - 1
    steps = [math.prod(centre.shape[a + 1 :]) for a in range(centre.ndim)]
    offsets = [sum(o * s for o, s in zip(offset, steps, strict=True)) for offset in neighbours(centre.ndim)]
    offsets = torch.tensor(offsets, device=centre.device)
    least = []
    for pixels in centre.flatten().nonzero().split(CHUNK):
        first = rank.index_select(0, pixels[:, 0])
        others = rank.index_select(0, (pixels + offsets).flatten())
        ends = torch.arange(0, len(others) + 1, len(offsets), dtype=torch.int32, device=centre.device)
        shape, zeros = (len(first), len(vectors)), vectors.new_zeros(len(others))
        wanted = torch.sparse_csr_tensor(ends, others, zeros, shape, check_invariants=False)
        products = torch.sparse.sampled_addmm(wanted, vectors.index_select(0, first), vectors.T, beta=0.0)
        least.append(products.values().view(-1, len(offsets)).amin(1))
    return torch.cat(least)


def lowest_per_class(scores: Mapping[int, Tensor], label: Tensor, keep: Mapping[int, int]) -> Tensor:
    """Positions of the `keep[c]` lowest scores among pixels of class c, for all c one after the other, (M) int64.

    `scores[c]`: (N) float; `label`: (N) integer. The caller makes sure that class c has at least `keep[c]` pixels.
    Which of equal scores are kept is left open (in BCE two pixels unlike each other often share theirs).

    >>> lowest_per_class({1: torch.tensor([5.0, 3.0, 4.0])}, torch.tensor([1, 0, 1]), {1: 1})
    tensor([2])
    """
    found = [torch.zeros(0, dtype=torch.long, device=label.device)]
    for c, n in keep.items():
        if n > 0 and label.device.type == "cpu":
            members = (label == c).nonzero()[:, 0]  # most classes are a small part, in which to look takes less time
            score = scores[c].index_select(0, members)
            found.append(members.index_select(0, score.topk(n, largest=False, sorted=False).indices))
        elif n > 0:  # to list the members, a GPU and the host would wait for each other at each class
            score = scores[c].masked_fill(label != c, torch.inf)
            found.append(score.topk(n, largest=False, sorted=False).indices)
    return torch.cat(found)
