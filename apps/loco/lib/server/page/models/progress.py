"""How far the project is."""

from __future__ import annotations

from typing import Literal

from lib.server.page.models.common import Answer, LeaseShown

SkipReason = Literal["unreadable", "irrelevant", "duplicate", "unsure", "later"]


class Rights(Answer):
    """Who looks at the page and what the server would let them do."""

    user: str
    """Name in the login; empty while the login is off."""
    login: bool
    """The login is on; then `POST /loco/logout` ends it, and the name of a client is the user's."""
    write: bool
    """May pin and skip."""
    admin: bool
    """May start and stop trainings, roll back and take models away."""


class ClassShown(Answer):
    """A class of the project, with the colour in which contours show it."""

    name: str
    index: int
    colour: str
    """#rrggbb; told apart also by people who see few colours."""


class SkippedImage(Answer):
    """An unlabelled image that was passed by, most lately so."""

    image: str
    client: str
    ts: float


class SkippedGroup(Answer):
    """Unlabelled images that nobody holds, by the reason of their latest skip."""

    reason: SkipReason
    meaning: str
    """What follows from the reason, as a sentence."""
    count: int
    images: list[SkippedImage]
    """The latest, at most 100."""


class Day(Answer):
    """Labels of one day."""

    day: str
    """ISO date in the time zone of the server."""
    labels: int
    """Submissions, resubmissions included."""
    images: int
    """Different images among them."""


class Effort(Answer):
    """How much work is left until more labels hardly help any more: an extrapolation, not a promise."""

    labels: int | None
    """Further labels until the curve is flat."""
    minutes: float | None
    """`labels` times `minutes_per_label`."""
    minutes_per_label: float | None
    """Median time from the lease of an image to its first label."""
    timed: int
    """Labels behind that median."""
    plateau: float | None
    """Dice that the curve approaches."""
    versions: int
    """Versions that were measured on the same validation cases with different numbers of labels."""
    sentence: str
    """The estimate in words, or why there is none."""
    method: str
    """How it is made, in a sentence."""


class RetrainingShown(Answer):
    """What the automatic retraining waits for."""

    enabled: bool
    running: bool
    waiting_for: str
    """In words, for example "waiting for 3 more labels (2 of 5 are new)"."""
    new_labels: int
    """Images with a label that no training has seen."""
    wanted_labels: int
    """How many start one."""
    idle_s: float
    """Seconds without a new label that must pass first."""


class Summary(Answer):
    """How far the project is."""

    now: float
    """The server's clock."""
    model: str
    """Name of the model: frame, slice or volume; part of `POST /train/{model}`."""
    project: str
    """Name of the folder of the studies, or their address."""
    classes: list[ClassShown]
    rights: Rights
    total: int
    """Studies. They are labelled, left, or unlabelled ones of validation patients, which are set aside."""
    labelled: int
    leased: list[LeaseShown]
    skipped: list[SkippedGroup]
    left: int
    """Unlabelled studies that can still be served: leased and skipped ones are among them."""
    set_aside: int
    """Unlabelled studies of validation patients."""
    validation: int
    """Labelled studies on which models are measured."""
    per_day: list[Day]
    """The last 60 days from the first label on, days without a label included."""
    effort: Effort
    retraining: RetrainingShown
    live_version: int | None
