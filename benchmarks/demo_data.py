"""Demo studies: endoscopy-like colour frames with low-contrast lesions of known outline. The same seed, the same files.

    python benchmarks/demo_data.py FOLDER [--pool 60] [--held-out 16] [--size 256] [--seed 0] [--sheet SHEET.png]

A frame is a lit, wet surface: a height map (folds, unevenness) shaded by a lamp beside the camera, a mucosa-like colour
with vessels, highlights where the surface mirrors the lamp, a dark lumen, dark corners. A lesion is a smooth blob that
is raised a little, differs a little in colour and grain, and hides the vessels below it; `contrast` scales all of that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco")]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402

from lib.progressbar import progress  # noqa: E402

LOWEST, HIGHEST = 0.2, 1.0
"""Contrast of the faintest and of the clearest lesion."""

JPEG_QUALITY = 92
_OVERSIZE = 1.25
"""Corners of the frame lie outside the round field of view by this much."""


@dataclass(frozen=True)
class Frame:
    """`image` H W 3 uint8; `mask` H W uint8, 1 = lesion; `contrast` of the lesion in [LOWEST, HIGHEST]."""

    image: np.ndarray
    mask: np.ndarray
    contrast: float


@dataclass(frozen=True)
class Studies:
    """Folders that `make_studies` filled."""

    images: Path
    truth: Path
    held_out: Path
    """Holds `images` and `labels`."""
    contrast: dict[str, float]
    """By file stem, pool and held-out frames alike."""


def noise(rng: np.random.Generator, size: int, feature: float, octaves: int = 1) -> np.ndarray:
    """Smooth random field `size size`, mean 0, deviation 1; features of `feature` pixels, then of half of that."""
    field = np.zeros((size, size))
    for octave in range(octaves):
        field += _smooth(rng.standard_normal((size, size)), feature / 2 / 2**octave) / 2**octave
    return (field - field.mean()) / field.std()


def make_frame(rng: np.random.Generator, size: int, contrast: float) -> Frame:
    """One frame with one lesion, in a fifth of the frames two, of the given contrast in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size] / size
    border, mask = _lesions(rng, size, x, y)
    lumen = _lumen(rng, x, y, mask)
    strength = contrast * border

    height = 0.030 * noise(rng, size, size * 0.45) + 0.0022 * noise(rng, size, size * 0.09, 3) + _folds(rng, size, x, y)
    grain = noise(rng, size, size * 0.016, 2)
    height = height + 0.045 * contrast * gaussian_filter(border, size * 0.02) + 0.0016 * strength * grain
    diffuse, mirror = _shade(height, x, y, rng.uniform(0.3, 0.7, 2))

    colour = _mucosa(rng, size)
    vessels = _vessels(rng, size) * (1 - np.minimum(1.0, 1.3 * strength))
    colour = colour * (1 - vessels[..., None] * np.array([0.10, 0.30, 0.26]))
    shift = np.array(rng.choice([[1.10, 1.22, 1.16], [1.12, 0.86, 0.88], [1.10, 1.14, 0.92]]))
    mottled = 1 + 0.10 * grain[..., None] * np.array([0.5, 1.0, 1.0])
    colour = colour * (1 + strength[..., None] * (shift * mottled - 1))

    gain = rng.uniform(0.95, 1.2)
    image = gain * colour * (diffuse * lumen)[..., None] + mirror[..., None] * lumen[..., None]
    image = image * _vignette(rng, x, y)[..., None] + 0.008 * rng.standard_normal((size, size, 3))
    return Frame((255 * np.clip(_tone(image), 0, 1)).astype(np.uint8), mask.astype(np.uint8), contrast)


