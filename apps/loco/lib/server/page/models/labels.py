"""What came back."""

from __future__ import annotations

from typing import Literal

from lib.server.page.models.common import Answer


class Comparison(Answer):
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


class SubmissionShown(Answer):
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


class SubmissionsPage(Answer):
    """Submissions, newest first."""

    offset: int
    limit: int
    count: int
    entries: list[SubmissionShown]


class WorstCase(Answer):
    """A validation case of the live model."""

    image: str
    dice: dict[str, float]
    mean: float
    viewer: str | None
    mark: str


class WorstCases(Answer):
    """The validation cases where the live model is worst, worst first."""

    version: int | None
    cases: int
    """Validation cases in all."""
    entries: list[WorstCase]
