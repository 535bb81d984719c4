"""Numbers of the methods that were rebuilt from little public text, one frozen dataclass each. Every number is ours."""

from __future__ import annotations

from dataclasses import dataclass

from lib.core.spec_ranges import SMALLEST, within


@dataclass(frozen=True)
class IDEALSpec:
    """IDEAL-style training (arXiv 2210.15075); every number is ours, none is published. Ramp: `MethodSpec.ramp_share`."""

    pretraining: float = within(0.3, 0, 1)
    """Share of the run on the dense contrast."""
    warm_share: float = 0.2
    """Share of it in which half of the loss is the global contrast, against degenerate matches."""
    dimension: int = within(128, 1)
    temperature: float = within(0.1, SMALLEST)
    queue: int = 1024
    """Mean vectors of earlier images, negatives of both contrasts; 0: none."""
    locations: int = within(256, 1)
    """Per image and step."""
    dropout: float = within(0.3, 0, 1 - SMALLEST)
    """Of the bottleneck's channels before the second decoder."""
    confidence: float = 0.8
    weight: float = 1.0


@dataclass(frozen=True)
class CRIISpec:
    """CRII-style training (JBHI 2023); every number is ours, those of the ranked loss are the usual ones."""

    weight: float = 1.0
    """lambda at the end of the ramp."""
    rank_weight: float = 0.1
    noise: float = 0.05
    confidence: float = 0.8
    alpha: float = 1.2
    margin: float = 0.4
    sharpness: float = 10.0
    band: int = 1
    """Half width of the border, in cells of the projection (4 pixels)."""
    cells: int = within(8, 1)
    """Side of a patch in cells (32 pixels)."""
    patches: int = 8
    """Per image, around border cells."""
    object_share: float = 0.1
    background_share: float = 0.02
    per_type: int = 16
    bank: int = 256
    """Patch vectors remembered per type; 0: none."""


@dataclass(frozen=True)
class MCCSSpec:
    """Multiscale contrast with cross-supervision (EMBC 2023); every number is ours. Ramp: `MethodSpec.ramp_share`."""

    weight: float = 1.0
    contrast_weight: float = 0.1
    start: float = 0.05
    """Share of the run without contrast."""
    noise: float = 0.1
    dropout: float = within(0.5, 0, 1 - SMALLEST)
    """Of channels in every map of the second network's encoder."""
    confidence: float = 0.7
    """Of the labels that the networks give each other."""
    contrast_confidence: float = 0.9
    """Of unlabelled pixels in the contrast."""
    hard: float = 0.8
    """Below it a pixel counts as hard."""
    anchors: int = 256
    """Per class, half of them hard."""
    temperature: float = within(0.1, SMALLEST)
    queue: int = 2048
    """Vectors remembered per class; 0: none."""
    dimension: int = within(64, 1)
    purity: float = 0.8
    """Share of a patch that one class must fill for the patch to have a label."""


@dataclass(frozen=True)
class CADSpec:
    """CAD-style training (arXiv 2502.00536); every number is ours. Weight and ramp: `MethodSpec`, as in ABD."""

    confidence: tuple[float, float] = within((0.6, 0.95), 0, 1)
    """Below which a pixel is unsure, at the start and at the end of the run."""
    cap: tuple[float, float] = within((0.125, 0.5), 0, 1)
    """Longest side of a replaced region as a share of the image's, at the start and at the end."""
