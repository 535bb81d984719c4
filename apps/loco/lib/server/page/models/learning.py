"""Is it learning, and the training."""

from __future__ import annotations

from typing import Literal

from lib.server.page.models.common import Answer

RunStatus = Literal["running", "done", "failed", "stopped", "interrupted"]


class ClassDice(Answer):
    """Dice of one class over cases."""

    mean: float
    sd: float
    """Standard deviation over the cases."""
    cases: int


class VersionPoint(Answer):
    """What one version scored."""

    version: int
    ts: float
    labels: int | None
    """Images with a label that it was trained or measured with; null for a model from elsewhere."""
    method: str
    method_note: str
    """What must stand beside the method's name, or nothing."""
    live: bool
    comparable: bool
    """Measured on the common cases, so that it may be compared with the others; else on its own cases."""
    dice: float | None
    """Mean over cases and classes."""
    sd: float | None
    """Standard deviation of the cases' mean Dice."""
    cases: int
    per_class: dict[str, ClassDice]


class LossPoint(Answer):
    """What the training logged at a step."""

    step: int
    terms: dict[str, float | None]
    """Every loss term and `mask_ratio`, by name."""


class TrainingRun(Answer):
    """A training."""

    run: int
    status: RunStatus
    reason: str
    """Why it was started."""
    detail: str
    """How it ended, empty while it runs."""
    started: float
    updated: float
    ended: float | None
    method: str
    method_note: str
    """What must stand beside the method's name, or nothing."""
    network: str
    epoch: int
    epochs: int
    step: int
    steps: int
    """0 before the first step was done."""
    seconds_left: float | None
    """From the pace of its steps so far; null before the first or when it ended."""
    labelled: int
    unlabelled: int
    validation: int
    best_dice: float | None
    """Best mean Dice on the validation cases so far."""
    terms: dict[str, float | None]
    """Latest loss terms by name, without the mask ratio."""
    mask_ratio: float | None
    """Share of unlabelled pixels that passed the filter."""
    thresholds: dict[str, float]
    """Confidence that counts, by class, background included; empty for methods that learn none."""
    history: list[LossPoint]
    """At most 200 points, evenly over the run."""


class Learning(Answer):
    """Is it learning."""

    classes: list[str]
    common_cases: int
    """Validation cases on which all comparable versions were measured; 0 when there are fewer than two versions."""
    sentence: str
    """What is compared with what, in words."""
    versions: list[VersionPoint]
    """Oldest first."""
    training: TrainingRun | None
    """The running or else the latest training; null before the first."""
    starting: bool
    """A training was asked for and has not begun yet."""
