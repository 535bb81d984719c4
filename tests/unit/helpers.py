"""Small studies on disk and tiny networks, shared by the unit tests."""

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import Image
from torch import nn

from lib.core.networks import NetworkOutput
from lib.core.spec import DataSpec, MethodSpec, NetworkSpec, TaskSpec, TrainSpec

ORIENTATIONS = [
    "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))
    for axes in permutations(("RL", "AP", "SI"))
    for signs in product((0, 1), repeat=3)
]
"""All 48 axis codes, RAS first."""

FRAME = DataSpec("frame", (32, 32), 64)
SLICE = DataSpec("slice", (32, 32), 64, (1.0, 1.0))
VOLUME = DataSpec("volume", (16, 16, 16), 0, (1.0, 1.0, 1.0))


def affine_of(codes, shape, spacing, origin=(-7.0, 11.0, 3.0)):
    """Voxel-to-RAS matrix of an array `shape` whose axes run towards `codes`, e.g. LPS, with `spacing` per array axis."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        ras = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[ras, axis] = spacing[axis] * (1 if code in "RAS" else -1)
        if code not in "RAS":
            affine[ras, 3] += spacing[axis] * (shape[axis] - 1)
    affine[:3, 3] += origin
    return affine


def reoriented(array, affine, codes):
    """The same volume, stored with its axes towards `codes`."""
    image = nib.Nifti1Image(array, affine)
    start = nib.orientations.io_orientation(affine)
    end = nib.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(start, end))
    return np.asarray(turned.dataobj), turned.affine


def nifti(path: Path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return str(path)


def png(path: Path, array, mode=None):
    """`array`: rows, columns[, channels]."""
    Image.fromarray(array, mode).save(path)
    return str(path)


def noise(*shape, seed=0, low=0, high=256, dtype=np.uint8):
    return np.random.RandomState(seed).randint(low, high, shape).astype(dtype)


def spec_of(data=FRAME, *, labels=None, network=None, method="loco", epochs=2, iterations=3, batch=2, unlabelled=2):
    labels = {"polyp": 1} if labels is None else labels
    default = "unet3d_small" if data.kind == "volume" else "deeplabv3plus_efficientnet_lite0"
    return TaskSpec(
        labels=labels,
        data=data,
        network=NetworkSpec(network or default, max(labels.values()) + 1, 8, pretrained=False),
        method=replace(MethodSpec(), name=method),
        training=TrainSpec(epochs, iterations, batch, unlabelled, 1e-2, 0.9, seed=3),
    )


class Threshold(nn.Module):
    """Class 1 where the mean over channels exceeds `level`, with logits of +-`sharpness` x distance."""

    def __init__(self, level=0.5, sharpness=200.0, divisor=16):
        super().__init__()
        self.level, self.sharpness, self.divisor = level, sharpness, divisor

    def forward(self, x):
        distance = self.sharpness * (x.mean(1, keepdim=True) - self.level)
        return NetworkOutput(torch.cat([-distance, distance], 1), torch.cat([x.mean(1, keepdim=True), 1 + 0 * x], 1))


class Tiny(nn.Module):
    """Two levels of convolutions with BatchNorm and a dropout of 0: logits at full, projection at half resolution."""

    divisor = 2

    def __init__(self, dims=2, channels=1, classes=3, projection=4):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.spatial_dims = dims
        self.body = nn.Sequential(conv(channels, 6, 3, padding=1), norm(6), nn.ReLU())
        self.down = nn.Sequential(
            conv(6, 8, 2, stride=2), norm(8), nn.ReLU(), (nn.Dropout2d, nn.Dropout3d)[dims - 2](0.0)
        )
        self.fuse = nn.Sequential(conv(14, 6, 1), norm(6), nn.ReLU())
        self.classifier = conv(6, classes, 1)
        self.pool = nn.AvgPool2d(2) if dims == 2 else nn.AvgPool3d(2)
        self.projector = conv(6, projection, 1)

    def forward(self, x):
        return self.decode(self.encode(x))

    def encode(self, x):
        full = self.body(x)
        return [full, self.down(full)]

    def decode(self, maps):
        up = nn.functional.interpolate(maps[1], size=maps[0].shape[2:])
        feature = self.fuse(torch.cat([maps[0], up], 1))
        return NetworkOutput(self.classifier(feature), self.projector(self.pool(feature)), maps, feature)

    def parameter_groups(self, learning_rate, encoder_rate=1.0):
        return [{"name": "rest", "params": list(self.parameters()), "lr": learning_rate}]
