"""A model that sees the lesions of generated frames, made in seconds and without chance: no training of a test is that short.

The encoder is the pretrained one and the decoder random, which is enough of a basis for things as plain as a bright disk;
only the last layer is fitted, by weighted least squares.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.core.cases import load_case
from lib.core.checkpoint import Checkpoint, save_checkpoint
from lib.core.networks import SegmentationNetwork, build_network
from lib.core.plan import plan_task
from lib.core.spec import MethodSpec

SURENESS = 12.0
"""Logits per unit of the fitted value, which is -0.5 outside a lesion and 0.5 within."""


def write_seeing_model(root: Path) -> Path:
    """Fit it to all frames of `root`, studies and truth; the file, as the app would upload it."""
    spec = plan_task("frame", {"lesion": 1}, [], MethodSpec(), cuda=torch.cuda.is_available())
    images = sorted((root / "studies").glob("*.png"))
    cases = [load_case(str(i), str(root / "truth" / i.name), spec.data, 2) for i in images]
    torch.manual_seed(0)
    network = build_network(spec.network, spec.data.spatial_dims)
    with torch.no_grad():
        _fit(network, torch.stack([c.image for c in cases]), torch.stack([c.label for c in cases]).float())
    path = root / "seeing.pt"
    save_checkpoint(Checkpoint(spec, network.state_dict(), network.state_dict()), path)
    return path


def _fit(network: SegmentationNetwork, images: Tensor, labels: Tensor) -> None:
    """Last layer by weighted least squares; `images` `B 3 H W` in [0, 1], `labels` `B 1 H W` 0 or 1."""
    margin = [side for size in reversed(images.shape[2:]) for side in (0, -size % network.divisor)]
    images, labels = functional.pad(images, margin, mode="replicate"), functional.pad(labels, margin)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(images)  # so that the statistics are those of these images
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    features = network.eval()(images).feature
    wanted = functional.interpolate(labels, size=features.shape[2:], mode="area").flatten()
    rows = features.movedim(1, -1).flatten(0, -2)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    inside = wanted > 0.5
    weight = torch.where(inside, 0.5 * (~inside).sum() / inside.sum(), torch.ones(()))[:, None]
    ridge = 1e-7 * len(rows) * torch.eye(rows.shape[1])
    solved = torch.linalg.solve((weight * rows).T @ rows + ridge, (weight * rows).T @ (wanted - 0.5))
    for index, sign in enumerate((-1, 1)):
        network.classifier.weight[index, :, 0, 0] = sign * SURENESS * solved[:-1]
        network.classifier.bias[index] = sign * SURENESS * solved[-1]
