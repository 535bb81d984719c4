"""What the routes of the page answer. Times are unix seconds, Dice and shares lie in [0, 1], null is unknown."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SkipReason = Literal["unreadable", "irrelevant", "duplicate", "unsure", "later"]
RunStatus = Literal["running", "done", "failed", "stopped", "interrupted"]
QueueState = Literal["waiting", "free", "leased", "pinned", "skipped"]
Layer = Literal["image", "contour", "band", "label"]


class _Answer(BaseModel):
    """Descriptions of the fields are those of the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Changes(_Answer):
    """A mark per panel; a panel whose mark is another one than before is asked for again."""

    summary: str
    learning: str
    queue: str
    submissions: str
    models: str


class Rights(_Answer):
    """Who looks at the page and what the server would let them do."""

    user: str
    """Name in the login; empty while the login is off."""
    login: bool
    """The login is on; then `POST /loco/logout` ends it, and the name of a client is the user's."""
    write: bool
    """May pin and skip."""
    admin: bool
    """May start and stop trainings, roll back and take models away."""


class ClassShown(_Answer):
    """A class of the project, with the colour in which contours show it."""

    name: str
    index: int
    colour: str
    """#rrggbb; told apart also by people who see few colours."""


class LeaseShown(_Answer):
    """An image that an annotator holds."""

    image: str
    client: str
    """Empty for an anonymous one."""
    since: float
    until: float


class Pin(_Answer):
    """An image that is served before all others."""

    image: str
    client: str
    """Who pinned it; empty for an anonymous one."""
    since: float


class PinRequest(_Answer):
    """The image to pin or unpin."""

    image: str = Field(min_length=1, max_length=400)
    """Id of a study."""
    client_id: str = Field("", max_length=200)
    """Who asks; with the login on the name of the user counts instead."""


class SkippedImage(_Answer):
    """An unlabelled image that was passed by, most lately so."""

    image: str
    client: str
    ts: float


class SkippedGroup(_Answer):
    """Unlabelled images that nobody holds, by the reason of their latest skip."""

    reason: SkipReason
    meaning: str
    """What follows from the reason, as a sentence."""
    count: int
    images: list[SkippedImage]
    """The latest, at most 100."""


class Day(_Answer):
    """Labels of one day."""

    day: str
    """ISO date in the time zone of the server."""
    labels: int
    """Submissions, resubmissions included."""
    images: int
    """Different images among them."""


class Effort(_Answer):
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


class RetrainingShown(_Answer):
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


class Summary(_Answer):
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


class ClassDice(_Answer):
    """Dice of one class over cases."""

    mean: float
    sd: float
    """Standard deviation over the cases."""
    cases: int


class VersionPoint(_Answer):
    """What one version scored."""

    version: int
    ts: float
    labels: int | None
    """Images with a label that it was trained or measured with; null for a model from elsewhere."""
    method: str
    live: bool
    comparable: bool
    """Measured on the common cases, so that it may be compared with the others; else on its own cases."""
    dice: float | None
    """Mean over cases and classes."""
    sd: float | None
    """Standard deviation of the cases' mean Dice."""
    cases: int
    per_class: dict[str, ClassDice]


class LossPoint(_Answer):
    """What the training logged at a step."""

    step: int
    terms: dict[str, float | None]
    """Every loss term and `mask_ratio`, by name."""


class TrainingRun(_Answer):
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


class Learning(_Answer):
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


class Bar(_Answer):
    """A term of an image as a bar."""

    name: str
    """As the journal has it: threshold_deficit, margin, feature_contrast, peak, typicality, contrast, ..."""
    label: str
    """For people."""
    value: float
    share: float | None
    """Share of the other images of the stratum with a lower value."""
    ranked: bool
    """Takes part in the ranking."""


