"""Numbers of the single training methods, one frozen dataclass each; `spec.MethodSpec` holds one of every kind.

Every default names its source: the paper's code where nothing else is said, `SSL4MIS` for the reference arms of that
benchmark, `ours` where we chose. A switch between the published code and a mended form says which is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UAMTSpec:
    """UA-MT (arXiv 1907.07034). Final weight and ramp: `MethodSpec.consistency_weight` and `ramp_share`."""

    passes: int = 8
    """Noisy passes of the teacher from which the uncertainty is estimated."""
    noise: float = 0.1
    """Standard deviation of the noise on images in [0, 1], cut at twice that."""
    threshold_start: float = 0.75
    """Share of the largest entropy below which a pixel counts as certain at first; it rises to 1 over the run."""
    scale: Literal["classes", "two"] = "classes"
    """Largest entropy and normaliser: ln K and K (ours), or ln 2 and 2 whatever the number of classes (published)."""
    teacher: Literal["dropout", "training"] = "dropout"
    """What is random in a pass besides the noise: dropout (ours), or dropout and batch statistics (published)."""


@dataclass(frozen=True)
class CPSSpec:
    """CPS (arXiv 2106.01226). Final weight and ramp: `MethodSpec.consistency_weight` and `ramp_share`, as in SSL4MIS."""

    images: Literal["unlabelled", "all"] = "unlabelled"
    """Which images the networks label for each other: unlabelled ones (SSL4MIS) or the labelled too (paper)."""


@dataclass(frozen=True)
class UniMatchSpec:
    """UniMatch (arXiv 2208.09910), its recipe for ACDC. Confidence: `MethodSpec.threshold`."""

    strong_weight: float = 0.25
    """Of each of the two strong views."""
    feature_weight: float = 0.5
    """Of the view with dropped feature channels."""
    feature_dropout: float = 0.5
    loss: Literal["dice", "cross_entropy"] = "dice"
    """Of the unlabelled terms: Dice over confident pixels (ACDC) or cross-entropy over valid ones (natural images)."""
    labeller: Literal["student", "teacher"] = "student"
    """Who labels the weak view: the network in training (published) or its average (UniMatch V2)."""


@dataclass(frozen=True)
class BCPSpec:
    """BCP (arXiv 2305.00673), the form for ACDC."""

    pretraining: float = 0.25
    """Share of the run that pre-trains on mixed labelled images; published 10000 of 40000 steps."""
    hole: float = 2 / 3
    """Side of the box that changes owner, as a share of the image's side."""
    unsup_weight: float = 0.5
    """Of the region that the teacher labelled."""
    ema: Literal["warm", "plain"] = "warm"
    """Average of the teacher: the app's, which rises to its decay (ours), or the decay from the first step (published)."""
    teacher: Literal["evaluation", "training"] = "evaluation"
    """How the teacher labels: with its running statistics (ours), or with those of the batch and dropout (published)."""
