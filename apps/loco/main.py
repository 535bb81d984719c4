"""The LoCo app for MONAI Label: `monailabel start_server --app apps/loco --studies STUDIES --conf labels NAME`."""

from __future__ import annotations

import os
import sys
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from requests import RequestException

from lib.configs.conf import parse_conf
from lib.configs.task import LoCoTask, plan_for
from lib.core.spec import SpecError
from lib.infers.prelabel import PreLabelling
from lib.server.coldstart import ColdStart
from lib.server.guard import GuardSettings
from lib.server.leases import used
from lib.server.openstudies import open_studies
from lib.server.page.desk import Desk
from lib.server.quietlog import keep_names_out
from lib.server.recovery import recover
from lib.server.refusals import Refusals
from lib.server.retraining import Retraining, RetrainSettings
from lib.server.routes import own_routers
from lib.server.security import close_doors
from lib.server.viewer import Viewer
from lib.store.journal import JournalError
from lib.store.project import open_project


class LoCoApp(Refusals, MONAILabelApp):
    """Wiring only: settings in, tasks out, the watcher started."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        keep_names_out()
        try:
            self._settings = parse_conf(conf or {})
            self._project = open_project(app_dir, studies)
            self._task: LoCoTask | None = None
            super().__init__(
                app_dir=app_dir,
                studies=studies,
                conf=conf,
                name="LoCo",
                version="0.2",
                description="Semi-supervised segmentation of low-contrast lesions that picks the next image to label",
            )
        except (SpecError, JournalError, PermissionError) as e:
            # a setting to correct, not a defect: the sentence alone, without the way it came
            sys.tracebacklimit = 0
            raise SystemExit(f"LoCo: {e}") from None
        self.labels = self._task.labels
        self._auto_update_scoring = False

    def init_datastore(self) -> Datastore:
        """A folder, a list of cases or a DICOMweb server; the model is planned as soon as the studies can be seen."""
        settings = self._settings
        try:
            datastore = open_studies(self.studies, self._project, settings.modalities, settings.cache_bytes)
        except RequestException as e:
            raise SpecError(f"expected a DICOMweb server at {self.studies}, but: {e}; start it or correct it") from e
        self._spec = plan_for(datastore, self._project, settings)
        self._task = LoCoTask(self._spec, self._project, settings)
        datastore.attach(self._spec.labels, settings.patient)
        self._viewer = Viewer(datastore, self.studies, self._project.folder.name, self._spec.labels, settings.patient)
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
        """In the server only: close the doors, adopt what a crash left behind, look at the studies, watch for labels."""
        import monailabel.app as server  # not before: it reads the settings when it is imported

        super().on_init_complete()
        # trainings, scoring and the server share the cores: threads that spin at barriers slow each other down
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        settings, journal = self._settings, self._project.journal
        folder = self._project.model(self._task.name)
        guard = GuardSettings(settings.origins, settings.max_upload_mb * 2**20)
        retrain = RetrainSettings(settings.auto_retrain, settings.retrain_after, settings.retrain_idle)
        self._retraining = Retraining(self._task.name, journal, self._datastore, retrain)
        shown = (self._strategies["random"], settings.strategy, self._infers[self._task.name], self._retraining)
        desk = Desk(self._spec, self._project, self._datastore, self._viewer, self._task.board, *shown)
        close_doors(server.app, guard, self.conf, self._project.folder / "uploads", own_routers(desk, self.studies))
        recover(self._task.name, folder, journal, self._datastore)
        self._task.board.start(self._datastore, warm=[settings.strategy])
        ColdStart(self._task.name, self._spec, self._project, self._datastore).start()
        self._retraining.start()
        self._datastore.serve(settings.pacs_poll)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Inference of a study, which OHIF names by its series; whoever holds the study goes on holding it."""
        request = {**request, "image": self._viewer.image_of(str(request.get("image"))) or request.get("image")}
        used(self._project.journal, request)
        return super().infer(request, datastore)

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The strategy's choice, with the address at which OHIF finds it."""
        return self._viewer.located(super().next_sample(request))
