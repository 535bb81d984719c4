"""Defaults that depend on the studies and the machine: the kind of model, its working grid, network and training budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lib.core.images import ImageHeader
from lib.core.networks import default_network
from lib.core.spec import KINDS, DataSpec, Kind, MethodSpec, NetworkSpec, SpecError, TaskSpec, TrainSpec

THICK = 3.0
"""Slices are thick when the largest spacing is at least this many times the smallest."""

_CPU_VOLUME_VOXELS = 2e5
"""On a CPU a whole volume is brought to about this many voxels, but never coarsened more than 2.5 times."""

_SMALLEST = 32
"""The networks need one side of at least this many pixels; smaller studies are padded."""

_PROJECTION = {"frame": 64, "slice": 64, "volume": 32}


def decide_kind(headers: Sequence[ImageHeader]) -> Kind:
    """The model that most of the studies ask for; frame when there is nothing to look at."""
    votes = [_kind_of(h) for h in headers]
    return max(KINDS, key=votes.count) if votes else "frame"


def plan_data(kind: Kind, headers: Sequence[ImageHeader], cuda: bool) -> DataSpec:
    """Working grid and training crop for these studies. Sizes in pixels, spacing in mm."""
    if kind == "frame":
        return DataSpec("frame", (384, 384), 512) if cuda else DataSpec("frame", (256, 256), 256)
    volumes = [_sorted_axes(h) for h in headers if len(h.shape) == 3] or [((256, 256, 32), (1.0, 1.0, 1.0))]
    spacing = np.median([s for _, s in volumes], axis=0)
    extent = np.median([np.multiply(n, s) for n, s in volumes], axis=0)
    if kind == "slice":
        return _plan_slices(extent, spacing, cuda)
    return _plan_volumes(extent, spacing, cuda)


def plan_training(kind: Kind, cuda: bool) -> TrainSpec:
    """Budget of one run: on a CPU a few minutes on two cores, on a GPU a longer run with the published batch.

    LoCo's SGD is made for tens of thousands of steps. In the few hundred of a CPU AdamW learns far more, with the same
    rate for the pretrained encoder.
    """
    if cuda:
        return TrainSpec(10, 200, 8 if kind != "volume" else 2, 8 if kind != "volume" else 2, 1e-2, 0.99)
    if kind == "volume":
        return TrainSpec(4, 20, 1, 1, 5e-2, 0.9)
    return TrainSpec(5, 30, 2, 2, 1e-3, 0.9, weight_decay=1e-2, optimizer="adamw", encoder_rate=1.0)


def plan_task(
    kind: Kind, labels: Mapping[str, int], headers: Sequence[ImageHeader], method: MethodSpec, cuda: bool
) -> TaskSpec:
    """Everything about a model that is not yet trained."""
    if not labels:
        raise SpecError("expected at least one label, but got none; set them with --conf labels NAME[,NAME...]")
    network = NetworkSpec(default_network(kind, cuda), max(labels.values()) + 1, _PROJECTION[kind])
    return TaskSpec(dict(labels), plan_data(kind, headers, cuda), network, method, plan_training(kind, cuda))


def _kind_of(header: ImageHeader) -> Kind:
    if header.colour or len(header.shape) == 2 or min(header.shape) == 1:
        return "frame"
    return "slice" if max(header.spacing) >= THICK * min(header.spacing) else "volume"


def _sorted_axes(header: ImageHeader) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and spacing with the through-plane axis (largest spacing, then fewest voxels) last."""
    order = sorted(range(3), key=lambda a: (round(header.spacing[a], 3), -header.shape[a]))
    return tuple(header.shape[a] for a in order), tuple(header.spacing[a] for a in order)


def _plan_slices(extent: np.ndarray, spacing: np.ndarray, cuda: bool) -> DataSpec:
    size = 512 if cuda else 192
    step = max(float(np.mean(spacing[:2])), float(max(extent[:2])) / size)
    largest = 320 if cuda else 192
    patch = tuple(min(largest, _ceil16(float(e) / step)) for e in extent[:2])
    side = max(_SMALLEST, *patch)
    return DataSpec("slice", (side, side), size, (step, step))


def _plan_volumes(extent: np.ndarray, spacing: np.ndarray, cuda: bool) -> DataSpec:
    step = float(np.exp(np.mean(np.log(spacing))))
    if not cuda:
        voxels = float(np.prod(extent / step))
        step *= float(np.clip((voxels / _CPU_VOLUME_VOXELS) ** (1 / 3), 1.0, 2.5))
    largest = 96 if cuda else 64
    patch = tuple(min(largest, _ceil16(float(e) / step)) for e in extent)
    patch = (max(_SMALLEST, patch[0]), *patch[1:])
    return DataSpec("volume", patch, 0, (round(step, 4),) * 3)


def _ceil16(value: float) -> int:
    return max(16, 16 * math.ceil(value / 16 - 1e-6))
