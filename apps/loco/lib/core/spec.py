"""What is built and with which numbers: frozen dataclasses, the only place where defaults live.

Every other module receives these objects; none of them invents a number. `TaskSpec` travels inside the checkpoint, so a
model is always used with the preprocessing it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from lib.core.spec_methods import (
    AUASpec,
    BCPSpec,
    C3S3Spec,
    CPSSpec,
    ERSRSpec,
    LPCSpec,
    M3HLSpec,
    MeanTeacherSpec,
    MEDLSpec,
    MetaLabel,
    MNSpec,
    SPCLSpec,
    TransMedSegSpec,
    UAMTSpec,
    UniMatchSpec,
)
from lib.core.spec_ranges import SMALLEST, within
from lib.core.spec_reconstructions import CADSpec, CRIISpec, IDEALSpec, MCCSSpec

Optimizer = Literal["sgd", "adamw"]
LabelledLoss = Literal["own", "ce", "ce_dice", "ce_image_dice", "image_dice"]
Kind = Literal["frame", "slice", "volume"]
KINDS: tuple[Kind, ...] = ("frame", "slice", "volume")

IGNORE = 255
"""Label value of pixels that no loss may look at."""


class SpecError(ValueError):
    """A setting that cannot work; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class DataSpec:
    """How a study becomes the grid that the network sees.

    `kind` frame: 2D pictures, colour or grey; slice: thick-slice volumes seen slice by slice; volume: near-isotropic volumes.
    """

    kind: Kind
    patch: tuple[int, ...]
    """Training crop in working-grid pixels (frame, slice: 2 numbers; volume: 3)."""
    size: int
    """Frame, slice: longest side of the working grid in pixels; larger pictures are scaled down. Volume: unused."""
    spacing: tuple[float, ...] = ()
    """Working-grid spacing in mm (slice: in-plane 2, volume: 3). Empty for frames, which have no physical size."""

    @property
    def spatial_dims(self) -> int:
        """2 or 3: the dimension of the network's input."""
        return 3 if self.kind == "volume" else 2

    @property
    def channels(self) -> int:
        """Channels of the working image: 3 for frames (RGB), 1 for slices and volumes."""
        return 3 if self.kind == "frame" else 1


@dataclass(frozen=True)
class NetworkSpec:
    """`name` is a key of `networks.NETWORKS`; `classes` counts the background."""

    name: str
    classes: int
    projection_channels: int = 64
    pretrained: bool = True


@dataclass(frozen=True)
class ContrastSpec:
    """Hard-pixel contrast of LoCo: inter-class (ICE) and boundary (BCE) enhancement, arXiv 2412.02314.

    The last four switches choose between the published code and a cleaner reading where the two differ.
    """

    ice: bool = True
    bce: bool = True
    ice_rate: float = 0.10
    bce_rate: float = 0.25
    temperature: float = within(0.1, SMALLEST)
    fixed_threshold: float | None = None
    """None: the adaptive thresholds of CDF; a number in [0, 1]: the same threshold for every class."""
    bce_keep: Literal["least_similar", "most_similar"] = "least_similar"
    border: Literal["zero", "replicate"] = "zero"
    """Label padding of the boundary test. `zero` is the published form: foreground at the crop edge counts as boundary."""
    ignored_is_boundary: bool = True
    """Published form: a neighbour labelled 255 makes a pixel boundary. False: such neighbours are skipped."""
    bce_respects_padding: bool = True
    """Drop padded pixels of unlabelled images from BCE; the published code keeps confident ones (False)."""


@dataclass(frozen=True)
class ConfidenceSpec:
    """Confidence-based dynamic filter (CDF). `adaptive` False gives the constant threshold `fixed` instead."""

    adaptive: bool = True
    momentum: float = 0.999
    """Of the running means, at most: a short run has less, by `memory`."""
    memory: float = within(0.02, 0, 1)
    """Share of the run after which the running means have forgotten most: 1 / (1 - momentum) steps (ours; the published
    momentum is as long as that in its 52,000 steps). With 0 the momentum is `momentum` in any run, as published."""
    init: float = 0.90
    cap: float = 0.95
    power: float = 0.25
    fixed: float = 0.95
    global_over_padding: bool = False
    """Published form (True): the global mean of confidence includes padded pixels."""


