"""Batch normalisation with the statistics of the rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lib.core.distributed import world_size


class WholeBatchStatistics(TorchFunctionMode):
    """While `active`, batch normalisation in training mode takes mean and variance over the rows of all ranks.

    `torch.nn.SyncBatchNorm` would do it on a GPU; it refuses tensors on the CPU, and replacing layers by it loses the
    activation inside timm's. This replaces the one function that all such layers call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.active = False
        self.boundary: int | None = None
        """Of the two parts of a pass, how many rows of this rank belong to the first; None: it is a whole."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.active and func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}), boundary=self.boundary)
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    boundary: int | None = None,
) -> Tensor:
    """`torch.nn.functional.batch_norm` with the statistics of all ranks; `boundary`: rows of this rank's first part."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    with torch.no_grad():
        mean, var, count = _moments(x)
        if running_mean is not None and running_var is not None:
            # `.data`, as torch's own kernel does: an earlier pass of this step keeps them for its backward, which in training
            # never reads them but refuses them once their version has moved
            running_mean.data.lerp_(mean, momentum)
            running_var.data.lerp_(var * (count / (count - 1)), momentum)
    y = _Standardise.apply(x, mean, (var + eps).rsqrt(), boundary)
    shape = (1, -1, *[1] * (x.ndim - 2))
    if weight is None or bias is None:
        return y
    return torch.addcmul(bias.view(shape), y, weight.view(shape)).to(x.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C), variance (C, biased) and number of values per channel of all ranks, float32."""
    var, mean = torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0)
    own = torch.cat([mean, var, _count(x)])
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    means, variances, counts = torch.stack(parts).split([len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return mean, ((variances + (means - mean) ** 2) * counts).sum(0) / count, count


class _Standardise(torch.autograd.Function):
    """`(x - mean) * scale` where mean and scale come from the x of all ranks (Ioffe & Szegedy 2015, section 3).

    With a `boundary` backward is that of each part alone, as in `parts.in_two_parts`: the first `boundary` rows of this rank
    and those of the others, and the rest.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, boundary: int | None) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        ctx.save_for_backward(x, mean.view(shape), scale.view(shape))
        ctx.parts = [slice(None)] if boundary is None else [slice(boundary), slice(boundary, None)]
        return ((x - mean.view(shape)) * scale.view(shape)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        x, mean, scale = ctx.saved_tensors
        parts = [(gradient[p].float(), (x[p] - mean) * scale) for p in ctx.parts]
        axes = [0, *range(2, x.ndim)]
        sums = torch.stack([torch.cat([g.sum(axes), (g * y).sum(axes), _count(g)]) for g, y in parts])
        dist.all_reduce(sums)
        found = []
        for (g, y), (*both, count) in zip(parts, (s.split([mean.numel(), mean.numel(), 1]) for s in sums), strict=True):
            along, towards = (s.view_as(mean) / count for s in both)
            found.append((g - along - y * towards) * scale)
        return torch.cat(found).to(x.dtype), None, None, None


def _count(x: Tensor) -> Tensor:
    """Values per channel, (1) float32."""
    return torch.tensor([x.numel() / x.shape[1]], device=x.device)
