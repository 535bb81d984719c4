"""Numbers of the published training methods, one frozen dataclass each; `spec.MethodSpec` holds one of every kind.

Every default names its source: the paper's code where nothing else is said, `SSL4MIS` for the reference arms of that
benchmark, `ours` where we chose. A switch between the published code and a mended form says which is which. The numbers of
reconstructions are in `spec_reconstructions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib.core.spec_ranges import SMALLEST, within


@dataclass(frozen=True)
class MeanTeacherSpec:
    """Mean teacher (arXiv 1703.01780). Final weight and ramp: `MethodSpec.consistency_weight` and `ramp_share`."""

    teacher: Literal["evaluation", "training"] = "evaluation"
    """How the teacher labels: with its running statistics (ours), or with those of the batch and dropout (SSL4MIS)."""


@dataclass(frozen=True)
class UAMTSpec:
    """UA-MT (arXiv 1907.07034). Final weight and ramp: `MethodSpec.consistency_weight` and `ramp_share`."""

    passes: int = within(8, 1)
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
    feature_dropout: float = within(0.5, 0, 1 - SMALLEST)
    loss: Literal["dice", "cross_entropy"] = "dice"
    """Of the unlabelled terms: Dice over confident pixels (ACDC) or cross-entropy over valid ones (natural images)."""
    labeller: Literal["student", "teacher"] = "student"
    """Who labels the weak view: the network in training (published) or its average (UniMatch V2)."""


@dataclass(frozen=True)
class BCPSpec:
    """BCP (arXiv 2305.00673), the form for ACDC."""

    pretraining: float = within(0.25, 0, 1)
    """Share of the run that pre-trains on mixed labelled images; published 10000 of 40000 steps."""
    hole: float = within(2 / 3, 0, 1)
    """Side of the box that changes owner, as a share of the image's side."""
    unsup_weight: float = 0.5
    """Of the region that the teacher labelled."""
    ema: Literal["warm", "plain"] = "warm"
    """Average of the teacher: the app's, which rises to its decay (ours), or the decay from the first step (published)."""
    teacher: Literal["evaluation", "training"] = "evaluation"
    """How the teacher labels: with its running statistics (ours), or with those of the batch and dropout (published)."""


@dataclass(frozen=True)
class M3HLSpec:
    """M3HL (arXiv 2508.03752). How the teacher labels and averages: `BCPSpec`."""

    pretraining: float = 0.25
    """Share of the run on mixed labelled images, as BCP (ours); 0 as released."""
    blocks: int = within(4, 1)
    """Blocks along each side of an image; published 64 of 256 pixels, 28 of 112 voxels."""
    ratio: tuple[float, float] = within((0.5, 0.5), 0, 1)
    """Range from which the share of exchanged blocks is drawn in each step, as 0.3:0.7; one number in the released code."""
    unsup_weight: float = 0.5
    feature_weight: float = 0.5


@dataclass(frozen=True)
class LPCSpec:
    """LPC (arXiv 2112.09645)."""

    pretraining: float = within(0.25, 0, 1)
    """Share of the run on labelled images alone; published 5000 of 20000 steps."""
    rounds: int = within(3, 1)
    """How often the pseudo-labels are made anew."""
    contrast_weight: float = 0.1
    temperature: float = within(0.1, SMALLEST)
    anchors: int = within(3, 1)
    """Anchor pixels per class and image."""
    division: Literal["mean", "cumulative"] = "mean"
    """Mean over the pairs (paper), or divided again at each pair, so that only the last counts (released code)."""
    clean: Literal["components", "none"] = "components"
    """Largest piece per class (ours, in place of a dense CRF), or the raw labels."""


@dataclass(frozen=True)
class MetaLabel:
    """A label that images have without annotation: its weight and the ends of the self-paced schedule."""

    name: Literal["partition", "patient", "self"]
    weight: float
    gamma: tuple[float, float]


@dataclass(frozen=True)
class SPCLSpec:
    """SPCL (arXiv 2107.13741). Its gamma is for batches of 60 views and is scaled to others."""

    pretraining: float = within(0.25, 0, 1)
    """Share of the run on the encoder alone (ours); published 80 epochs before 60."""
    meta_labels: tuple[MetaLabel, ...] = (
        MetaLabel("partition", 1.0, (5.0, 60.0)),
        MetaLabel("patient", 0.1, (3.5, 50.0)),
    )
    partitions: int = within(3, 1)
    """Parts of a volume; 3 for ACDC, 4 or 8 for others."""
    contrast_weight: float = 0.1
    """In the second stage, where labels are used too."""
    temperature: float = within(0.07, SMALLEST)
    mode: Literal["soft", "hard"] = "soft"
    correct_gradient: bool = False
    """Divide by the mean pair weight, so that the steps do not shrink with it."""


@dataclass(frozen=True)
class MNSpec:
    """M&N (arXiv 2509.15167)."""

    pretraining: float = within(0.125, 0, 1)
    """Share of the run on labels alone; published 500 of 4000 epochs."""
    turns: int = 0
    """Steps after which the other network trains and this one only labels; 8 as published, 0: both train in each (ours)."""


