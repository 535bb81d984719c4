"""What TensorBoard and MLflow hold of a training. Neither can end one: a place that fails is left out, with a warning."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.config import settings
from monailabel.tasks.train.basic_train import Context

from lib.trainers.places import MlflowPlace, Place, TensorBoardPlace

logger = logging.getLogger(__name__)


class Tracking:
    """All places where one run is followed; the methods of `Place`, which never raise."""

    def __init__(self, places: Mapping[str, Callable[[], Place]] | None = None) -> None:
        """`places`: how each is opened, by its name for people."""
        self._places: dict[str, Place] = {}
        for name, opened in (places or {}).items():
            self._guarded(name, lambda name=name, opened=opened: self._places.update({name: opened()}))

    def facts(self, facts: Mapping[str, Any]) -> None:
        """See `Place`."""
        self._everywhere(lambda place: place.facts(facts))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See `Place`."""
        self._everywhere(lambda place: place.scalars(values, step))

    def pictures(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Pictures by the id of their study."""
        for name, picture in pictures.items():
            self._everywhere(lambda place, name=name, picture=picture: place.picture(name, picture, step))

    def flush(self) -> None:
        """See `Place`."""
        self._everywhere(lambda place: place.flush())

    def close(self, status: str, outcome: Mapping[str, Any] | None = None) -> None:
        """See `Place`; a second time does nothing."""
        self._everywhere(lambda place: place.close(status, outcome or {}))
        self._places.clear()

    def _everywhere(self, act: Callable[[Place], None]) -> None:
        for name, place in list(self._places.items()):
            self._guarded(name, lambda place=place: act(place))

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as e:  # a full disk, a server that is gone, a wrong address: none is worth a training
            self._places.pop(name, None)
            reason = (str(e).splitlines() or [""])[0][:200]
            logger.warning("The training goes on without %s, which failed (%s: %s)", name, type(e).__name__, reason)


def open_tracking(context: Context, project: str, going_on: bool) -> Tracking:
    """TensorBoard always, MLflow where the run's option `tracking` says so.

    Args:
        context: of the run.
        project: its name, by which a shared MLflow server tells runs apart.
        going_on: the run goes on with one that was stopped.
    """
    places: dict[str, Callable[[], Place]] = {"TensorBoard": lambda: TensorBoardPlace(Path(context.events_dir))}
    if str(context.tracking).lower() == "mlflow":
        address, experiment, run = context.tracking_uri, context.tracking_experiment_name, context.tracking_run_name
        places["MLflow"] = lambda: MlflowPlace(address, experiment, run, project, going_on)
    return Tracking(places)


def tracking_address(folder: Path) -> str:
    """MLflow's address: MONAI Label's setting, else MLflow's own, else a file of the model, whose `folder` it is."""
    named = settings.MONAI_LABEL_TRACKING_URI or os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{folder / 'mlruns.db'}"


def tracking_choices() -> list[str]:
    """Values of the option `tracking`, the default first: MLflow where MONAI Label's settings name a server."""
    wanted = settings.MONAI_LABEL_TRACKING_ENABLED and settings.MONAI_LABEL_TRACKING_URI
    return ["mlflow", "None"] if wanted else ["None", "mlflow"]


def curves(output: Mapping[str, float], thresholds: Sequence[float], labels: Mapping[str, int]) -> dict[str, float]:
    """Names of the numbers of one step: its terms under `train/`, the confidence thresholds by class.

    >>> curves({"loss": 0.5}, [0.9, 0.75], {"polyp": 1})
    {'train/loss': 0.5, 'threshold/background': 0.9, 'threshold/polyp': 0.75}
    """
    classes = {"background": 0, **labels} if thresholds else {}
    named = {f"threshold/{name}": thresholds[index] for name, index in classes.items()}
    return {f"train/{name}": value for name, value in output.items()} | named
