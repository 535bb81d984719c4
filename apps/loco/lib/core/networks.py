"""The networks: an image in, class logits and a dense projection for the contrastive loss out.

2D: DeepLabV3+ with an ImageNet encoder, as LoCo uses it (arXiv 2412.02314). 3D: MONAI's BasicUNet. The two heads on top
are the same for all: classifier 1x1 F -> K, projection 1x1 F -> F/2, ReLU, 1x1 F/2 -> P (with bias, no normalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import segmentation_models_pytorch as smp
import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from torch.nn import functional as F

from lib.core.depthwise import with_quick_depthwise
from lib.core.pretrained import load_pretrained
from lib.core.spec import KINDS, Kind, NetworkSpec, SpecError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VOLUME = ((0.5,), (0.25,))
ENCODER_RATE = 0.1
"""Learning rate of a pretrained encoder relative to the rest (optimiser of LoCo)."""


ONE_PROCESS = {"gathered": False}
"""Of a field that several processes do not exchange: it would cost more than the network."""


@dataclass
class NetworkOutput:
    """What a network says about a batch.

    `logits`: float32 `B K H W [D]`, at input resolution. `projection`: float32 `B P h w [d]`, neither normalised nor
    upsampled (stride 4 in 2D, 2 in 3D); at full resolution it means its align_corners=True interpolation.
    For methods that compare features: `maps`, the encoder's, each `B F_i h w [d]`, fine to coarse, the last one the
    bottleneck; `feature`, the decoder's last one, `B F h w [d]` at stride 4 in 2D and 1 in 3D, which the classifier reads.
    """

    logits: Tensor
    projection: Tensor
    maps: Sequence[Tensor] = field(default=(), metadata=ONE_PROCESS)
    feature: Tensor | None = field(default=None, metadata=ONE_PROCESS)


class SegmentationNetwork(nn.Module):
    """Features, a classifier and a projection head.

    Attributes that callers may read:
    `divisor`: every side of the input must be a multiple of it; the caller pads (`predict.py`) or crops (training).
    `stride`: input pixels per projection pixel. `spatial_dims`: 2 or 3.
    `encoder_pretrained`: whether the encoder started from ImageNet weights.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        features: int,
        spec: NetworkSpec,
        spatial_dims: int,
        encoder_pretrained: bool,
    ) -> None:
        """Put the heads on a body.

        `body.encode`: normalised image -> maps, the first one as large as the image; `body.decode`: maps -> `features`
        channels at stride 4 (2D) or 1 (3D). The body may own an `encoder`.
        """
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.spatial_dims = spatial_dims
        self.divisor = 16
        self.stride = 4 if spatial_dims == 2 else 2
        self.encoder_pretrained = encoder_pretrained
        self.normalise = _Normalise(*(IMAGENET if spatial_dims == 2 else VOLUME), spatial_dims=spatial_dims)
        self.body = body
        self.classifier = conv(features, spec.classes, 1)
        self.pool = nn.Identity() if spatial_dims == 2 else nn.AvgPool3d(2)
        self.projector = nn.Sequential(
            conv(features, features // 2, 1), nn.ReLU(), conv(features // 2, spec.projection_channels, 1)
        )

    def forward(self, x: Tensor) -> NetworkOutput:
        """Logits and projection of a batch.

        Args:
            x: float `B C H W [D]` in [0, 1]; C is 1 or 3 in 2D, 1 in 3D.

        Raises:
            SpecError: wrong number of dimensions or channels, or sides that are not multiples of `divisor`.
        """
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps of a batch, as `NetworkOutput.maps`; same argument and errors as `forward`."""
        self._check(x)
        return list(self.body.encode(self.normalise(x)))

    def decode(self, maps: Sequence[Tensor]) -> NetworkOutput:
        """The output for the encoder's maps, perturbed ones among them."""
        feature = self.body.decode(list(maps))
        logits = self.classifier(feature).float()
        if self.spatial_dims == 2:
            logits = F.interpolate(logits, size=maps[0].shape[2:], mode="bilinear", align_corners=True)
        return NetworkOutput(logits, self.projector(self.pool(feature)).float(), maps, feature)

    def parameter_groups(self, learning_rate: float, encoder_rate: float = ENCODER_RATE) -> list[dict[str, Any]]:
        """Groups for a `torch.optim` optimiser, every trainable parameter in exactly one.

        A pretrained encoder learns at `encoder_rate` times `learning_rate`, everything else at `learning_rate`
        (optimiser of LoCo: 1e-3 and 1e-2). The groups of one network are the same with and without pretrained weights; only
        the rate differs, so that an optimiser state fits a network that was built where the weight file was missing.
        """
        encoder = getattr(self.body, "encoder", None)
        first = [p for p in encoder.parameters() if p.requires_grad] if encoder is not None else []
        known = {id(p) for p in first}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        rate = learning_rate * (encoder_rate if self.encoder_pretrained else 1.0)
        groups = [
            {"name": "encoder", "params": first, "lr": rate},
            {"name": "rest", "params": rest, "lr": learning_rate},
        ]
        return [g for g in groups if g["params"]]

    def _check(self, x: Tensor) -> None:
        channels = (1, 3) if self.spatial_dims == 2 else (1,)
        shape = tuple(x.shape)
        if x.ndim != self.spatial_dims + 2 or x.shape[1] not in channels:
            form, allowed = "B C H W" + " D" * (self.spatial_dims - 2), " or ".join(map(str, channels))
            raise SpecError(f"expected `x` to be {form} with C = {allowed}, but got shape {shape}; reshape the image")
        fit = tuple(-(-n // self.divisor) * self.divisor for n in shape[2:])
        if max(fit) == self.divisor:
            # A single pixel at the lowest resolution has no statistics to normalise with.
            fit = (*fit[:-1], 2 * self.divisor)
        if fit != shape[2:]:
            raise SpecError(
                f"expected the sides of `x` to be multiples of {self.divisor}, one of them at least "
                f"{2 * self.divisor}, but got {shape[2:]}; pad the image to {fit}"
            )


class _Normalise(nn.Module):
    """(x - mean) / std per channel, after repeating a single channel as often as there are means."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], *, spatial_dims: int) -> None:
        super().__init__()
        shape = (1, len(mean), *[1] * spatial_dims)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class _DeepLab(nn.Module):
    """Encoder and decoder of DeepLabV3+: image `B 3 H W` -> feature `B F H/4 W/4`.

    The image-level branch of ASPP normalises one pixel per image; BatchNorm cannot do that for a batch of one in
    training, and for small batches it is noise, so that branch has a GroupNorm over all its channels instead.
    """

    def __init__(self, encoder_name: str, *, channels: int, separable: bool, dropout: float) -> None:
        super().__init__()
        net = smp.DeepLabV3Plus(
            encoder_name,
            encoder_weights=None,
            encoder_output_stride=16,
            decoder_channels=channels,
            decoder_atrous_rates=(6, 12, 18),
            decoder_aspp_separable=separable,
            decoder_aspp_dropout=dropout,
        )
        self.encoder, self.decoder = net.encoder, net.decoder
        pooling = self.decoder.aspp[0].convs[-1]
        pooling[2] = nn.GroupNorm(1, channels)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Image, then the encoder's maps at strides 2, 4, 8, 16, 16."""
        return self.encoder(x)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The decoder's last map, at stride 4."""
        return self.decoder(maps)


class _UNet(BasicUNet):
    """MONAI's BasicUNet in two halves: image `B 1 H W D` -> five maps at strides 1 to 16 -> feature `B F H W D`."""

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps at strides 1, 2, 4, 8, 16."""
        maps = [self.conv_0(x)]
        for down in (self.down_1, self.down_2, self.down_3, self.down_4):
            maps.append(down(maps[-1]))
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The decoder's last map, at stride 1."""
        *skips, x = maps
        for up, skip in zip((self.upcat_4, self.upcat_3, self.upcat_2, self.upcat_1), reversed(skips), strict=True):
            x = up(x, skip)
        return x


def _deeplab(
    spec: NetworkSpec, *, encoder: str, weights: str, channels: int, separable: bool, dropout: float
) -> SegmentationNetwork:
    body = _DeepLab(encoder, channels=channels, separable=separable, dropout=dropout)
    loaded = spec.pretrained and load_pretrained(body.encoder, weights)
    return SegmentationNetwork(body, features=channels, spec=spec, spatial_dims=2, encoder_pretrained=loaded)


def deeplabv3plus_resnet50(spec: NetworkSpec) -> SegmentationNetwork:
    """DeepLabV3+ on ResNet-50, output stride 16, 256 channels, ASPP without dropout: LoCo's network, for a GPU."""
    return _deeplab(spec, encoder="resnet50", weights="resnet50", channels=256, separable=False, dropout=0.0)


def deeplabv3plus_efficientnet_lite0(spec: NetworkSpec) -> SegmentationNetwork:
    """DeepLabV3+ on EfficientNet-Lite0, 128 channels, separable ASPP: quick enough to train on a CPU."""
    # `tu-` builds timm's own model: its padding and BatchNorm epsilon are the ones that the weights were trained with.
    return _deeplab(
        spec,
        encoder="tu-tf_efficientnet_lite0",
        weights="efficientnet_lite0",
        channels=128,
        separable=True,
        dropout=0.1,
    )


def _unet(spec: NetworkSpec, features: tuple[int, ...]) -> SegmentationNetwork:
    body = _UNet(spatial_dims=3, in_channels=1, features=features)
    body.final_conv = nn.Identity()
    return SegmentationNetwork(body, features=features[-1], spec=spec, spatial_dims=3, encoder_pretrained=False)


def unet3d(spec: NetworkSpec) -> SegmentationNetwork:
    """MONAI's BasicUNet with its own widths, instance normalisation, no pretrained weights; for a GPU."""
    return _unet(spec, (32, 32, 64, 128, 256, 32))


def unet3d_small(spec: NetworkSpec) -> SegmentationNetwork:
    """BasicUNet of half the width, for a CPU."""
    return _unet(spec, (16, 16, 32, 64, 128, 16))


Builder = Callable[[NetworkSpec], SegmentationNetwork]

NETWORKS_2D: dict[str, Builder] = {
    "deeplabv3plus_resnet50": deeplabv3plus_resnet50,
    "deeplabv3plus_efficientnet_lite0": deeplabv3plus_efficientnet_lite0,
}
NETWORKS_3D: dict[str, Builder] = {"unet3d": unet3d, "unet3d_small": unet3d_small}
NETWORKS: dict[str, Builder] = NETWORKS_2D | NETWORKS_3D


def build_network(spec: NetworkSpec, spatial_dims: int) -> SegmentationNetwork:
    """The network that `spec` names, on the CPU, with ImageNet weights if asked for and present on this machine.

    Raises:
        SpecError: `spatial_dims` is neither 2 nor 3, or no network of that dimension has the name.
    """
    if spatial_dims not in (2, 3):
        raise SpecError(f"expected `spatial_dims` to be 2 or 3, but got {spatial_dims!r}; use `DataSpec.spatial_dims`")
    fitting = NETWORKS_2D if spatial_dims == 2 else NETWORKS_3D
    if spec.name not in fitting:
        raise SpecError(
            f"expected `name` to be a {spatial_dims}D network, one of {sorted(fitting)}, but got {spec.name!r}; "
            "choose one of these"
        )
    network = with_quick_depthwise(fitting[spec.name](spec))
    # a fifth faster on a CPU, and what tensor cores want; in 3D it was measured to bring nothing
    return network.to(memory_format=torch.channels_last) if spatial_dims == 2 else network


def default_network(kind: Kind, cuda: bool) -> str:
    """Name of the network for a kind of data: LoCo's where there is a GPU, a small one otherwise.

    Raises:
        SpecError: unknown `kind`.
    """
    if kind not in KINDS:
        raise SpecError(f"expected `kind` to be one of {list(KINDS)}, but got {kind!r}; choose one of these")
    if kind == "volume":
        return "unet3d" if cuda else "unet3d_small"
    return "deeplabv3plus_resnet50" if cuda else "deeplabv3plus_efficientnet_lite0"