class QueueEntry(_Answer):
    """An image that may be served, and why."""

    image: str
    place: int
    """1 is served next."""
    forecast: bool
    """The strategy itself would serve it at this place if everything stayed as it is; else it is placed by its score."""
    kind: str
    """pinned, low contrast, possible miss, variety, coverage, uncertainty, random, random control or skipped."""
    reason: str
    """Why it comes, in a sentence."""
    stratum: str
    """For example polyp/present; empty when the model said nothing of the image."""
    score: float | None
    bars: list[Bar]
    control: bool
    """Drawn blindly, to measure what choosing brings."""
    group: str
    """Patient or video."""
    lease: LeaseShown | None
    pin: Pin | None
    skips: int
    """How often it was passed by."""
    viewer: str | None
    """Address of the study in OHIF."""
    mark: str
    """Changes when its pictures do; to be sent as `v` of the thumbnail."""


class QueuePage(_Answer):
    """A part of the queue."""

    offset: int
    limit: int
    count: int
    """Entries that match."""
    total: int
    """Entries in all."""
    version: int
    """Model whose scores are used; 0 before there is a usable one."""
    strategy: str
    sort: str
    descending: bool
    sorts: list[str]
    """What `sort` may be."""
    entries: list[QueueEntry]


class Comparison(_Answer):
    """The pre-label against the label."""

    source: str
    """What the label is compared with, in words: the draft that was shown, or version N computed again."""
    dice: dict[str, float]
    """By class; 1 where both have none of it."""
    mean: float
    changed: int
    """Pixels or voxels whose class was changed."""
    pixels: int
    """In all."""


class SubmissionShown(_Answer):
    """A label that an annotator saved."""

    id: int
    """Number of the submission; its file is `/loco/labels/{id}/file`."""
    image: str
    client: str
    ts: float
    classes: list[str]
    """Classes found in it."""
    model_version: int | None
    """Model that had segmented the image for this annotator, if any."""
    versions: int
    """Labels of this image so far; all of them are at `/loco/labels?image=ID`."""
    current: bool
    """The label that counts."""
    removed: float | None
    kept: bool
    """Its file can be had."""
    validation: bool
    """The patient is set aside for validation."""
    comparison: Comparison | None
    compared: Literal["ready", "pending", "none"]
    """`pending`: being computed, look again; `none`: there is nothing to compare with."""
    sentence: str
    """Why there is no comparison, else empty."""
    viewer: str | None
    """Address of the study in OHIF, to open it again."""
    mark: str


class SubmissionsPage(_Answer):
    """Submissions, newest first."""

    offset: int
    limit: int
    count: int
    entries: list[SubmissionShown]


class WorstCase(_Answer):
    """A validation case of the live model."""

    image: str
    dice: dict[str, float]
    mean: float
    viewer: str | None
    mark: str


class WorstCases(_Answer):
    """The validation cases where the live model is worst, worst first."""

    version: int | None
    cases: int
    """Validation cases in all."""
    entries: list[WorstCase]


class Bundle(_Answer):
    """A version as a MONAI bundle, made in the background."""

    version: int
    state: Literal["none", "waiting", "running", "ready", "failed"]
    seconds: float | None
    """How long it has been running or took."""
    detail: str
    """What is being done, or why it failed."""
    size_bytes: int | None
    href: str | None
    """Address of the file once it is there."""


class ModelVersion(_Answer):
    """A version of the model."""

    version: int
    ts: float
    live: bool
    dice: float | None
    cases: int
    per_class: dict[str, float]
    labels: int | None
    method: str
    network: str
    run: int | None
    reason: str
    """Why it went live or not."""
    sha256: str
    size_bytes: int | None
    """Of its file; null when it is no longer kept."""
    can_go_live: bool
    """It is not live and its file is kept."""
    bundle: Bundle


class Models(_Answer):
    """All versions, newest first."""

    model: str
    live: int | None
    kept: int
    """How many of the newest versions keep their files, the live one besides."""
    versions: list[ModelVersion]


class Waiting(_Answer):
    """What is asked for is being made; ask again."""

    detail: str
