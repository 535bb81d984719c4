"""What comes next and why."""

from __future__ import annotations

from typing import Literal

from lib.server.page.models.common import Answer, LeaseShown, Pin

QueueState = Literal["waiting", "free", "leased", "pinned", "skipped"]


class Bar(Answer):
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


class QueueEntry(Answer):
    """An image that may be served, and why."""

    image: str
    place: int
    """1 is served next."""
    forecast: bool
    """The strategy itself would serve it at this place if everything stayed as it is; else it is placed by its score."""
    kind: str
    """pinned, low contrast, possible miss, variety, coverage, uncertainty, random, random control, poor image or skipped."""
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


class QueuePage(Answer):
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
