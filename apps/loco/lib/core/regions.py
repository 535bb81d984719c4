"""Where in a map: near a border, some pixels of a class. Shapes: masks `B H W [D]`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.spec import IGNORE


def near_border(mask: Tensor, reach: int, known: Tensor | None = None) -> Tensor:
    """Bool `B H W [D]`: pixels within `reach` of a pixel on the other side of the mask (chessboard distance).

    With `known` a pixel elsewhere is on no side, so that nothing has a border with padding.
    """
    pool = F.max_pool2d if mask.ndim == 3 else F.max_pool3d
    sides = (mask, ~mask) if known is None else (mask & known, ~mask & known)
    grown, shrunk = (pool(m.float().unsqueeze(1), 2 * reach + 1, 1, reach)[:, 0] > 0 for m in sides)
    return grown & shrunk


def far_apart(size: tuple[int, ...], reach: float, device: torch.device) -> Tensor:
    """Bool `n n`: whether two cells of a map `h w [d]`, in the order of the flattened map, are farther apart than `reach`."""
    places = torch.ones(size, device=device).nonzero()
    return ((places[:, None] - places[None]) ** 2).sum(dim=-1) > reach**2


def near_boundary(label: Tensor) -> Tensor:
    """Bool `B H W [D]`: pixels one of whose direct or diagonal neighbours has another label; 255 is no label."""
    pool = F.max_pool2d if label.ndim == 3 else F.max_pool3d
    values = label.float().unsqueeze(1)
    ignored = (label == IGNORE).unsqueeze(1)
    highest = pool(values.masked_fill(ignored, -1), 3, stride=1, padding=1)
    lowest = -pool(-values.masked_fill(ignored, IGNORE), 3, stride=1, padding=1)
    return ((highest != lowest) & ~ignored).squeeze(1)


def around(centre: int, length: int, limit: int) -> slice:
    """`length` positions around `centre`, moved to lie within 0 and `limit`.

    >>> around(5, 4, 10), around(0, 4, 10), around(9, 4, 10), around(1, 4, 3)
    (slice(3, 7, None), slice(0, 4, None), slice(6, 10, None), slice(0, 4, None))
    """
    start = max(0, min(centre - length // 2, limit - length))
    return slice(start, start + length)


def some_of(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions of at most `count` True values of the flattened mask, in random order, int64."""
    found = mask.flatten().nonzero()[:, 0]
    return found[torch.randperm(len(found), generator=generator, device=found.device)[:count]]


def as_vectors(feature: Tensor) -> Tensor:
    """A feature map `B F h w [d]` as float32 vectors `N F`, in the order of a flattened label map."""
    return feature.movedim(1, -1).flatten(0, -2).float()
