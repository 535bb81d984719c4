"""Labelled and unlabelled images in one pass, without a loss of one moving the other."""

import pytest
import torch
from torch import nn
from unit.helpers import Tiny

from lib.core.networks import NetworkOutput
from lib.core.parts import boundary, in_two_parts

COUNT = 2


class Norm(nn.Module):
    """One BatchNorm, in double precision."""

    def __init__(self, dims=2, affine=True):
        super().__init__()
        self.norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(3, affine=affine).double()
        if affine:
            nn.init.uniform_(self.norm.weight, 0.5, 2)
            nn.init.uniform_(self.norm.bias)

    def forward(self, x):
        return self.norm(x)


def by_hand(norm, x):
    """The same value; mean and variance move with the rows of a part alone."""
    axes = [0, *range(2, x.ndim)]
    mean, var = x.detach().mean(axes, keepdim=True), x.detach().var(axes, correction=0, keepdim=True)
    found = []
    for rows in (x[:COUNT], x[COUNT:]):
        own_mean, own_var = rows.mean(axes, keepdim=True), (rows - mean).square().mean(axes, keepdim=True)
        m, v = mean + own_mean - own_mean.detach(), var + own_var - own_var.detach()
        found.append((rows - m) / (v + norm.eps).sqrt())
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = torch.cat(found)
    return y * norm.weight.view(shape) + norm.bias.view(shape) if norm.affine else y


def image_of(dims=2, rows=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, *[4] * dims, generator=generator, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_the_gradient_by_hand(dims, affine):
    network, x = Norm(dims, affine), image_of(dims)
    weights = torch.randn(x.shape, dtype=torch.double)
    inputs = [x, *network.parameters()]
    got, expected = in_two_parts(network, x, COUNT), by_hand(network.norm, x)
    torch.testing.assert_close(got, expected)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), inputs) for y in (got, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    joint = torch.autograd.grad((network(x) * weights).sum(), inputs)[0]
    assert not torch.allclose(ours[0], joint)


def test_nothing_changes_but_the_gradient():
    one, two, x = Norm(), Norm(), image_of()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(x), in_two_parts(two, x, COUNT))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name])


def test_no_loss_moves_the_images_of_the_other_part():
    network, x = Tiny().train(), torch.rand(5, 1, 8, 8, requires_grad=True)
    for rows, others in ((slice(COUNT), slice(COUNT, None)), (slice(COUNT, None), slice(COUNT))):
        output = in_two_parts(network, x, COUNT)
        assert isinstance(output, NetworkOutput)
        (moved,) = torch.autograd.grad(output.logits[rows].square().sum(), x)
        assert float(moved[others].abs().max()) == 0
        assert float(moved[rows].abs().max()) > 0
        (moved,) = torch.autograd.grad(network(x).logits[rows].square().sum(), x)
        assert float(moved[others].abs().max()) > 0


def test_encoder_and_decoder_are_in_parts_too():
    network, x = Tiny().train(), torch.rand(5, 1, 8, 8, requires_grad=True)
    maps = in_two_parts(network.encode, x, COUNT)
    logits = in_two_parts(network.decode, maps, COUNT).logits
    (moved,) = torch.autograd.grad(logits[:COUNT].square().sum(), x)
    assert float(moved[COUNT:].abs().max()) == 0


@pytest.mark.parametrize("count", [0, 5])
def test_a_batch_of_one_kind_is_a_whole(count):
    network, x = Norm(), image_of()
    weights = torch.randn(x.shape, dtype=torch.double)
    ours, theirs = (
        torch.autograd.grad((y * weights).sum(), x)[0] for y in (in_two_parts(network, x, count), network(x))
    )
    torch.testing.assert_close(ours, theirs)


def test_in_evaluation_it_is_the_network():
    network, x = Norm().eval(), image_of()
    assert torch.equal(in_two_parts(network, x, COUNT), network(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_pass(dtype):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    x = image_of().detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        y = in_two_parts(network, x, COUNT)
    y.float().square().sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_it_ends_with_the_pass():
    with pytest.raises(ZeroDivisionError):
        in_two_parts(lambda x: 1 / 0, image_of(), COUNT)
    assert boundary() is None
    assert in_two_parts(lambda x: boundary(), image_of(), COUNT) == COUNT
