"""Dilated depthwise convolutions whose backward pass is quick on a CPU.

PyTorch's CPU backward of a dilated depthwise convolution takes fifty times as long as its forward (5x5, dilation 2,
1152 channels: 75 ms against 1 ms), which was half of a training step of the small 2D network. Both halves of the gradient
are rewritten in operations that are quick: with respect to the input, the same convolution with the kernel turned
round; with respect to the kernel, one weighted sum of the shifted input per tap.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution with stride 1 that keeps the size, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_x = _convolve(gradient, weight.flip(2, 3), ctx.dilation) if ctx.needs_input_grad[0] else None
        for_weight = _taps(x, gradient, weight, ctx.dilation) if ctx.needs_input_grad[1] else None
        return for_x, for_weight, None


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    middle = weight.shape[-1] // 2
    if dilation >= max(x.shape[2:]):
        # every other tap falls outside the image; oneDNN has no quick kernel for this case
        return x * weight[:, 0, middle, middle].view(1, -1, 1, 1)
    padding = dilation * middle
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=len(weight))


def _taps(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Gradient of the kernel `C 1 k k`: per tap, the sum of the gradient times the input that the tap saw."""
    height, width = x.shape[2:]
    size = weight.shape[-1]
    taps = torch.zeros_like(weight)
    # channels last, so that each product runs along contiguous channels
    x, gradient = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    for i in range(size):
        for j in range(size):
            down, right = dilation * (i - size // 2), dilation * (j - size // 2)
            if abs(down) < height and abs(right) < width:
                seen = x[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
                at = gradient[:, max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
                taps[:, 0, i, j] = (seen * at).sum((0, 1, 2))
    return taps


class DilatedDepthwise(nn.Conv2d):
    """An `nn.Conv2d` with the quick gradient; the same parameters, the same values."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `B C H W`; on a CPU in float32 and with a gradient by the rewritten operations."""
        quick = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if quick and torch.is_grad_enabled() and not torch.jit.is_tracing():
            return _Depthwise.apply(x, self.weight, self.dilation[0])
        return super().forward(x)


def with_quick_depthwise(network: nn.Module) -> nn.Module:
    """The same network, its dilated depthwise convolutions replaced in place; parameters and names stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if _fits(child):
                setattr(module, name, _replacement(child))
    return network


def _fits(module: nn.Module) -> bool:
    if type(module) is not nn.Conv2d or module.bias is not None or module.padding_mode != "zeros":
        return False
    size, dilation = module.kernel_size, module.dilation
    return (
        module.groups == module.in_channels == module.out_channels
        and module.stride == (1, 1)
        and dilation[0] == dilation[1] > 1
        and size[0] == size[1]
        and size[0] % 2 == 1
        and module.padding == tuple(d * (n // 2) for d, n in zip(dilation, size, strict=True))
    )


def _replacement(module: nn.Conv2d) -> DilatedDepthwise:
    other = DilatedDepthwise(
        module.in_channels,
        module.out_channels,
        module.kernel_size[0],
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=False,
    )
    other.weight = module.weight
    return other.train(module.training)