@dataclass(frozen=True)
class MethodSpec:
    """`name` is a key of `methods.METHODS`; then LoCo's numbers, those that several methods share, and each method's own."""

    name: str = "loco"
    contrast: ContrastSpec = field(default_factory=ContrastSpec)
    confidence: ConfidenceSpec = field(default_factory=ConfidenceSpec)
    contrast_weight: float = 0.1
    unsup_weight: float = 0.5
    cutmix_probability: float = 0.5
    labelled_loss: LabelledLoss = "ce_image_dice"
    """Loss on labels, and on pseudo-labels where the method gives both the same one: `0.2 CE + 0.8 Dice` with the Dice of each
    image and plain sums (ours, the same for all methods), or `own`, the published one of each: cross-entropy (LoCo, FixMatch,
    SPCL), or with a Dice of squared sums over the batch. LPC, ERSR and M&N keep theirs, which is of this kind."""
    batch_statistics: Literal["joint", "own_gradient"] = "own_gradient"
    """Of BatchNorm where labelled and unlabelled images are one batch. Both are those of all images; `joint`, as published,
    with their gradient, through which the loss on labels also moves the unlabelled images: with few patients a network learns to
    be right on its own by being wrong on the others. `own_gradient` (ours): no loss moves the images of the other part."""
    consistency_weight: float = 0.1
    """Final weight of the consistency term of the methods that ramp it up (SSL4MIS)."""
    ramp_share: float = 0.4
    """Share of the run over which such a weight rises; ours, published ramps are longer than a short run."""
    threshold: float = 0.95
    """Confidence above which a pseudo-label counts (FixMatch, UniMatch)."""
    mean_teacher: MeanTeacherSpec = field(default_factory=MeanTeacherSpec)
    ua_mt: UAMTSpec = field(default_factory=UAMTSpec)
    cps: CPSSpec = field(default_factory=CPSSpec)
    unimatch: UniMatchSpec = field(default_factory=UniMatchSpec)
    bcp: BCPSpec = field(default_factory=BCPSpec)
    m3hl: M3HLSpec = field(default_factory=M3HLSpec)
    lpc: LPCSpec = field(default_factory=LPCSpec)
    spcl: SPCLSpec = field(default_factory=SPCLSpec)
    mn: MNSpec = field(default_factory=MNSpec)
    aua: AUASpec = field(default_factory=AUASpec)
    c3s3: C3S3Spec = field(default_factory=C3S3Spec)
    cad: CADSpec = field(default_factory=CADSpec)
    crii: CRIISpec = field(default_factory=CRIISpec)
    ideal: IDEALSpec = field(default_factory=IDEALSpec)
    mccs: MCCSSpec = field(default_factory=MCCSSpec)
    ersr: ERSRSpec = field(default_factory=ERSRSpec)
    medl: MEDLSpec = field(default_factory=MEDLSpec)
    transmedseg: TransMedSegSpec = field(default_factory=TransMedSegSpec)

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> MethodSpec:
        """Inverse of `asdict`; what an older file does not name has its default then. Raises `TypeError` on unknown keys."""
        parts = {f.name: f.default_factory for f in fields(MethodSpec) if is_dataclass(f.default_factory)}
        # files from before these were options have no such keys
        d = {"labelled_loss": "own", "batch_statistics": "joint", **d}
        # two passes, which this replaced: they kept the losses of both parts from each other too
        d["batch_statistics"] = {"apart": "own_gradient"}.get(d["batch_statistics"], d["batch_statistics"])
        d["confidence"] = {"memory": 0.0, **d.get("confidence", {})}
        values = {k: parts[k](**_tuples(v)) if k in parts else v for k, v in d.items()}
        spec = MethodSpec(**values)
        labels = tuple(x if isinstance(x, MetaLabel) else MetaLabel(**_tuples(x)) for x in spec.spcl.meta_labels)
        return replace(spec, spcl=replace(spec.spcl, meta_labels=labels))


@dataclass(frozen=True)
class TrainSpec:
    """One training run. `iterations` = `epochs` x `iterations_per_epoch`; the teacher is validated after each epoch."""

    epochs: int
    iterations_per_epoch: int
    batch_labelled: int
    batch_unlabelled: int
    learning_rate: float
    """Of everything but a pretrained encoder, which has `encoder_rate` times as much."""
    ema_decay: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    poly_power: float = 0.9
    seed: int = 0
    optimizer: Optimizer = "sgd"
    """sgd: LoCo's, for long runs; adamw: learns several times as much in a run of a few hundred steps."""
    encoder_rate: float = 0.1

    @property
    def iterations(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.iterations_per_epoch


@dataclass(frozen=True)
class TaskSpec:
    """Everything that decides what a trained model is. `labels` maps a name to its index, background (0) left out."""

    labels: Mapping[str, int]
    data: DataSpec
    network: NetworkSpec
    method: MethodSpec
    training: TrainSpec

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts only: safe for JSON and for `torch.load(weights_only=True)`."""
        return _plain(asdict(self))

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> TaskSpec:
        """Inverse of `to_dict`. Raises `SpecError` on a missing or unknown key."""
        try:
            return TaskSpec(
                labels=dict(d["labels"]),
                data=DataSpec(**_tuples(d["data"])),
                network=NetworkSpec(**d["network"]),
                method=MethodSpec.from_dict(d["method"]),
                training=TrainSpec(**d["training"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise SpecError(f"expected a task specification as `TaskSpec.to_dict` writes it, but got: {e}") from e


def _tuples(d: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
