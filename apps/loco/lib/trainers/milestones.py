"""What happens along a run: numbers to follow, validation and saving after each epoch, publishing at the end."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monailabel.tasks.train.basic_train import Context

from lib.core.cases import Case, Record
from lib.core.checkpoint import Checkpoint, load_checkpoint, restore_network, save_checkpoint
from lib.core.distributed import agreed, gathered, rank, world_size
from lib.core.files import replacing
from lib.core.methods import note
from lib.core.overlay import overlay
from lib.core.predict import Prediction, likeliest
from lib.core.spec import TaskSpec
from lib.core.teacher import StudentTeacher
from lib.core.validate import Validation, as_good_as, validate
from lib.decisions import decided
from lib.store.journal import Journal
from lib.store.project import ModelFolder
from lib.trainers.progress import Progress, RunState, dice_line, scalars
from lib.trainers.publish import live_checkpoint, publish
from lib.trainers.tracking import curves

logger = logging.getLogger(__name__)

PICTURES = 4
"""Validation cases that are drawn."""
_RECORD_EVERY_S = 5.0
"""Whoever follows the run hears of it this often, also when steps are slow or an epoch is long."""


@dataclass
class Drawn:
    """Pictures of the first validation cases of this process, made while they are validated."""

    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, record: Record, case: Case, prediction: Prediction) -> None:
        """Draw a case on its working grid; one that cannot be drawn is left out with a warning."""
        if len(self.pictures) >= PICTURES:
            return
        try:
            self.pictures[record.id] = overlay(case.image, case.label[0], likeliest(prediction.probs))
        except Exception as e:  # a picture is not worth a training
            logger.warning("A validation case is not drawn: %s: %s", type(e).__name__, e)


class Milestones:
    """Attached to the trainer of one run. All ranks validate; rank 0 alone writes."""

    def __init__(self, name: str, context: Context, state: RunState, folder: ModelFolder, journal: Journal) -> None:
        self._name, self._context, self._state, self._folder, self._journal = name, context, state, folder, journal
        self._progress = Progress(context, state)
        self._recorded = time.monotonic()
        self._compared: int | None = None
        """Version of the live model that the run began beside."""

    def attach(self, trainer: Engine) -> None:
        """Register with the trainer, and measure the live model on today's validation cases."""
        state, context = self._state, self._context
        live = agreed(lambda: live_checkpoint(self._folder))
        if live is not None and _comparable(live.spec, state.spec):
            self._compared = live.version
            state.live = self._measured(restore_network(live).to(context.device).eval(), live.spec)
        state.tracking.facts(self._facts())
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_done)
        if rank() == 0:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_done)
            trainer.add_event_handler(Events.COMPLETED, self.run_done)

    def iteration_done(self) -> None:
        """Every number of the step is tracked; now and then a line in the log."""
        progress, state = self._progress, self._state
        terms = scalars(self._context.trainer.state.output)
        terms["learning_rate"] = self._context.optimizer.param_groups[0]["lr"]
        state.tracking.scalars(curves(terms, self._thresholds(), state.spec.labels), progress.step)
        if progress.is_due():
            logger.info(progress.line())
            self._record()
        elif time.monotonic() - self._recorded >= _RECORD_EVERY_S:
            self._record()

    def epoch_done(self) -> None:
        """Validate the teacher, keep it when it may be as good as the best so far, save the run."""
        context, state, progress = self._context, self._state, self._progress
        context.network.eval()
        drawn = Drawn()
        result = self._measured(context.network, state.spec, drawn if rank() == 0 else None)
        dice = {"val_mean_dice": result.mean_dice} if result.cases else {}
        dice |= {f"val_dice_{name}": value for name, value in result.per_class.items()}
        context.trainer.state.metrics.update(dice)
        first = state.highest is None or state.highest.mean_dice is None or result.mean_dice is None
        if first or result.mean_dice >= state.highest.mean_dice:
            state.highest = result
        improved = as_good_as(result, state.highest)
        state.best = result if improved else state.best
        if rank() > 0:
            return
        checkpoint = self._checkpoint()
        if improved:
            save_checkpoint(checkpoint, self._folder.best)
        save_checkpoint(checkpoint, self._folder.run)
        logger.info("Epoch %d of %d done: %s", progress.epoch, state.spec.training.epochs, dice_line(result))
        state.tracking.scalars(
            {f"validation/{name.removeprefix('val_')}": v for name, v in dice.items()}, progress.step
        )
        if improved:  # so that the last pictures are those of the version
            state.tracking.pictures(drawn.pictures, progress.step)
        state.tracking.flush()
        self._record()

    def run_done(self) -> None:
        """Publish the best teacher, and close the run in the journal."""
        state, journal = self._state, self._journal
        checkpoint = load_checkpoint(self._folder.best)
        rival = self._live_by_now()
        live, reason = publish(self._name, self._folder, journal, checkpoint, state.best, rival, state.run_id)
        decided("published" if live else "kept", model=self._name, version=checkpoint.version, why=reason)
        self._folder.run.unlink(missing_ok=True)
        self._folder.best.unlink(missing_ok=True)
        outcome = {"version": checkpoint.version, "live": live, "reason": reason}
        self._record({**outcome, "status": "done"})
        journal.finish_run(state.run_id, "done", reason, time.time())
        state.tracking.close("done", outcome)

    def _live_by_now(self) -> Validation | None:
        """Dice of the live model, measured by this process alone when another one went live during the run."""
        live, context = live_checkpoint(self._folder), self._context
        if live is None or not _comparable(live.spec, self._state.spec):
            return None
        if live.version == self._compared:
            return self._state.live
        network = restore_network(live).to(context.device).eval()
        return validate(network.teacher, context.val_datalist, live.spec.data, live.spec.labels, context.device)

    def _measured(self, network: StudentTeacher, spec: TaskSpec, drawn: Drawn | None = None) -> Validation:
        """Dice of the teacher; each of several processes predicts its share of the cases, all get the whole."""
        records = self._context.val_datalist
        share = records[rank() :: world_size()]
        parts = gathered(validate(network.teacher, share, spec.data, spec.labels, self._context.device, drawn))
        cases = {name: case for part in parts for name, case in part.cases.items()}
        return Validation({r.id: cases[r.id] for r in records if r.id in cases})

    def _thresholds(self) -> list[float]:
        thresholds = self._state.method.thresholds()
        return thresholds.tolist() if thresholds is not None else []

    def _facts(self) -> dict[str, Any]:
        state, spec = self._state, self._state.spec
        return {
            "run": state.run_id,
            "model": self._name,
            "method": spec.method.name,
            "method_note": note(spec.method.name),
            "network": spec.network.name,
            "labels": ", ".join(spec.labels),
            "steps": spec.training.iterations,
            "learning_rate": spec.training.learning_rate,
            "seed": spec.training.seed,
            **{kind: len(getattr(state.split, kind)) for kind in ("labelled", "unlabelled", "validation")},
        }

    def _checkpoint(self) -> Checkpoint:
        state, context = self._state, self._context
        return Checkpoint(
            spec=state.spec,
            student=context.network.student.state_dict(),
            teacher=context.network.teacher.state_dict(),
            method=copy.deepcopy(state.method.state_dict()),
            thresholds=self._thresholds(),
            optimizer=context.optimizer.state_dict(),
            step=self._progress.step,
            scaler=state.scaler.state_dict() if state.scaler is not None else {},
            metrics={
                "labelled": len(state.split.labelled),
                "unlabelled": len(state.split.unlabelled),
                "validation": len(state.split.validation),
                "run": state.run_id,
                "best": {k: dict(v) for k, v in state.best.cases.items()} if state.best else {},
                "highest": {k: dict(v) for k, v in state.highest.cases.items()} if state.highest else {},
            },
        )

    def _record(self, outcome: Mapping[str, Any] | None = None) -> None:
        """Progress to the journal and to MONAI Label's train_stats, written whole."""
        self._recorded = time.monotonic()
        stats = {**self._progress.stats(), "status": "running", **(outcome or {})}
        self._journal.update_run(self._state.run_id, {**stats, "history": self._progress.curve()}, time.time())
        with replacing(self._folder.stats) as file:
            file.write(json.dumps(stats, indent=2).encode())


def _comparable(one: TaskSpec, other: TaskSpec) -> bool:
    """Whether two models answer the same question about the same images, whatever their networks."""
    return dict(one.labels) == dict(other.labels) and one.data.kind == other.data.kind
