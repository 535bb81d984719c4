"""What the routes of the page answer, panel by panel. Times are unix seconds, Dice and shares lie in [0, 1], null is unknown."""

from lib.server.page.models.common import Changes, Layer, LeaseShown, Pin, PinRequest, Waiting
from lib.server.page.models.labels import Comparison, SubmissionShown, SubmissionsPage, WorstCase, WorstCases
from lib.server.page.models.learning import ClassDice, Learning, LossPoint, RunStatus, TrainingRun, VersionPoint
from lib.server.page.models.progress import (
    ClassShown,
    Day,
    Effort,
    RetrainingShown,
    Rights,
    SkippedGroup,
    SkippedImage,
    SkipReason,
    Summary,
)
from lib.server.page.models.queue import Bar, QueueEntry, QueuePage, QueueState
from lib.server.page.models.versions import Bundle, Models, ModelVersion

__all__ = [
    "Bar",
    "Bundle",
    "Changes",
    "ClassDice",
    "ClassShown",
    "Comparison",
    "Day",
    "Effort",
    "Layer",
    "Learning",
    "LeaseShown",
    "LossPoint",
    "ModelVersion",
    "Models",
    "Pin",
    "PinRequest",
    "QueueEntry",
    "QueuePage",
    "QueueState",
    "RetrainingShown",
    "Rights",
    "RunStatus",
    "SkipReason",
    "SkippedGroup",
    "SkippedImage",
    "SubmissionShown",
    "SubmissionsPage",
    "Summary",
    "TrainingRun",
    "VersionPoint",
    "Waiting",
    "WorstCase",
    "WorstCases",
]
