"""A study as pictures: one plane of it, and on transparent ground the contours of a segmentation and the low-contrast band.

All layers of a study have the same size. Volumes are drawn on the working grid, whose axes run to the patient's right, front
and head, and are shown as radiologists do: the patient's right on the left, front and head on top.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor

from lib.core.cases import Case
from lib.core.lowcontrast import field_of_view, low_contrast_band
from lib.core.predict import Prediction

SIZE = 512
"""Longest side in pixels."""
COLOURS = ("#ffd23f", "#3bceac", "#ee6c9f", "#4ea8de", "#f3722c", "#b388eb", "#c0ca33", "#e0e0e0")
"""Of classes 1, 2, ...; bright on dark tissue, and of different lightness."""
_BAND = (255, 64, 64)
_BAND_ALPHA = 200
_WEBP_QUALITY = 85
_LINE, _RIM = 5, 2
"""Widths of a contour and of its dark edge in pixels: still seen when the picture is shown at half its size."""
_DASH = 16
"""Length in pixels of the dashes by which a label is told from what the model draws, and of the dim gaps between them."""
_DIM = 0.35
"""Share of the colour in a gap: on a small picture, where dashes are not seen, the line is still whole."""


@dataclass(frozen=True)
class Plane:
    """Which part of a study is drawn: `index` of the last working axis, None for a picture."""

    index: int | None

    def of(self, values: np.ndarray) -> np.ndarray:
        """`... X Y [Z]` to rows and columns as they are shown, `... rows columns`."""
        if self.index is None:
            return np.swapaxes(values, -1, -2)
        return np.swapaxes(values[..., self.index][..., ::-1, ::-1], -1, -2)


def colour_of(index: int) -> str:
    """Colour of a class, #rrggbb."""
    return COLOURS[(index - 1) % len(COLOURS)]


def draw(case: Case, prediction: Prediction | None, labels: Mapping[str, int], picture: bool) -> dict[str, bytes]:
    """Layers of a study by name: `image` (WebP), and as PNG `contour` and `band` of the prediction and `label` of the case.

    Args:
        case: the loaded study, with its label if that is to be drawn.
        prediction: of the teacher, None without a model.
        labels: class names and indices.
        picture: the study is a picture and not a volume.

    Returns:
        Encoded layers; a layer without anything in it is empty.
    """
    label = _label_of(case)
    classes = prediction.probs.argmax(dim=0).numpy() if prediction is not None else None
    plane = (
        Plane(None) if case.image.ndim == 3 else Plane(_richest(classes if classes is not None else label, case.image))
    )
    shown = plane.of(case.image.numpy())
    flat = [case.grid.native_shape[axis] for axis in reversed(case.grid.axes)]
    size = _size(flat if plane.index is None else shown.shape[-2:])
    layers = {"image": _image(shown, size), "contour": b"", "band": b"", "label": b""}
    if prediction is not None:
        probs = _resized(plane.of(prediction.probs.numpy()), size)
        layers["contour"] = _contours(probs.argmax(axis=0), labels, size)
        field = field_of_view(case.image, picture)
        band = plane.of(low_contrast_band(prediction, labels, field).numpy())
        layers["band"] = _glow(_resized(band[None], size)[0])
    if label is not None:
        layers["label"] = _contours(_nearest(plane.of(label), size), labels, size, dashed=True)
    return layers


def _label_of(case: Case) -> np.ndarray | None:
    """The label as it is drawn: of a picture on its own pixels where they are known, else on the working grid."""
    if case.native_label is not None and case.image.ndim == 3:
        return case.native_label.reshape([case.grid.native_shape[axis] for axis in case.grid.axes]).numpy()
    return case.label[0].numpy() if case.label is not None else None


def _richest(classes: np.ndarray | None, image: Tensor) -> int:
    """The slice with most of any class, the middle one when there is none."""
    count = np.count_nonzero(classes, axis=(0, 1)) if classes is not None else np.zeros(1)
    return int(count.argmax()) if count.any() else image.shape[-1] // 2


def _size(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns as drawn."""
    scale = SIZE / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _image(values: np.ndarray, size: tuple[int, int]) -> bytes:
    """`C rows columns` in [0, 1] as WebP."""
    pixels = (np.moveaxis(values, 0, -1) * 255).round().astype(np.uint8)
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return _encoded(shown.convert("RGB"), "WEBP", quality=_WEBP_QUALITY)


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`C rows columns` float to the drawn size, bilinear."""
    planes = [Image.fromarray(np.ascontiguousarray(v, dtype=np.float32), mode="F") for v in values]
    return np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BILINEAR)) for p in planes])


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    plane = Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8))
    return np.asarray(plane.resize(size[::-1], Image.Resampling.NEAREST))


def _contours(classes: np.ndarray, labels: Mapping[str, int], size: tuple[int, int], dashed: bool = False) -> bytes:
    """Outlines in the colours of the classes, with a dark rim so that they are seen on any ground; empty without any."""
    pixels = np.zeros((*size, 4), dtype=np.uint8)
    for index in labels.values():
        mask = classes == index
        line = mask & ~ndimage.binary_erosion(mask, iterations=_LINE, border_value=1)
        rim = ndimage.binary_dilation(line, iterations=_RIM) & ~line & (pixels[..., 3] == 0)
        pixels[rim] = (0, 0, 0, 140)
        pixels[line] = (*_rgb(colour_of(index)), 255)
        if dashed:
            pixels[_gaps(line, mask)] = (*(int(_DIM * value) for value in _rgb(colour_of(index))), 255)
    return _encoded(Image.fromarray(pixels), "PNG") if pixels[..., 3].any() else b""


def _gaps(line: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Where the outline of `mask` is dim to make dashes: by the angle around the middle of each of its parts."""
    parts, count = ndimage.label(mask)
    middles = np.array([(0.0, 0.0), *ndimage.center_of_mass(mask, parts, range(1, count + 1))])
    part = parts[line]
    dashes = np.maximum(4, np.bincount(part, minlength=count + 1) / _LINE // (2 * _DASH))
    angle = np.arctan2(*(np.argwhere(line) - middles[part]).T)
    gaps = np.zeros_like(line)
    gaps[line] = np.sin(dashes[part] * angle) < 0
    return gaps


def _glow(band: np.ndarray) -> bytes:
    """The band in red, the lower the contrast the stronger; empty without any."""
    pixels = np.zeros((*band.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _BAND
    pixels[..., 3] = (band.clip(0, 1) * _BAND_ALPHA).round()
    return _encoded(Image.fromarray(pixels), "PNG") if pixels[..., 3].any() else b""


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
