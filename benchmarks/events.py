"""What happens while a simulated annotator works, one frozen dataclass per kind of event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


class AnnotatorError(RuntimeError):
    """The loop cannot go on; the message is a sentence for people."""


@dataclass(frozen=True)
class Connected:
    """The server answered."""

    labels: dict[str, int]
    total: int
    labelled: int


@dataclass(frozen=True)
class Picked:
    """The server chose an image and it was downloaded. `repeated`: it had a label already, which must never happen."""

    number: int
    image: str
    reason: str
    score: float | None
    model_version: int | None
    repeated: bool = False


@dataclass(frozen=True)
class Labelled:
    """A label was submitted; `count` of them in this session."""

    image: str
    count: int


@dataclass(frozen=True)
class Skipped:
    """An image was passed by, or a held-out one left out."""

    image: str
    why: str


@dataclass(frozen=True)
class Waiting:
    """Nothing to do until the server has done something by itself."""

    what: str


@dataclass(frozen=True)
class Training:
    """Where the training is that the server started."""

    run: int
    step: int
    total: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingFailed:
    """A training ended with an error; the server tries again by itself."""

    why: str


@dataclass(frozen=True)
class Trained:
    """A training is done; `live` says whether its model serves now."""

    run: int
    version: int | None
    live: bool | None
    reason: str
    seconds: float


@dataclass(frozen=True)
class Measuring:
    """Held-out images segmented so far."""

    done: int
    total: int


@dataclass(frozen=True)
class Point:
    """One point of the learning curve. Dice is the mean over images and classes, `spread` the deviation over images."""

    labels: int
    version: int | None
    source: Literal["held-out images", "the server's validation cases"]
    dice: float | None
    spread: float | None
    per_class: dict[str, float]
    cases: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Exhausted:
    """Nothing is left to label."""


Event = (
    Connected
    | Picked
    | Labelled
    | Skipped
    | Waiting
    | Training
    | TrainingFailed
    | Trained
    | Measuring
    | Point
    | Exhausted
)
