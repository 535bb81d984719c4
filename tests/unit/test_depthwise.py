"""The rewritten gradient of a dilated depthwise convolution is that of PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib.core.depthwise import DilatedDepthwise, with_quick_depthwise
from lib.core.networks import build_network
from lib.core.spec import NetworkSpec


def _gradients(conv: nn.Conv2d, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    conv.weight.grad = None
    y = conv(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad, conv.weight.grad.clone()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "dilation"), [(3, 2), (5, 2), (3, 6), (3, 18)])
@pytest.mark.parametrize("shape", [(4, 6, 8, 8), (1, 6, 5, 9), (2, 6, 1, 3)])
def test_values_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], size: int, dilation: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    reference = nn.Conv2d(6, 6, size, padding=dilation * (size // 2), dilation=dilation, groups=6, bias=False)
    quick = with_quick_depthwise(nn.Sequential(reference))[0]
    assert isinstance(quick, DilatedDepthwise)
    assert quick.weight is reference.weight
    x = torch.randn(shape).contiguous(memory_format=layout)
    for ours, theirs in zip(_gradients(quick, x), _gradients(reference, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=True),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, stride=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4, bias=False),
    ],
)
def test_other_convolutions_are_left_alone(other: nn.Conv2d) -> None:
    assert with_quick_depthwise(nn.Sequential(other))[0] is other


def test_the_small_network_has_them_under_the_names_of_its_weights() -> None:
    network = build_network(NetworkSpec("deeplabv3plus_efficientnet_lite0", 2, 64, pretrained=False), 2)
    quick = [n for n, m in network.named_modules() if isinstance(m, DilatedDepthwise)]
    assert len([n for n in quick if n.startswith("body.encoder")]) == 4
    assert len([n for n in quick if n.startswith("body.decoder.aspp")]) == 3
    assert all(f"{n}.weight" in network.state_dict() for n in quick)


def test_without_a_gradient_for_one_side_the_other_is_still_right() -> None:
    torch.manual_seed(0)
    reference = nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3, bias=False)
    quick = with_quick_depthwise(nn.Sequential(reference))[0]
    x = torch.randn(1, 3, 6, 6)
    _, for_x, for_weight = _gradients(reference, x)
    quick.weight.grad = None
    quick(x).mul(torch.linspace(-1, 1, 108).reshape(1, 3, 6, 6)).sum().backward()
    torch.testing.assert_close(quick.weight.grad, for_weight, rtol=1e-5, atol=1e-5)
    quick.weight.requires_grad_(False)
    torch.testing.assert_close(_gradients_of_input(quick, x), for_x, rtol=1e-5, atol=1e-5)


def _gradients_of_input(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    conv(x).mul(torch.linspace(-1, 1, 108).reshape(1, 3, 6, 6)).sum().backward()
    return x.grad
