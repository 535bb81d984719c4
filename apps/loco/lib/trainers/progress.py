"""Where a training run is: its state, a line for the log, numbers for the viewers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from monailabel.tasks.train.basic_train import Context

from lib.core.cases import Split
from lib.core.checkpoint import Checkpoint
from lib.core.methods import Method, note
from lib.core.spec import TaskSpec
from lib.core.validate import Validation
from lib.trainers.tracking import Tracking

_LOG_LINES_PER_EPOCH = 3
_HISTORY = 200
"""Points of a run that are kept for its curve."""


@dataclass
class RunState:
    """What one training needs from start to end."""

    spec: TaskSpec
    split: Split
    run_id: int
    first_epoch: int = 0
    resumed: Checkpoint | None = None
    start: Checkpoint | None = None
    live: Validation | None = None
    method: Method | None = None
    """Set once the network is on its device."""
    scaler: torch.amp.GradScaler | None = None
    """Of the loss in mixed precision; set with the first step."""
    best: Validation | None = None
    """Of the candidate: the latest epoch that may be as good as the one with the highest Dice."""
    highest: Validation | None = None
    tracking: Tracking = field(default_factory=Tracking)
    """Nowhere until the training is set up, and on other ranks than 0."""


class History:
    """A curve of at most `limit` points, evenly over the run: when it is full, every second one goes and half as many come."""

    def __init__(self, limit: int = _HISTORY) -> None:
        self._limit, self._every, self._seen = limit, 1, 0
        self.points: list[dict[str, float]] = []

    def add(self, step: int, terms: Mapping[str, float]) -> None:
        """Offer a point; it is kept when its turn has come."""
        if self._seen % self._every == 0:
            self.points.append({"step": step, **terms})
        self._seen += 1
        if len(self.points) >= self._limit:
            self.points, self._every = self.points[::2], self._every * 2


class Progress:
    """Where a run is, as a line for the log and as numbers for the viewers."""

    def __init__(self, context: Context, state: RunState) -> None:
        self._context, self._state, self._start = context, state, time.time()
        self._history, self._drawn = History(), 0

    @property
    def step(self) -> int:
        """Optimiser steps done, those of the run before it was stopped included."""
        training = self._state.spec.training
        return self._state.first_epoch * training.iterations_per_epoch + self._context.trainer.state.iteration

    @property
    def epoch(self) -> int:
        """Current epoch, from 1."""
        return self._state.first_epoch + self._context.trainer.state.epoch

    def is_due(self) -> bool:
        """A few times per epoch."""
        every = max(1, self._state.spec.training.iterations_per_epoch // _LOG_LINES_PER_EPOCH)
        return self.step % every == 0

    def curve(self) -> list[dict[str, float]]:
        """What was logged so far, the present step included."""
        if self._context.trainer.state.output and self._drawn < self.step:
            self._drawn = self.step
            self._history.add(self.step, scalars(self._context.trainer.state.output))
        return self._history.points

    def line(self) -> str:
        """Epoch, step, losses, mask ratio, speed and time left."""
        training = self._state.spec.training
        terms = ", ".join(f"{k} {v:.4g}" for k, v in scalars(self._context.trainer.state.output).items())
        done = self._context.trainer.state.iteration
        pace = (time.time() - self._start) / max(1, done)
        left = pace * (training.iterations - self.step)
        return (
            f"Epoch {self.epoch} of {training.epochs}, step {self.step} of {training.iterations}: {terms}; "
            f"{pace:.2f} s per step, about {left / 60:.1f} min left"
        )

    def stats(self) -> dict[str, Any]:
        """The keys that OHIF and Slicer read, and every loss term, the mask ratio and Dice per class."""
        state, trainer, training = self._state, self._context.trainer, self._state.spec.training
        validation = {
            k: v for k, v in trainer.state.metrics.items() if k.startswith("val_") and isinstance(v, (int, float))
        }
        best = state.best.mean_dice if state.best else None
        seconds = int(time.time() - self._start)
        duration = time.strftime("%H:%M:%S", time.gmtime(seconds))
        over = self.step >= training.iterations
        pace = (time.time() - self._start) / max(1, trainer.state.iteration)
        return {
            "run": state.run_id,
            "method": state.spec.method.name,
            "method_note": note(state.spec.method.name),
            "network": state.spec.network.name,
            "epoch": self.epoch,
            "total_epochs": training.epochs,
            "step": self.step,
            "total_steps": training.iterations,
            "labelled": len(state.split.labelled),
            "unlabelled": len(state.split.unlabelled),
            "validation": len(state.split.validation),
            "start_ts": int(self._start),
            "seconds_left": None if over else round(pace * (training.iterations - self.step), 1),
            "thresholds": _thresholds(state),
            "total_time" if over else "current_time": duration,
            "best_metric": best,
            "train": {"metrics": scalars(trainer.state.output)},
            "eval": {"metrics": validation, "key_metric_name": "val_mean_dice", "best_metric": best},
        }


def _thresholds(state: RunState) -> dict[str, float]:
    """Confidence that counts, by class; empty for methods that learn none."""
    values = state.method.thresholds() if state.method is not None else None
    names = {index: name for name, index in state.spec.labels.items()}
    return {} if values is None else {names.get(i, "background"): round(float(t), 4) for i, t in enumerate(values)}


def scalars(output: Any) -> dict[str, float]:
    """Loss terms of an iteration as plain numbers."""
    return {k: float(v) for k, v in output[0].items()} if output else {}


def dice_line(result: Validation) -> str:
    """Mean Dice and Dice per class as a sentence for the log."""
    if not result.cases:
        return "no validation cases yet"
    classes = ", ".join(f"{name} {dice:.3f}" for name, dice in result.per_class.items())
    return f"Dice {result.mean_dice:.3f} on {len(result.cases)} validation cases ({classes})"
