"""One pass of labelled and unlabelled images in which no loss moves the images of the other part.

In one pass both share the statistics of BatchNorm, and with their gradient the loss on labels also trains what the network
makes of unlabelled images: it may lower itself by moving them. With few patients it does, and then paints most of any image
but its own. Here mean and variance are those of all rows, so that nothing changes in the forward pass; in the backward pass
they count as those of a row's own part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_BOUNDARY: ContextVar[int | None] = ContextVar("boundary", default=None)


def boundary() -> int | None:
    """Rows of the first part of the pass that is going on; None: it is not in parts."""
    return _BOUNDARY.get()


@contextmanager
def with_boundary(rows: int | None) -> Iterator[None]:
    """Within the block the first `rows` rows of a pass are one part, the others another; None: the pass is a whole."""
    token = _BOUNDARY.set(rows)
    try:
        yield
    finally:
        _BOUNDARY.reset(token)


def in_two_parts(call: Callable[[Any], Any], whole: Any, count: int) -> Any:
    """`call(whole)`, where each BatchNorm gives the first `count` rows and the others gradients of their own.

    Args:
        call: a network, or its `encode` or `decode`.
        whole: what it takes: a tensor `B ...` or a sequence of such.
        count: rows of the first part.

    Returns:
        What `call(whole)` does. In the backward pass the gradient of a row comes from the losses of its part alone.
    """
    with with_boundary(count), _OwnGradient():
        return call(whole)


class _OwnGradient(TorchFunctionMode):
    """Batch normalisation in training mode has `_TwoParts` for a gradient, while a pass is in parts."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm and boundary() is not None:
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
    count = boundary()
    if not training or count is None or not 0 < count < len(x):
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _TwoParts.apply(x, weight, bias, running_mean, running_var, momentum, eps, count)


class _TwoParts(torch.autograd.Function):
    """Batch normalisation of all rows; backward is that of each part alone, with mean and variance of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *options: Any) -> Tensor:
        *running, momentum, ctx.eps, ctx.count = options
        y, mean, scale = torch.native_batch_norm(x, weight, bias, *running, True, momentum, ctx.eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        found = [
            torch.ops.aten.native_batch_norm_backward(g, rows, weight, None, None, mean, scale, True, ctx.eps, wanted)
            for g, rows in zip(_parts(gradient, ctx.count), _parts(x, ctx.count), strict=True)
        ]
        of_x, of_weight, of_bias = zip(*found, strict=True)
        return (
            torch.cat(of_x) if wanted[0] else None,
            sum(of_weight) if wanted[1] else None,
            sum(of_bias) if wanted[2] else None,
            *[None] * 5,
        )


def _parts(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return rows[:count], rows[count:]
