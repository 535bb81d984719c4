"""How many more labels until they hardly help: a power law through the measured versions, and a sentence that says how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLAT = 0.01
"""The curve counts as flat when at most this much Dice is left to gain."""
LEAST_POINTS = 4
"""Different numbers of labels; three parameters are fitted."""
_LEAST_SPREAD = 1.5
"""The most labels over the fewest: closer together they show no curve."""
_EXPONENTS = np.linspace(0.2, 2.0, 37)
_UNSURE = 4.0
"""When leaving one version out changes the answer by more than this factor, there is none yet."""

METHOD = (
    "Dice = plateau - b x labels^-c is fitted to the versions that were measured on the same validation cases; flat is where "
    f"at most {FLAT} is left to gain. Versions differ by their training too, not by labels alone."
)


@dataclass(frozen=True)
class Curve:
    """Dice = plateau - gain * labels ** -exponent."""

    plateau: float
    gain: float
    exponent: float

    def flat_at(self) -> float:
        """Labels at which `FLAT` is left to gain."""
        return (max(self.gain, 0.0) / FLAT) ** (1 / self.exponent)


@dataclass(frozen=True)
class Estimate:
    """Labels still to draw (None: cannot be told), the plateau, versions behind it, and all of that in a sentence."""

    labels: int | None
    plateau: float | None
    versions: int
    sentence: str


def fit(labels: np.ndarray, dice: np.ndarray) -> Curve:
    """Least squares over `N` points, with 0 <= plateau <= 1 and gain >= 0; exponents from a grid."""
    best: tuple[float, Curve] | None = None
    for exponent in _EXPONENTS:
        falling = labels**-exponent
        design = np.stack([np.ones_like(falling), -falling], axis=1)
        plateau, gain = np.linalg.lstsq(design, dice, rcond=None)[0]
        if plateau > 1:
            plateau, gain = 1.0, float(falling @ (1 - dice) / (falling @ falling))
        if gain < 0:
            plateau, gain = float(dice.mean()), 0.0
        error = float(np.square(dice - plateau + gain * falling).sum())
        if best is None or error < best[0] - 1e-12:
            best = error, Curve(float(plateau), float(gain), float(exponent))
    assert best is not None
    return best[1]


def estimate(points: Sequence[tuple[int, float]], now: int, left: int) -> Estimate:
    """How many labels are still worth drawing.

    Args:
        points: (labels, mean Dice) of versions measured on the same cases.
        now: images that are labelled already.
        left: images that could still be labelled.
    """
    labels, dice = np.array([n for n, _ in points], dtype=float), np.array([d for _, d in points], dtype=float)
    different = len(set(labels.tolist()))
    if different < LEAST_POINTS:
        return Estimate(
            None, None, len(points),
            f"No estimate yet: it takes {LEAST_POINTS} versions with different numbers of labels, measured on the same "
            f"validation cases, and there are {different}.",
        )  # fmt: skip
    if labels.max() < _LEAST_SPREAD * labels.min():
        return Estimate(
            None, None, len(points),
            f"No estimate yet: the versions have {labels.min():.0f} to {labels.max():.0f} labels, too alike to show a curve.",
        )  # fmt: skip
    curve = fit(labels, dice)
    spread = [fit(np.delete(labels, i), np.delete(dice, i)).flat_at() - now for i in range(len(labels))]
    low, high = max(0.0, min(spread)), max(0.0, max(spread))
    needed = max(0.0, curve.flat_at() - now)
    return _said(curve, needed, low, high, left, len(points))


def _said(curve: Curve, needed: float, low: float, high: float, left: int, versions: int) -> Estimate:
    plateau = round(curve.plateau, 3)
    if high > _UNSURE * max(low, 1.0) and high > 10:
        return Estimate(
            None, None, versions,
            f"No estimate yet: leaving one of the {versions} versions out moves it from {_counted(low, left)} "
            f"to {_counted(high, left)} labels.",
        )  # fmt: skip
    if needed < 1:
        return Estimate(
            0, plateau, versions,
            f"The curve is flat: more labels of this kind are expected to bring less than {FLAT} Dice.",
        )  # fmt: skip
    if needed > left:
        return Estimate(
            left, plateau, versions,
            f"The curve still rises: all {left} studies that are left are expected to help.",
        )  # fmt: skip
    return Estimate(
        round(needed), plateau, versions,
        f"About {needed:.0f} more labels until the curve is flat, near Dice {plateau:.2f} "
        f"(leaving one version out: {_counted(low, left)} to {_counted(high, left)}).",
    )  # fmt: skip


def _counted(labels: float, left: int) -> str:
    return f"{labels:.0f}" if labels <= left else f"more than {left}"
