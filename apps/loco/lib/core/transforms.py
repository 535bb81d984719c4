"""Training views. Weak: geometry, labels alike. Strong: appearance only, of the same weak crop, so pixels stay aligned.

Frames follow LoCo (arXiv 2412.02314): long side x U(0.5, 2), padding, random crop, horizontal flip; colour jitter
(0.5, 0.5, 0.5, 0.25) with probability 0.8, greyscale 0.2, blur 0.5. Slices and volumes keep their orientation, which is
known, and get the greyscale counterparts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
import torchvision.transforms.functional as tv
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    RandZoomd,
    SpatialPadd,
)
from torch import Tensor

from lib.core.spec import IGNORE, DataSpec

Item = dict[str, Tensor]
_BOTH = ("image", "label")


def weak_view(item: Item, data: DataSpec, rng: np.random.RandomState) -> Item:
    """Random geometry of one case.

    Args:
        item: `image` C H W [D] in [0, 1] and `label` 1 H W [D]; unlabelled studies bring a label of zeros, which comes
            back as their ignore map (255 where the crop was padded).
        data: decides scales and crop.
        rng: the only source of randomness.

    Returns:
        The same keys, cropped and padded to `data.patch`; padded pixels are 0 in the image and 255 in the label.
    """
    transform = _weak(data, has_label=bool(item["label"].any()))
    transform.set_random_state(state=rng)
    with _untracked():
        out = transform({k: _plain(item[k]) for k in _BOTH})
    out = out[0] if isinstance(out, list) else out  # `RandCropByPosNegLabeld` makes a list of its one sample
    return {k: _plain(out[k]) for k in _BOTH}


def strong_view(image: Tensor, data: DataSpec, rng: np.random.RandomState) -> Tensor:
    """Random appearance of a weak crop `C H W [D]` in [0, 1]; same shape and range."""
    if data.kind == "frame":
        return _colour(image, rng)
    transform = _grey_appearance()
    transform.set_random_state(state=rng)
    with _untracked():
        return _plain(transform({"image": _plain(image)})["image"]).clamp(0, 1)


def crop_slice(item: Item, rng: np.random.RandomState) -> tuple[Item, int]:
    """One slice of a thick-slice volume `C H W D` to `C H W`; of a labelled one, two times in three with foreground.

    Returns:
        The slice and its position along D.
    """
    depth = item["image"].shape[-1]
    filled = torch.nonzero(item["label"].flatten(0, -2).any(dim=0)).flatten().tolist()
    pool = filled if filled and rng.rand() < 2 / 3 else list(range(depth))
    index = pool[rng.randint(len(pool))]
    return {k: item[k][..., index] for k in _BOTH}, index


@contextmanager
def _untracked() -> Iterator[None]:
    """Without MONAI's record of what was done to a tensor, which nobody reads here and takes half of the time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


@lru_cache(maxsize=4)
def _weak(data: DataSpec, has_label: bool) -> Compose:
    pad = [
        SpatialPadd("image", data.patch, method="end", mode="constant", value=0),
        SpatialPadd("label", data.patch, method="end", mode="constant", value=IGNORE),
    ]
    crop = RandSpatialCropd(_BOTH, data.patch, random_size=False)
    if data.kind == "frame":
        zoom = RandZoomd(_BOTH, prob=1.0, min_zoom=0.5, max_zoom=2.0, mode=("bilinear", "nearest"), keep_size=False)
        return Compose([zoom, *pad, crop, RandFlipd(_BOTH, prob=0.5, spatial_axis=0)])
    affine = RandAffined(
        _BOTH,
        prob=0.8,
        rotate_range=(0.26,) if data.spatial_dims == 2 else (0.0, 0.0, 0.26),
        scale_range=(0.2,) * data.spatial_dims,
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )
    if data.kind == "slice" or not has_label:
        return Compose([affine, *pad, crop])
    near_object = RandCropByPosNegLabeld(_BOTH, "label", data.patch, pos=2, neg=1, num_samples=1, allow_smaller=True)
    return Compose([affine, near_object, *pad])


def _colour(image: Tensor, rng: np.random.RandomState) -> Tensor:
    if rng.rand() < 0.8:
        factors = 1 + rng.uniform(-0.5, 0.5, size=3)
        hue = rng.uniform(-0.25, 0.25)
        operations = [
            lambda x: tv.adjust_brightness(x, factors[0]),
            lambda x: tv.adjust_contrast(x, factors[1]),
            lambda x: tv.adjust_saturation(x, factors[2]),
            lambda x: tv.adjust_hue(x, hue),
        ]
        for index in rng.permutation(len(operations)):
            image = operations[index](image)
    if rng.rand() < 0.2:
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if rng.rand() < 0.5:
        image = _blur(image, rng.uniform(0.1, 2.0))
    return image.clamp(0, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    size = 2 * int(3 * sigma + 0.5) + 1
    return tv.gaussian_blur(image, [size, size], [sigma, sigma]) if size > 1 else image


@lru_cache(maxsize=1)
def _grey_appearance() -> Compose:
    return Compose(
        [
            RandScaleIntensityd("image", factors=0.5, prob=0.8),
            RandShiftIntensityd("image", offsets=0.1, prob=0.8),
            RandAdjustContrastd("image", prob=0.8, gamma=(0.7, 1.5)),
            RandGaussianSmoothd(
                "image", prob=0.5, sigma_x=(0.1, 1.5), sigma_y=(0.1, 1.5), sigma_z=(0.1, 1.5), approx="erf"
            ),
            RandGaussianNoised("image", prob=0.2, std=0.05),
        ]
    )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
