"""Several processes, one training: each runs the networks on its rows of the batch, all compute the loss of the whole.

A loss of LoCo is no mean over images: prototypes, hard pixels, counts of confident pixels and batch statistics belong to
the batch. So the inputs and the networks' outputs are gathered and every rank runs the method on the whole batch, as one
process would: each method is exact without knowing of ranks, for the price of a loss that is computed by all of them. It
is a small part of the step; what costs, the networks and the reading of images, is divided.

Here is what ranks tell each other; `split_batch.py` divides the calls of a network, `whole_norm.py` its batch statistics.
Every function works without a process group too, and then does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

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
