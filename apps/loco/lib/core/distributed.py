"""Several processes, one training: each runs the networks on its rows of the batch, all compute the loss of the whole.

A loss of LoCo is no mean over images: prototypes, hard pixels, counts of confident pixels and batch statistics belong to
the batch. So the inputs and the networks' outputs are gathered and every rank runs the method on the whole batch, as one
process would: each method is exact without knowing of ranks, for the price of a loss that is computed by all of them. It
is a small part of the step; what costs, the networks and the reading of images, is divided.

Outside a network every tensor, and its gradient, is whole and the same on all ranks. Entering a network takes rows, and
backward gathers their gradients; leaving it gathers rows, and backward takes the gradients of one's own. Hence one rule: a
method calls a network, or its `encode` and `decode`; a smaller part called by itself would run on all rows on every
rank and its gradient count as often.

Every function works without a process group too, and then does nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

TIMEOUT = timedelta(minutes=15)
"""How long a rank waits for another before it gives up: longer than the slowest validation or checkpoint."""

T = TypeVar("T")


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process among them, from 0. Rank 0 alone writes files and the journal."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def process_group(
    backend: str, init_method: str, rank: int, world: int, timeout: timedelta = TIMEOUT
) -> Iterator[None]:
    """This process as one of `world` for the block. A rank that is gone makes the others raise, at the latest after `timeout`."""
    dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=world, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rows_of(count: int, rank: int, world: int) -> range:
    """Rows of a batch of `count` that belong to a rank: consecutive, the first ranks one more where it does not divide.

    >>> [list(rows_of(5, r, 3)) for r in range(3)]
    [[0, 1], [2, 3], [4]]
    """
    share, extra = divmod(count, world)
    start = rank * share + min(rank, extra)
    return range(start, start + share + (rank < extra))


def agreed(compute: Callable[[], T]) -> T:
    """What rank 0 computes, on all ranks. It travels pickled."""
    if world_size() == 1:
        return compute()
    box = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(values: T) -> list[T]:
    """One picklable object of each rank, in their order, on all ranks."""
    if world_size() == 1:
        return [values]
    boxes: list[Any] = [None] * world_size()
    dist.all_gather_object(boxes, values)
    return boxes


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on one rank at least, so that all of them stop at the same step."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(int(flag), device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def replicate(module: nn.Module) -> None:
    """Weights and buffers of rank 0 on every rank."""
    if world_size() > 1:
        for value in module.state_dict().values():
            whole = value.contiguous()
            dist.broadcast(whole, src=0)
            value.copy_(whole)


def gather_rows(rows: Tensor, count: int) -> Tensor:
    """Rows `b ...` of each rank, split as `rows_of` splits them, to the whole `count ...` on every rank; differentiable."""
    return rows if world_size() == 1 else _Gather.apply(rows, count)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all ranks up, in one message. Ranks must have gradients at the same parameters."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view(gradient.shape))


@contextmanager
def split_over_ranks(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block each call of one of `networks`, or of its `encode` or `decode`, runs on this rank's rows.

    They take and return tensors `B ...`, bare, in sequences or in dataclasses; what comes back has all rows, but for
    fields whose metadata say `gathered: False`, which have their default. In training
    mode batch statistics are those of all rows. An input with fewer rows than ranks is run whole by each of them.
    """
    if world_size() == 1:
        yield
        return
    statistics = _WholeBatchStatistics()
    with ExitStack() as changes:
        for network in networks:
            for name in ("forward", "encode", "decode"):
                if hasattr(network, name):
                    setattr(network, name, _split_call(getattr(network, name), statistics))
                    changes.callback(delattr, network, name)
        changes.enter_context(statistics)
        yield


def _split_call(call: Callable[[Any], Any], statistics: _WholeBatchStatistics) -> Callable[[Any], Any]:
    """`call` on this rank's rows of its argument; a call from within another one is left as it is."""

    def split(whole: Any) -> Any:
        if statistics.inside:
            return call(whole)
        count = _rows(whole)
        divided = count >= world_size()
        statistics.inside, statistics.active = True, divided
        try:
            if not divided:
                output = call(_map_tensors(whole, lambda x: _ScaledGradient.apply(x, world_size())))
                return _map_tensors(output, lambda x: _ScaledGradient.apply(x, 1 / world_size()))
            output = call(_map_tensors(whole, _Scatter.apply))
        finally:
            statistics.inside = statistics.active = False
        return _map_tensors(output, lambda rows: gather_rows(rows, count))

    return split


def _rows(whole: Any) -> int:
    return len(whole) if isinstance(whole, Tensor) else len(whole[0])


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_map_tensors(v, change) for v in value]
    if dataclasses.is_dataclass(value):
        kept = {
            f.name: _map_tensors(getattr(value, f.name), change) if f.metadata.get("gathered", True) else f.default
            for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **kept)
    return value


class _Scatter(torch.autograd.Function):
    """This rank's rows of a tensor that all ranks have; backward gathers the gradients of all rows."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> Tensor:
        ctx.count = len(whole)
        rows = rows_of(len(whole), rank(), world_size())
        return whole[rows.start : rows.stop].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gather_rows(gradient, ctx.count)


class _Gather(torch.autograd.Function):
    """See `gather_rows`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:
        world = world_size()
        sizes = [len(rows_of(count, r, world)) for r in range(world)]
        ctx.rows = rows_of(count, rank(), world)
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient[ctx.rows.start : ctx.rows.stop], None


class _ScaledGradient(torch.autograd.Function):
    """The same tensor; its gradient times `factor`. Around what every rank computes alike, as parts are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None


class _WholeBatchStatistics(TorchFunctionMode):
    """While `active`, batch normalisation in training mode takes mean and variance over the rows of all ranks.

    `torch.nn.SyncBatchNorm` would do it on a GPU; it refuses tensors on the CPU, and replacing layers by it loses the
    activation inside timm's. This replaces the one function that all such layers call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.active = False

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.active and func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
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
) -> Tensor:
    """`torch.nn.functional.batch_norm` with the statistics of all ranks."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    with torch.no_grad():
        mean, var, count = _moments(x)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * (count / (count - 1)), momentum)
    y = _Standardise.apply(x, mean, (var + eps).rsqrt(), count)
    shape = (1, -1, *[1] * (x.ndim - 2))
    if weight is None or bias is None:
        return y
    return torch.addcmul(bias.view(shape), y, weight.view(shape)).to(x.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C), variance (C, biased) and number of values per channel of all ranks, float32."""
    var, mean = torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0)
    own = torch.cat([mean, var, mean.new_tensor([x.numel() / x.shape[1]])])
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    means, variances, counts = torch.stack(parts).split([len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return mean, ((variances + (means - mean) ** 2) * counts).sum(0) / count, count


class _Standardise(torch.autograd.Function):
    """`(x - mean) * scale` where mean and scale come from the x of all ranks (Ioffe & Szegedy 2015, section 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, count: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        ctx.save_for_backward(x, mean.view(shape), scale.view(shape), count)
        return ((x - mean.view(shape)) * scale.view(shape)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        x, mean, scale, count = ctx.saved_tensors
        y = (x - mean) * scale
        gradient = gradient.float()
        axes = [0, *range(2, x.ndim)]
        sums = torch.stack([gradient.sum(axes), (gradient * y).sum(axes)])
        dist.all_reduce(sums)
        along, towards = (s.view_as(mean) / count for s in sums)
        return ((gradient - along - y * towards) * scale).to(x.dtype), None, None, None