def make_studies(folder: Path, pool: int, held_out: int, size: int, seed: int) -> Studies:
    """Write `pool` frames into frames/ with masks in truth/, and `held_out` others into held_out/{images,labels}/."""
    rng = np.random.default_rng(seed)
    studies = Studies(folder / "frames", folder / "truth", folder / "held_out", {})
    groups = (
        ("frame", pool, studies.images, studies.truth),
        ("held", held_out, studies.held_out / "images", studies.held_out / "labels"),
    )
    with progress("Drawing frames", pool + held_out) as advance:
        for name, count, images, masks in groups:
            images.mkdir(parents=True, exist_ok=True)
            masks.mkdir(parents=True, exist_ok=True)
            for number, contrast in enumerate(rng.permutation(np.linspace(LOWEST, HIGHEST, count))):
                frame = make_frame(np.random.default_rng(rng.integers(2**63)), size, float(contrast))
                stem = f"{name}_{number:03d}"
                Image.fromarray(frame.image).save(images / f"{stem}.jpg", quality=JPEG_QUALITY)
                Image.fromarray(frame.mask).save(masks / f"{stem}.png")
                studies.contrast[stem] = round(frame.contrast, 3)
                advance()
    (folder / "contrast.json").write_text(json.dumps(studies.contrast, indent=1) + "\n")
    return studies


