"""One documented file for a model: written whole or not at all, refused with the reason when it does not fit.

Keys: `format` (int), `spec` (TaskSpec as a dict), `student`, `teacher` (state dicts), `method` (its state, e.g. thresholds),
`thresholds` (K floats), `optimizer` (state dict or None), `step` (optimiser steps done), `version` (published number or 0),
`metrics` (Dice and what else is known), `scaler` (state of the loss scaling or empty). Only tensors, numbers, strings, lists
and dicts: loads with `weights_only=True`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from lib.core.files import replacing
from lib.core.networks import build_network
from lib.core.spec import SpecError, TaskSpec
from lib.core.teacher import StudentTeacher

FORMAT = 1


class CheckpointError(ValueError):
    """A model file that cannot be used; the message says why."""


@dataclass
class Checkpoint:
    """Contents of a model file; see the module's text for the keys."""

    spec: TaskSpec
    student: Mapping[str, Any]
    teacher: Mapping[str, Any]
    method: Mapping[str, Any] = field(default_factory=dict)
    thresholds: list[float] = field(default_factory=list)
    optimizer: Mapping[str, Any] | None = None
    step: int = 0
    version: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)
    """Of the loss in mixed precision; empty without it, and in files of earlier releases."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to another process as bytes: each tensor by itself would hold a file descriptor there."""
        with io.BytesIO() as file:
            torch.save(_content(self), file)
            return _from_bytes, (file.getvalue(),)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename: readers see the old file or the new one."""
    with replacing(path) as file:
        torch.save(_content(checkpoint), file)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a model file.

    Raises:
        CheckpointError: missing, damaged, not a LoCo checkpoint, or of a newer format.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as e:
        raise CheckpointError(f"expected a model at {path}, but there is none; train one first") from e
    except Exception as e:
        raise CheckpointError(
            f"expected a LoCo checkpoint, but {Path(path).name} cannot be read ({type(e).__name__}); "
            "remove it, or roll back to an earlier version"
        ) from e
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(
            f"expected a LoCo checkpoint, but {Path(path).name} is something else; train a model here"
        )
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"expected checkpoint format {FORMAT}, but {Path(path).name} has {content['format']}; update the app"
        )
    known = {f.name for f in fields(Checkpoint)}
    content.setdefault("scaler", {})
    missing = known - set(content)
    if missing:
        raise CheckpointError(f"expected a complete checkpoint, but {Path(path).name} lacks {sorted(missing)}")
    values = {k: content[k] for k in known}
    try:
        values["spec"] = TaskSpec.from_dict(content["spec"])
    except SpecError as e:
        raise CheckpointError(
            f"{Path(path).name} cannot be used: {e}; train a model with this version of the app"
        ) from e
    return Checkpoint(**values)


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    return {**content, "format": FORMAT, "spec": checkpoint.spec.to_dict()}


def _from_bytes(content: bytes) -> Checkpoint:
    values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    del values["format"]
    return Checkpoint(**{**values, "spec": TaskSpec.from_dict(values["spec"])})


def why_not_continue(checkpoint: Checkpoint, spec: TaskSpec) -> str | None:
    """None when training under `spec` may go on from `checkpoint`, else the reason in words."""
    theirs = checkpoint.spec
    if dict(theirs.labels) != dict(spec.labels):
        return f"its labels are {dict(theirs.labels)}, now they are {dict(spec.labels)}"
    if replace(theirs.network, pretrained=True) != replace(spec.network, pretrained=True):
        return f"its network is {theirs.network}, now it is {spec.network}"
    if theirs.data.kind != spec.data.kind:
        return f"it is a {theirs.data.kind} model, now studies are read as {spec.data.kind}"
    return None


def restore_network(checkpoint: Checkpoint) -> StudentTeacher:
    """Build the network of a checkpoint with its student and teacher weights.

    Raises:
        CheckpointError: the weights do not fit the network that the checkpoint names.
    """
    spec = checkpoint.spec
    network = StudentTeacher(build_network(replace(spec.network, pretrained=False), spec.data.spatial_dims))
    load_weights(network, checkpoint)
    return network


def load_weights(network: StudentTeacher, checkpoint: Checkpoint) -> None:
    """Copy student and teacher weights into `network`. Raises `CheckpointError` when they do not fit."""
    try:
        network.student.load_state_dict(checkpoint.student)
        network.teacher.load_state_dict(checkpoint.teacher)
    except RuntimeError as e:
        raise CheckpointError(f"expected weights of {checkpoint.spec.network.name}, but: {str(e)[:200]}") from e
