"""Calls of a network on this rank's rows of a whole batch.

Outside a network every tensor, and its gradient, is whole and the same on all ranks. Entering a network takes rows, and
backward gathers their gradients; leaving it gathers rows, and backward takes the gradients of one's own. Hence one rule: a
method calls a network, or its `encode` and `decode`; a smaller part called by itself would run on all rows on every
rank and its gradient count as often.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib.core.distributed import gather_rows, rank, rows_of, world_size
from lib.core.parts import boundary, with_boundary
from lib.core.whole_norm import WholeBatchStatistics


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
    statistics = WholeBatchStatistics()
    with ExitStack() as changes:
        for network in networks:
            for name in ("forward", "encode", "decode"):
                if hasattr(network, name):
                    setattr(network, name, _split_call(getattr(network, name), statistics))
                    changes.callback(delattr, network, name)
        changes.enter_context(statistics)
        yield


def _split_call(call: Callable[[Any], Any], statistics: WholeBatchStatistics) -> Callable[[Any], Any]:
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
            statistics.boundary = _own_boundary(count)
            with with_boundary(None):  # of the whole batch, not of this rank's rows
                output = call(_map_tensors(whole, _Scatter.apply))
        finally:
            statistics.inside = statistics.active = False
            statistics.boundary = None
        return _map_tensors(output, lambda rows: gather_rows(rows, count))

    return split


def _own_boundary(count: int) -> int | None:
    """How many of this rank's rows of `count` are of the first part, if the pass has two."""
    first, rows = boundary(), rows_of(count, rank(), world_size())
    return None if first is None else min(max(first - rows.start, 0), len(rows))


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


class _ScaledGradient(torch.autograd.Function):
    """The same tensor; its gradient times `factor`. Around what every rank computes alike, as parts are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None
