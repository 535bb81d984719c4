from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from lib.core.networks import (
    NETWORKS,
    NETWORKS_2D,
    NETWORKS_3D,
    SegmentationNetwork,
    build_network,
    default_network,
)
from lib.core.spec import KINDS, NetworkSpec, SpecError

LITE = "deeplabv3plus_efficientnet_lite0"
INPUTS = {"frame": (2, 3, 64, 96), "slice": (2, 1, 96, 64), "volume": (2, 1, 32, 32, 48)}


def build(name: str, classes: int = 3) -> SegmentationNetwork:
    spec = NetworkSpec(name, classes=classes, projection_channels=8, pretrained=False)
    return build_network(spec, 2 if name in NETWORKS_2D else 3)


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_output_shapes(kind, cuda):
    network = build(default_network(kind, cuda)).eval()
    x = image(*INPUTS[kind])
    with torch.inference_mode():
        out = network(x)
    assert out.logits.shape == (2, 3, *x.shape[2:])
    assert out.projection.shape == (2, 8, *(n // network.stride for n in x.shape[2:]))
    assert out.logits.dtype == out.projection.dtype == torch.float32


def test_default_network_is_one_per_kind_and_device():
    assert {default_network(k, c) for k in KINDS for c in (False, True)} == set(NETWORKS)
    assert set(NETWORKS) == set(NETWORKS_2D) | set(NETWORKS_3D)
    with pytest.raises(SpecError, match=r"`kind` to be one of \['frame', 'slice', 'volume'\], but got 'film'"):
        default_network("film", cuda=False)


@pytest.mark.parametrize(("name", "shape"), [(LITE, (1, 1, 32, 64)), ("unet3d_small", (1, 1, 16, 16, 32))])
def test_batch_of_one_trains_at_the_smallest_size(name, shape):
    network = build(name).train()
    out = network(image(*shape))
    (out.logits.mean() + out.projection.square().mean()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(("name", "shape"), [(LITE, (2, 3, 64, 64)), ("unet3d_small", (1, 1, 32, 32, 32))])
def test_every_parameter_gets_a_gradient(name, shape):
    network = build(name).train()
    out = network(image(*shape))
    F.cross_entropy(out.logits, torch.ones_like(out.logits[:, 0], dtype=torch.long)).backward()
    assert network.projector[0].weight.grad is None
    out = network(image(*shape))
    out.projection.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert network.projector[0].weight.grad.abs().sum() > 0


def test_a_grey_image_is_a_colour_image_of_equal_channels():
    network = build(LITE).eval()
    grey = image(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(grey).logits, network(grey.repeat(1, 3, 1, 1)).logits)


def test_normalisation_is_imagenet_in_2d_and_centred_in_3d():
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert build(LITE).normalise(mean).abs().max() == 0
    centred = build("unet3d_small").normalise(torch.tensor([0.25, 0.5, 1.0]).view(1, 1, 3, 1, 1))
    assert centred.flatten().tolist() == [-1.0, 0.0, 2.0]


def test_logits_are_the_aligned_upsampling_of_stride_4():
    network = build(LITE).eval()
    low = []
    network.classifier.register_forward_hook(lambda _m, _i, out: low.append(out))
    with torch.inference_mode():
        logits = network(image(1, 3, 64, 64)).logits
    assert low[0].shape[2:] == (16, 16)
    torch.testing.assert_close(logits[..., ::63, ::63], low[0][..., ::15, ::15])  # corners stay where they are


@pytest.mark.parametrize("name", [LITE, "unet3d_small"])
@pytest.mark.parametrize("pretrained", [False, True])
def test_groups_hold_every_trainable_parameter_once(name, pretrained):
    network = build(name)
    network.encoder_pretrained = pretrained
    network.classifier.bias.requires_grad_(False)
    groups = network.parameter_groups(0.01)
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in network.parameters() if p.requires_grad}
    rates = {g["name"]: g["lr"] for g in groups}
    if name == LITE:
        assert rates == {"encoder": pytest.approx(0.001 if pretrained else 0.01), "rest": 0.01}
        assert {id(p) for p in groups[0]["params"]} == {id(p) for p in network.body.encoder.parameters()}
    else:
        assert rates == {"rest": 0.01}
    torch.optim.SGD(groups, lr=0.01, momentum=0.9)


@pytest.mark.parametrize(
    ("name", "dims", "valid"),
    [
        ("unet", 2, r"2D network, one of \['deeplabv3plus_efficientnet_lite0', 'deeplabv3plus_resnet50'\]"),
        (LITE, 3, r"3D network, one of \['unet3d', 'unet3d_small'\]"),
    ],
)
def test_unknown_name_lists_the_names_of_that_dimension(name, dims, valid):
    with pytest.raises(SpecError, match=f"{valid}, but got '{name}'"):
        build_network(NetworkSpec(name, classes=2), dims)


def test_unknown_dimension():
    with pytest.raises(SpecError, match="`spatial_dims` to be 2 or 3, but got 4"):
        build_network(NetworkSpec(LITE, classes=2), 4)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (LITE, (1, 3, 100, 96), r"multiples of 16, .* but got \(100, 96\); pad the image to \(112, 96\)"),
        (LITE, (1, 3, 16, 16), r"one of them at least 32, but got \(16, 16\); pad the image to \(16, 32\)"),
        ("unet3d_small", (1, 1, 32, 33, 31), r"but got \(32, 33, 31\); pad the image to \(32, 48, 32\)"),
        (LITE, (1, 2, 64, 64), r"B C H W with C = 1 or 3, but got shape \(1, 2, 64, 64\)"),
        (LITE, (1, 1, 64, 64, 64), r"B C H W with C = 1 or 3, but got shape \(1, 1, 64, 64, 64\)"),
        ("unet3d_small", (1, 3, 32, 32, 32), r"B C H W D with C = 1, but got shape \(1, 3, 32, 32, 32\)"),
    ],
)
def test_wrong_inputs_are_refused(name, shape, message):
    with pytest.raises(SpecError, match=message):
        build(name)(torch.zeros(shape))


@pytest.mark.parametrize(("name", "shape"), [(LITE, (2, 1, 64, 64)), ("unet3d_small", (1, 1, 32, 32, 32))])
def test_16_bit_autocast_trains_and_returns_32_bit(name, shape):
    network = build(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(image(*shape))
        loss = out.logits.mean() + out.projection.square().mean()
    loss.backward()
    assert out.logits.dtype == out.projection.dtype == torch.float32
    assert torch.isfinite(network.projector[0].weight.grad).all()


@pytest.mark.parametrize("name", [LITE, "unet3d_small"])
def test_state_dict_round_trip(name):
    torch.manual_seed(0)
    first, second = build(name).eval(), build(name).eval()
    x = image(*((1, 3, 64, 64) if name == LITE else (1, 1, 32, 32, 32)))
    with torch.inference_mode():
        assert not torch.equal(first(x).logits, second(x).logits)
        second.load_state_dict(deepcopy(first.state_dict()))
        assert torch.equal(first(x).logits, second(x).logits)
        assert torch.equal(first(x).projection, second(x).projection)