def contact_sheet(images: Path, masks: Path, columns: int = 8, tile: int = 192) -> Image.Image:
    """Frames above the same frames with the outline of the truth, row by row, for a look at everything at once."""
    paths = sorted(images.iterdir())
    rows = -(-len(paths) // columns)
    sheet = Image.new("RGB", (columns * tile, 2 * rows * tile))
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        mask = np.asarray(Image.open(masks / f"{path.stem}.png")) > 0
        outlined = np.asarray(image).copy()
        outlined[gaussian_filter(mask.astype(float), 1.0) * ~mask > 0.15] = (0, 255, 80)
        left, top = number % columns * tile, 2 * (number // columns) * tile
        sheet.paste(image.resize((tile, tile)), (left, top))
        sheet.paste(Image.fromarray(outlined).resize((tile, tile)), (left, top + tile))
    return sheet


def _smooth(white: np.ndarray, sigma: float) -> np.ndarray:
    """White noise under a Gaussian of `sigma` pixels that goes round the frame, deviation 1."""
    size = len(white)
    along = np.exp(-2 * (np.pi * max(0.4, sigma) * np.fft.fftfreq(size)) ** 2)
    layer = np.fft.irfft2(np.fft.rfft2(white) * np.outer(along, along[: size // 2 + 1]), s=white.shape)
    return layer / layer.std()


def _lesions(rng: np.random.Generator, size: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Soft membership in [0, 1] and the mask, which is where it reaches one half."""
    level = np.full((size, size), -1.0)
    for _ in range(2 if rng.random() < 0.2 else 1):
        radius = rng.uniform(0.11, 0.21)
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.26)
        cx, cy = 0.5 + distance * np.cos(angle), 0.5 + distance * np.sin(angle)
        stretch, turn = rng.uniform(0.7, 1.0), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        level = np.maximum(level, 1 - np.hypot(u, v / stretch) / radius)
    level = level + 0.13 * noise(rng, size, size * 0.11, 2) * np.exp(-((level / 0.5) ** 2))
    border = 1 / (1 + np.exp(-level / rng.uniform(0.03, 0.08)))
    return border, border >= 0.5


def _lumen(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Light that reaches the wall: less towards a dark hole at the rim, away from the lesion, in most frames."""
    if rng.random() < 0.3:
        return np.ones_like(x)
    cx, cy = x[mask].mean() - 0.5, y[mask].mean() - 0.5
    angle = np.arctan2(-cy, -cx) + rng.normal(0, 0.5)
    distance = rng.uniform(0.30, 0.46)
    u, v = x - 0.5 - distance * np.cos(angle), y - 0.5 - distance * np.sin(angle)
    spread = rng.uniform(0.09, 0.17)
    return 1 - 0.9 * np.exp(-((np.hypot(u, v * rng.uniform(0.8, 1.25)) / spread) ** 2) / 2)


def _folds(rng: np.random.Generator, size: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Haustral folds: a few bent ridges across the frame."""
    turn = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) + 0.09 * noise(rng, size, size * 0.5)
    ridge = 1 - np.abs(np.sin(np.pi * (along * rng.uniform(1.2, 2.6) + rng.uniform())))
    return rng.uniform(0.01, 0.035) * gaussian_filter(ridge**2, size * 0.012)


def _shade(height: np.ndarray, x: np.ndarray, y: np.ndarray, lamp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse light and mirrored highlights of a height map (in frame widths) under a near lamp at `lamp`."""
    size = len(height)
    slope_y, slope_x = np.gradient(height * size)
    to_lamp = np.stack([lamp[0] - x, lamp[1] - y, np.full_like(x, 0.55)], axis=-1)
    far = np.linalg.norm(to_lamp, axis=-1)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(x)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    towards = to_lamp / far[..., None]
    diffuse = np.clip((normal * towards).sum(-1), 0, None) * (0.6 / far) ** 1.6
    half = towards + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    wet = np.clip((normal * half).sum(-1), 0, None)
    mirror = gaussian_filter(0.10 * wet**40 + 1.6 * np.clip((wet - 0.9975) / 0.0025, 0, 1) ** 2, 0.6)
    return 0.12 + diffuse, mirror


def _mucosa(rng: np.random.Generator, size: int) -> np.ndarray:
    """Base colour H W 3: between pink and orange, blotchy."""
    pink, orange = np.array([0.92, 0.44, 0.41]), np.array([0.94, 0.49, 0.27])
    base = pink + rng.uniform(0, 1) * (orange - pink)
    blotches = 0.05 * noise(rng, size, size * 0.3, 3)[..., None] * np.array([0.5, 1.0, 1.0])
    speckle = 0.025 * noise(rng, size, size * 0.03, 2)[..., None] * np.array([0.6, 1.0, 1.0])
    return base * (1 + blotches + speckle)


def _vessels(rng: np.random.Generator, size: int) -> np.ndarray:
    """Lines in [0, 1] that run across each other, thick and thin, stronger in some places."""
    y, x = np.mgrid[0:size, 0:size] / size
    lines = np.zeros((size, size))
    for count, width, weight in ((2.5, 0.014, 1.0), (4, 0.009, 0.8), (6, 0.006, 0.7), (7, 0.005, 0.6)):
        turn = rng.uniform(0, 2 * np.pi)
        bend = 0.35 * noise(rng, size, size * 0.35) + 0.10 * noise(rng, size, size * 0.1, 2)
        phase = np.pi * (count * (x * np.cos(turn) + y * np.sin(turn)) + bend)
        broken = 1 / (1 + np.exp(-3 * (noise(rng, size, size * 0.3) - 0.1)))
        lines = np.maximum(lines, weight * broken * np.exp(-((np.sin(phase) / (np.pi * count * width)) ** 2)))
    where = 1 / (1 + np.exp(-2.5 * noise(rng, size, size * 0.4)))
    return gaussian_filter(lines, 0.5) * where * rng.uniform(0.4, 1.0)


def _vignette(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Light falls off from the middle; black outside the round field of view."""
    far = np.hypot(x - 0.5, y - 0.5)
    edge = 0.5 * _OVERSIZE * rng.uniform(0.94, 1.05)
    return (1 - 0.75 * np.clip(far / 0.7, 0, 1) ** 2.2) / (1 + np.exp((far - edge) / 0.004))


def _tone(image: np.ndarray) -> np.ndarray:
    """Bright parts are compressed, as a camera does."""
    return 1.06 * (1 - np.exp(-1.5 * np.clip(image, 0, None)))


def main(arguments: Sequence[str]) -> int:
    """Write the studies, and a contact sheet when asked; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", type=int, default=60, help="frames to label")
    parser.add_argument("--held-out", type=int, default=16, help="frames to measure on")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a picture of all held-out frames and their truth")
    options = parser.parse_args(arguments)
    studies = make_studies(options.folder, options.pool, options.held_out, options.size, options.seed)
    if options.sheet:
        contact_sheet(studies.held_out / "images", studies.held_out / "labels").save(options.sheet)
    print(f"{options.pool} frames in {studies.images}, {options.held_out} held-out frames in {studies.held_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
