"""One training under controlled conditions, through the app's own training task, and what came out of it.

Every arm gets the same network, augmentation, number of steps, labelled cases and seed. No labelled case is taken for
validation: with the sides of all patients given beforehand the task trains its fixed number of steps and keeps the
last student and teacher.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.datasets import DataSet, Studies
from benchmarks.metrics import CaseScore, score_cases
from benchmarks.peak import PeakMemory
from benchmarks.report import commit
from ignite.engine import Events
from monailabel.tasks.train.basic_train import Context

from lib.core.cases import PATIENT_PATTERN, Record
from lib.core.checkpoint import Checkpoint, load_checkpoint, restore_network
from lib.core.images import read_header
from lib.core.methods import METHODS
from lib.core.plan import plan_task
from lib.core.spec import DataSpec, MethodSpec, SpecError, TaskSpec
from lib.store.journal import Journal
from lib.store.project import JOURNAL, Project
from lib.trainers.semi_supervised import SemiSupervisedTraining

SIZE = 128
"""Side of frames and slices in pixels at the CPU size."""

_LOOKED_AT = 24


@dataclass(frozen=True)
class Budget:
    """What one training may cost; the same for all arms. `batch` labelled images and as many unlabelled ones a step."""

    iterations: int
    batch: int
    full_size: bool = False
    """The app's own size and network for a GPU instead of the CPU size."""


@dataclass(frozen=True)
class Outcome:
    """One trained model: the student's and the teacher's scores per case, and what the training cost."""

    student: Mapping[str, CaseScore]
    teacher: Mapping[str, CaseScore]
    seconds: float
    seconds_per_step: float
    peak_mib: float


def plan_experiment(data: DataSet, budget: Budget) -> TaskSpec:
    """Specification shared by all arms of an experiment, seed and method apart."""
    headers = [read_header(r.image) for r in data.pool[:_LOOKED_AT]]
    spec = plan_task(data.kind, data.labels, headers, MethodSpec(), cuda=budget.full_size)
    if not budget.full_size and data.kind != "volume":
        spec = replace(spec, data=DataSpec(data.kind, (SIZE, SIZE), SIZE, spec.data.spacing))
    training = replace(
        spec.training,
        epochs=1,
        iterations_per_epoch=budget.iterations,
        batch_labelled=budget.batch,
        batch_unlabelled=budget.batch,
    )
    return replace(spec, training=training)


def changed(spec: TaskSpec, changes: Mapping[str, Any]) -> TaskSpec:
    """A specification with some values replaced, named as in `{"method.contrast.ice": False}`.

    Raises:
        SpecError: there is no such value.
    """
    values = spec.to_dict()
    for path, value in changes.items():
        *rooms, key = path.split(".")
        room = values
        for name in rooms:
            room = room.get(name, {})
        if key not in room:
            raise SpecError(
                f"expected the name of a value of the specification, but got {path!r}; see lib/core/spec.py"
            )
        room[key] = value
    return TaskSpec.from_dict(values)


def settings_of(spec: TaskSpec) -> dict[str, Any]:
    """The part of a specification that all arms share: without the numbers of methods other than the one it names."""
    values = spec.to_dict()
    method = values["method"]
    own = {name for name in METHODS if name != spec.method.name}
    return {**values, "method": {k: v for k, v in method.items() if k not in own}}


def options_of(spec: TaskSpec) -> dict[str, Any]:
    """The numbers that belong to the method of a specification alone; empty for one without any."""
    found = spec.to_dict()["method"].get(spec.method.name)
    return found if isinstance(found, dict) else {}


class _Counted(SemiSupervisedTraining):
    """The app's training; `advance` is called after each optimiser step."""

    advance: Callable[[], None]

    def finalize(self, context: Context) -> None:
        """As the app's, and the steps counted."""
        super().finalize(context)
        context.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.advance())


class Laboratory:
    """A project in a temporary folder in which models are trained; `close` removes it."""

    def __init__(self, groups: Sequence[str], device: str, advance: Callable[[], None] = lambda: None) -> None:
        """`groups`: all patients of the pool; all of them train. `advance` is called after each optimiser step."""
        self._advance = advance
        self._folder = Path(tempfile.mkdtemp(prefix="experiment-"))
        self.device = torch.device(device)
        self.project = Project(Journal(self._folder / JOURNAL), self._folder / "model")
        self.project.journal.assign_splits(groups, 0.0, 0)

    def close(self) -> None:
        """Remove what was trained."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def train(self, spec: TaskSpec, studies: Studies, go_on: bool = False) -> tuple[Checkpoint, float, float]:
        """Train once; the checkpoint, seconds and peak memory in MiB. `go_on`: from the model trained before."""
        kind = spec.data.kind
        task = _Counted(kind, spec, self.project, PATIENT_PATTERN, spec.training.seed)
        task.advance = self._advance
        started = time.perf_counter()
        with PeakMemory(self.device) as memory:
            task({"device": str(self.device), "pretrained": go_on}, studies)
        return self.live(spec), time.perf_counter() - started, memory.mib

    def live(self, spec: TaskSpec) -> Checkpoint:
        """The model that was trained last."""
        return load_checkpoint(self.project.model(spec.data.kind).live)


def run(
    spec: TaskSpec,
    pool: Sequence[Record],
    studies: Studies,
    val: Sequence[Record],
    device: str,
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train one model in a project of its own and measure its student and teacher on `val`."""
    laboratory = Laboratory(sorted({r.group for r in pool}), device, advance)
    try:
        checkpoint, seconds, memory = laboratory.train(spec, studies)
        network = restore_network(checkpoint).to(laboratory.device).eval()
        student, teacher = (
            score_cases(part, val, spec, laboratory.device) for part in (network.student, network.teacher)
        )
        return Outcome(student, teacher, seconds, seconds / spec.training.iterations, memory)
    finally:
        laboratory.close()


def record_of(outcome: Outcome, options: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of a result file: figures per part and case, cost, the method's own numbers, and the commit that made them."""
    return {
        "options": dict(options),
        "student": _rounded(outcome.student),
        "teacher": _rounded(outcome.teacher),
        "seconds": round(outcome.seconds, 1),
        "seconds_per_step": round(outcome.seconds_per_step, 4),
        "peak_mib": round(outcome.peak_mib),
        "commit": commit(),
    }


def mean_of(cell: Mapping[str, Any], part: str, figure: str, ids: Sequence[str] | None = None) -> float:
    """Mean over the cases of a cell, or over some of them; `figure` is dice, hd95 or missed."""
    cases = cell[part]
    return float(np.mean([cases[i][figure] for i in (ids if ids is not None else cases)]))


def quiet() -> None:
    """Silence MONAI Label's and MONAI's progress lines; warnings stay."""
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("lib", "monailabel", "ignite"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy")  # MONAI's Hausdorff distance, of itself


def _rounded(scores: Mapping[str, CaseScore]) -> dict[str, dict[str, float]]:
    return {case: {k: round(float(v), 4) for k, v in asdict(score).items()} for case, score in scores.items()}
