"""The LoCo app for MONAI Label: `monailabel start_server --app apps/loco --studies STUDIES --conf labels NAME`."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from requests import RequestException

from lib.configs.conf import parse_conf
from lib.configs.task import LoCoTask, plan_for
from lib.core.checkpoint import CheckpointError
from lib.core.images import CaseError
from lib.core.spec import SpecError
from lib.infers.prelabel import PreLabelling
from lib.server.coldstart import ColdStart
from lib.server.datastores import open_folder, open_pacs
from lib.server.retraining import Retraining, RetrainSettings
from lib.store.journal import JournalError
from lib.store.project import open_project
from lib.trainers.publish import adopt_live

logger = logging.getLogger(__name__)


class LoCoApp(MONAILabelApp):
    """Wiring only: settings in, tasks out, the watcher started."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        try:
            self._settings = parse_conf(conf or {})
            self._project = open_project(app_dir, studies)
            self._task: LoCoTask | None = None
            super().__init__(
                app_dir=app_dir,
                studies=studies,
                conf=conf,
                name="LoCo",
                description="Semi-supervised segmentation of low-contrast lesions that picks the next image to label",
                version="0.1",
            )
        except (SpecError, JournalError, PermissionError) as e:
            # a setting to correct, not a defect: the sentence alone, without the way it came
            sys.tracebacklimit = 0
            raise SystemExit(f"LoCo: {e}") from None
        self.labels = self._task.labels
        self._auto_update_scoring = False

    def init_remote_datastore(self) -> Datastore:
        """Studies of a DICOMweb server. dcmqi's tools lie beside this Python, which need not be on the PATH."""
        os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', '')}"
        self._download_dcmqi_tools()
        return open_pacs(self.studies)

    def init_datastore(self) -> Datastore:
        """A folder or a DICOMweb server; the model is planned as soon as the studies can be seen."""
        remote = self.studies.startswith(("http://", "https://"))
        try:
            datastore = super().init_datastore() if remote else open_folder(self.studies)
            self._spec = plan_for(datastore, self._project, self._settings)
        except RequestException as e:
            raise SpecError(
                f"expected a DICOMweb server at {self.studies}, but: {e}; start it or correct the address"
            ) from e
        self._task = LoCoTask(self._spec, self._project, self._settings)
        datastore.attach(self._project.journal, self._spec.labels, self._settings.patient)
        return datastore

    def init_infers(self) -> dict[str, Any]:
        """The one model."""
        return {self._task.name: self._task.infer()}

    def init_trainers(self) -> dict[str, Any]:
        """Its training."""
        return {self._task.name: self._task.trainer()}

    def init_strategies(self) -> dict[str, Any]:
        """The strategy under its names."""
        return self._task.strategy()

    def init_scoring_methods(self) -> dict[str, Any]:
        """The pass behind the strategy."""
        return self._task.scoring_method()

    def init_batch_infer(self) -> PreLabelling:
        """Drafts of many studies."""
        return PreLabelling(self._infers)

    def on_init_complete(self) -> None:
        """In the server only: adopt what a crash left behind, look at the studies, watch for labels."""
        super().on_init_complete()
        # a training, a scoring pass and the server share the cores: threads that spin at barriers slow each other down
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        settings, journal = self._settings, self._project.journal
        adopt_live(self._task.name, self._project.model(self._task.name), journal)
        ColdStart(self._task.name, self._spec, self._project, self._datastore).start()
        retrain = RetrainSettings(settings.auto_retrain, settings.retrain_after, settings.retrain_idle)
        self._retraining = Retraining(self._task.name, journal, self._datastore, retrain)
        self._retraining.start()

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """MONAI Label's inference, with a sentence instead of a bare 500."""
        model, image = request.get("model"), request.get("image")
        if model not in self._infers:
            raise HTTPException(404, f"expected the model {self._task.name!r}, but got {model!r}; choose it")
        if not self._infers[model].is_valid():
            raise HTTPException(409, f"expected a trained {model} model, but there is none yet; submit labels first")
        try:
            return super().infer(request, datastore)
        except (CaseError, CheckpointError) as e:
            raise HTTPException(400, f"{image} was not segmented. {e}") from e

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The strategy's choice; an unknown strategy is refused with the valid names."""
        strategy = request.get("strategy") or "low_contrast"
        if strategy not in self._strategies:
            names = ", ".join(self._strategies)
            raise HTTPException(404, f"expected a strategy, one of {names}, but got {strategy!r}; choose one of them")
        return super().next_sample(request)
