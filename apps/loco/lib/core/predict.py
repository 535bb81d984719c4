"""One case to probabilities. Infer, validation and scoring all come through here, so they agree to the last voxel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from lib.core.cases import Case
from lib.core.grid import Grid, to_native
from lib.core.spec import DataSpec

logger = logging.getLogger(__name__)

_SLICES_AT_ONCE = 8
_SLICES_PER_WINDOW = 2
"""Several windows of a volume at once, too: PyTorch has a quick 3D convolution on a CPU only for more than one image."""
_WINDOW_OVERLAP = 0.25


@dataclass(frozen=True)
class Prediction:
    """`probs` K *working float32 on the CPU; `projection` P *working float16 or None; `grid` leads back to the image."""

    probs: Tensor
    grid: Grid
    projection: Tensor | None = None

    def native_probs(self) -> Tensor:
        """Probabilities on the voxels of the image: `K *native_shape` float32."""
        return to_native(self.probs, self.grid, nearest=False)

    def native_label(self) -> Tensor:
        """Class index per voxel of the image: `*native_shape` uint8."""
        return likeliest(self.native_probs())


def likeliest(probs: Tensor) -> Tensor:
    """Class with the highest probability, `K *S` to `*S` uint8; of equals the first.

    Class by class: `argmax` over the first axis takes on a CPU about as long as the network itself.
    """
    best, label = probs[0], torch.zeros(probs.shape[1:], dtype=torch.uint8, device=probs.device)
    for index in range(1, len(probs)):
        label.masked_fill_(probs[index] > best, index)
        best = torch.maximum(best, probs[index])
    return label


@torch.no_grad()
def predict(
    network: nn.Module,
    case: Case,
    data: DataSpec,
    device: torch.device,
    with_projection: bool = False,
    at_once: int = _SLICES_AT_ONCE,
) -> Prediction:
    """Probabilities of one case from a network in evaluation mode.

    Args:
        network: `B C H W [D]` to `NetworkOutput`; the teacher of a checkpoint.
        case: the loaded study.
        data: the specification the network was trained with.
        device: where the network is.
        with_projection: also return the dense projection at working resolution, for scoring.
        at_once: slices in one batch, and twice as many as windows of a volume; fewer need less memory.

    Returns:
        The prediction, on the CPU.
    """
    forward = _full_resolution(network, device, with_projection)
    if data.kind == "volume":
        windows = max(1, at_once // _SLICES_PER_WINDOW)
        probs, projection = _windows(forward, case.image, data, network.divisor, windows, with_projection)
    elif data.kind == "slice":
        probs, projection = _slice_by_slice(forward, case.image, network.divisor, at_once)
    else:
        probs, projection = _padded(forward, case.image[None], network.divisor)
        probs, projection = probs[0], projection[0] if projection is not None else None
    return Prediction(probs.float().cpu(), case.grid, projection.half().cpu() if projection is not None else None)


def predict_in_memory(
    network: nn.Module, case: Case, data: DataSpec, device: torch.device, with_projection: bool = False
) -> tuple[Prediction, str]:
    """`predict`, and what had to be done for want of GPU memory. Raises `torch.OutOfMemoryError` when nothing helps."""
    try:
        return predict(network, case, data, device, with_projection), ""
    except torch.OutOfMemoryError:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    logger.warning("The GPU is out of memory: segmenting again with one slice at a time")
    prediction = predict(network, case, data, device, with_projection, at_once=1)
    return prediction, "one slice at a time, for want of GPU memory"


Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def _full_resolution(network: nn.Module, device: torch.device, with_projection: bool) -> Forward:
    """`B C ...` to softmax `B K ...` and, if wanted, the projection upsampled to the same size."""

    def forward(image: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            output = network(image.to(device))
        probs = torch.softmax(output.logits.float(), dim=1)
        if not with_projection:
            return probs, None
        mode = "bilinear" if probs.ndim == 4 else "trilinear"
        size = tuple(probs.shape[2:])
        projection = output.projection.float()
        if projection.ndim == 4:
            # upsampling takes a fifth of the time on a CPU
            projection = projection.contiguous(memory_format=torch.channels_last)
        return probs, F.interpolate(projection, size=size, mode=mode, align_corners=True)

    return forward


def _padded(forward: Forward, batch: Tensor, divisor: int) -> tuple[Tensor, Tensor | None]:
    """Pad a batch `B C H W [D]` at the end of each axis to a multiple of `divisor`, run it, cut the padding off."""
    size = batch.shape[2:]
    target = [-(-s // divisor) * divisor for s in size]
    if max(target) == divisor:  # the networks refuse an input whose sides are all one divisor
        target[-1] = 2 * divisor
    padding = [n for s, t in zip(reversed(size), reversed(target), strict=True) for n in (0, t - s)]
    probs, projection = forward(F.pad(batch, padding, mode="replicate") if any(padding) else batch)
    cut = (slice(None), slice(None), *(slice(0, s) for s in size))
    return probs[cut], projection[cut] if projection is not None else None


def _slice_by_slice(forward: Forward, image: Tensor, divisor: int, at_once: int) -> tuple[Tensor, Tensor | None]:
    """`C H W D` through a 2D network, `at_once` slices at a time; results `K H W D` and `P H W D`."""
    outputs = [_padded(forward, s, divisor) for s in image.permute(3, 0, 1, 2).split(at_once)]
    probs = torch.cat([p.cpu() for p, _ in outputs]).permute(1, 2, 3, 0)
    if outputs[0][1] is None:
        return probs, None
    return probs, torch.cat([z.half().cpu() for _, z in outputs]).permute(1, 2, 3, 0)


def _windows(
    forward: Forward, image: Tensor, data: DataSpec, divisor: int, at_once: int, with_projection: bool
) -> tuple[Tensor, Tensor | None]:
    """Gaussian-weighted sliding windows of the training crop, `at_once` in a batch; a volume below one crop is one window."""
    if all(s <= p for s, p in zip(image.shape[1:], data.patch, strict=True)):
        probs, projection = _padded(forward, image[None], divisor)
        return probs[0], projection[0] if projection is not None else None

    def run(window: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        probs, projection = forward(window)
        return (probs.cpu(), projection.cpu()) if with_projection else probs.cpu()

    result = sliding_window_inference(
        image[None], data.patch, at_once, run, overlap=_WINDOW_OVERLAP, mode="gaussian", device=torch.device("cpu")
    )
    return (result[0][0], result[1][0]) if with_projection else (result[0], None)