@dataclass(frozen=True)
class AUASpec:
    """AUA (arXiv 2111.10989), its setting for 20 % of the pancreas data."""

    first_stage: float = within(0.5, 0.05, 1)
    """Share of the run; published 6000 steps each. Without it stage 2 would learn from labels of an untrained network."""
    second_stage: Literal["fresh", "continue"] = "fresh"
    """Start stage 2 from the weights before stage 1 (published) or go on with those after it."""
    teacher: Literal["evaluation", "training"] = "evaluation"
    """In stage 1: as the app's, with running statistics that follow the student's (ours), or with dropout and the statistics of
    the batch, the average of the weights alone (published)."""
    samples: int = within(6, 2)
    """In pairs around the mean; an odd one is left out."""
    rank: int = within(8, 1)
    noise: float = 0.1
    """On the teacher's image, in standard deviations of each image: published of images of standard deviation 1."""
    distance_weight: float = 0.15
    boundary_weight: float = 0.09
    temperature: float = within(0.07, SMALLEST)
    boundary_pixels: int = 1024
    """Most pixels per image in the contrast at boundaries; published 9000."""
    prototype_weight: float = 0.1
    prototype_temperature: float = within(100.0, SMALLEST)
    """Published; so large that the term is a weak pull, 1 is a stronger one."""


@dataclass(frozen=True)
class C3S3Spec:
    """C3S3 (arXiv 2506.07368). Final weight and ramp of L_cp: `MethodSpec.consistency_weight` and `ramp_share`."""

    alpha: float = within(0.8, 0, 1)
    """Share of the cross-entropy in the score that decides the winner (0.8 left atrium, 0.5 pancreas)."""
    sharpening: float = within(0.1, SMALLEST)
    temperature: float = within(0.1, SMALLEST)
    contrast_weight: float = 0.1
    """lambda (ours). Published 1, with its gradient counted twice."""
    view_noise: float = 0.1
    """Of the noise that alone tells the views apart (ours), in standard deviations of each image; 0: identical views, as
    published."""
    points: int = 4096
    """Points of the contrast (ours); published: every voxel."""
    cosine: Literal["classes", "last_axis"] = "classes"
    """Axis of the consistency: classes of the softmax (ours) or the last spatial axis of the logits (published)."""


@dataclass(frozen=True)
class MEDLSpec:
    """MEDL (arXiv 2505.12418). Ramp of the unlabelled terms: `MethodSpec.ramp_share`; the paper gives no values."""

    curriculum: float = within(0.5, 0, 1)
    """Xi, ours."""
    fisher_weight: float = 0.1
    """lambda_G at the end of the ramp, ours."""
    fisher_penalty: float = 0.005
    """lambda_F, as I-EDL has it for MNIST."""
    weight: Literal["certain", "reliability"] = "certain"
    """Of a pseudo-label: R (1 - u) (ours), or R alone (published), which is 1 for a pixel without any evidence."""


@dataclass(frozen=True)
class TransMedSegSpec:
    """TransMedSeg (arXiv 2505.14753); the numbers of its base are those of BCP."""

    weight: float = 0.1
    """beta, ours: none is published."""
    alpha: float = 0.25
    """Strength of the shift at the end of the run (code of TSA); it rises from 0 after pre-training."""
    memory: int = within(50000, 1)
    """Pixels per class that the statistics remember, ours."""
    sample: int = 2048
    """Pixels per class and step that enter the statistics, ours."""
    points: int = 8192
    """Labelled pixels per step in the loss, shared evenly by the classes."""
    confidence: float = 0.8
    """Of the teacher's pixels that enter the statistics, ours."""
    enough: int = 500
    """Pixels that both sides must have seen of a class before it is shifted; until then its loss is the plain cross-entropy."""


@dataclass(frozen=True)
class ERSRSpec:
    """ERSR (arXiv 2508.19815). Ramp: `MethodSpec.ramp_share`; the published one is as long as the run."""

    pretraining: float = 0.25
    """Share of the run on labelled images alone; published as a run of its own."""
    weight: float = 1.0
    threshold: float = within(0.6, 0, 1)
    """Of the probability, for the ellipse and for the refined label."""
    edge_share: float = within(0.5, 0, 1)
    """Share of the edge score; the rest is the distance score."""
    keep: float = within(0.5, 0, 1)
    """Share of the best maps that is kept at first; it rises to 1 over the rest of the run."""
    floor: float = within(0.5, 0, 1)
    """Share of a batch that is kept at least (ours); published 0.8, which hardly filters."""
    pool: int = within(512, 1)
    """Latest scores that a new one is ranked among (ours); published: those of the epoch."""
    compose: Literal["paste", "add"] = "paste"
    """Completed images: the mirrored half replaces what was there (ours) or is added to the background (published)."""
    border: Literal["replicate", "zero"] = "replicate"
    """What lies beyond the image for both scores: its last pixel (ours), or 0 (published), which ranks by size and place."""
