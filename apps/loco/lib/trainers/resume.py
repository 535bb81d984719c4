"""Where a training starts: at a stopped run, at the live model, or anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lib.core.cases import Split
from lib.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, why_not_continue
from lib.core.methods import method_class
from lib.core.spec import TaskSpec
from lib.core.validate import Validation
from lib.store.project import ModelFolder
from lib.trainers.options import spec_of_request
from lib.trainers.progress import RunState
from lib.trainers.publish import live_checkpoint
from lib.trainers.ranks import processes_of

logger = logging.getLogger(__name__)


def plan_run(folder: ModelFolder, planned: TaskSpec, request: Mapping[str, Any], split: Split) -> RunState:
    """State of a run before its first step.

    Args:
        folder: files of the model.
        planned: what an untrained model would be.
        request: options of the viewer; `pretrained` False starts anew; `run` is the run's number in the journal,
            `devices` are those of the processes that train together.
        split: the studies by use.

    Raises:
        SpecError: an option that cannot work, or a method that these studies or processes lack something for.
    """
    spec = spec_of_request(planned, request)
    method = method_class(spec.method.name)
    method.check(spec, [*split.labelled, *split.unlabelled])
    method.check_processes(processes_of(request))
    live = live_checkpoint(folder) if request.get("pretrained", True) else None
    obstacle = why_not_continue(live, spec) if live is not None else None
    if obstacle:
        logger.warning("Training starts anew instead of going on from the live model: %s", obstacle)
        live = None
    stopped = _stopped_run(folder) if request.get("pretrained", True) else None
    if (model := live or stopped) is not None and why_not_continue(model, spec) is None:
        spec = replace(spec, data=model.spec.data)  # studies added since must not move the grid under the model
    state = RunState(spec, split, int(request["run"]), start=live)
    if stopped is not None and stopped.spec != spec:
        logger.warning(
            "The stopped run does not go on, as its options were others: %s", _differences(stopped.spec, spec)
        )
    elif stopped is not None:
        state.resumed = stopped
        state.first_epoch = stopped.step // spec.training.iterations_per_epoch
        state.best = _so_far(folder, stopped, split, "best")
        state.highest = _so_far(folder, stopped, split, "highest") or state.best
        logger.info("Going on with the stopped run after epoch %d of %d", state.first_epoch, spec.training.epochs)
    return state


def _stopped_run(folder: ModelFolder) -> Checkpoint | None:
    """State of an unfinished run."""
    if not folder.run.exists():
        return None
    try:
        checkpoint = load_checkpoint(folder.run)
    except CheckpointError as e:
        logger.warning("The stopped run cannot go on: %s", e)
        return None
    unfinished = 0 < checkpoint.step < checkpoint.spec.training.iterations
    return checkpoint if unfinished else None


def _differences(one: TaskSpec, other: TaskSpec) -> str:
    """`training.epochs 3, now 5`: what differs, by part and name."""
    ours, theirs = one.to_dict(), other.to_dict()
    parts = {part: value for part, value in ours.items() if isinstance(value, dict)}
    return ", ".join(
        f"{part}.{name} {value}, now {theirs[part].get(name)}"
        for part, values in parts.items()
        for name, value in values.items()
        if theirs[part].get(name) != value
    )


def _so_far(folder: ModelFolder, stopped: Checkpoint, split: Split, which: str) -> Validation | None:
    """Dice of the candidate that the stopped run had kept, or the highest of it, if measured on today's validation cases."""
    cases = stopped.metrics.get(which) or {}
    if not folder.best.exists() or set(cases) != {r.id for r in split.validation}:
        return None
    return Validation(cases)
