"""Where a run can be followed: TensorBoard's event files, and MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.telemetry import set_telemetry_client
from torch.utils.tensorboard import SummaryWriter

LEGEND = "Contours: sky blue the label, orange the teacher, white both."
TERMINATED = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""How MLflow calls what the journal calls the end of a run."""

_AT_ONCE = 500
"""Numbers that travel to MLflow together; it takes at most 1000."""
_PROJECT = "loco.project"
_FILE = "sqlite:///"


class Place(Protocol):
    """Where a run can be followed. `step` counts optimiser steps from the start of the run, stopped parts included."""

    def facts(self, facts: Mapping[str, Any]) -> None:
        """What is known before the first step."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name; `/` groups them."""

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """`rows columns 3` uint8."""

    def flush(self) -> None:
        """Send what has been collected."""

    def close(self, status: str, outcome: Mapping[str, Any]) -> None:
        """The run is over; `status` as in the journal."""


class TensorBoardPlace:
    """Event files."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def facts(self, facts: Mapping[str, Any]) -> None:
        """A table under `Text`."""
        rows = "\n".join(f"|{key}|{value}|" for key, value in facts.items())
        self._writer.add_text("run", f"|what|value|\n|---|---|\n{rows}\n\n{LEGEND}")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One curve per name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """One row per case."""
        self._writer.add_image(f"cases/{name}", picture, step, dataformats="HWC")

    def flush(self) -> None:
        """To disk."""
        self._writer.flush()

    def close(self, status: str, outcome: Mapping[str, Any]) -> None:
        """The outcome as text."""
        self._writer.add_text("outcome", ", ".join(f"{k}: {v}" for k, v in {"status": status, **outcome}.items()))
        self._writer.close()


class MlflowPlace:
    """One run of an MLflow experiment, in a database file or on a server."""

    def __init__(self, address: str, experiment: str, run_name: str, project: str, going_on: bool) -> None:
        """Open or go on with the run.

        Args:
            address: MLflow's tracking URI.
            experiment: name, made when missing.
            run_name: of a new run.
            project: whose runs these are; several projects may share a server.
            going_on: take up the run that was stopped last.

        Raises:
            MlflowException: the address cannot be used.
        """
        # a server that is gone delays the training once, by seconds
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        set_telemetry_client()  # reads the line above: MLflow would tell its makers of each use
        self._client = MlflowClient(address)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment, _artifacts(address))
        self._run = self._stopped(number, project, going_on) or self._new(number, run_name, project)
        self._waiting: list[Metric] = []

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Parameters of the run, which a run that goes on has already."""
        known = self._client.get_run(self._run).data.params
        params = [Param(key, str(value)) for key, value in facts.items() if key not in known]
        self._client.log_batch(self._run, params=params, tags=[RunTag("mlflow.note.content", LEGEND)])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One metric per name, sent many at once."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(_allowed(name), value, now, step) for name, value in values.items()]
        if len(self._waiting) >= _AT_ONCE:
            self.flush()

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """An image with a slider over its steps."""
        self._client.log_image(self._run, picture, key=f"cases/{_allowed(name)}", step=step, synchronous=True)

    def flush(self) -> None:
        """All that wait."""
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _AT_ONCE):
            self._client.log_batch(self._run, metrics=waiting[first : first + _AT_ONCE])

    def close(self, status: str, outcome: Mapping[str, Any]) -> None:
        """The outcome as tags. A run that was interrupted stays open, to be gone on with."""
        self.flush()
        self._client.log_batch(self._run, tags=[RunTag(f"loco.{key}", str(value)) for key, value in outcome.items()])
        if status != "interrupted":
            self._client.set_terminated(self._run, TERMINATED[status])

    def _stopped(self, experiment: str, project: str, going_on: bool) -> str | None:
        """The project's run that was stopped last, if it is wanted; others are closed, as nobody will."""
        query = f"attributes.status = 'RUNNING' and tags.`{_PROJECT}` = '{project}'"
        runs = [r.info.run_id for r in self._client.search_runs([experiment], query)]
        kept = runs[0] if going_on and runs else None
        for run in runs:
            if run != kept:
                self._client.set_terminated(run, TERMINATED["interrupted"])
        return kept

    def _new(self, experiment: str, name: str, project: str) -> str:
        return self._client.create_run(experiment, tags={_PROJECT: project}, run_name=name).info.run_id


def _artifacts(address: str) -> str | None:
    """Pictures of a database file lie beside it; where those of a server lie, it knows."""
    if not address.startswith(_FILE):
        return None
    return (Path(address.removeprefix(_FILE)).absolute().parent / "mlruns").as_uri()


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name)
