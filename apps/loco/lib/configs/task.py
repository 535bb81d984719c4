"""One model of the app: its specification for these studies and this machine, and MONAI Label's tasks for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from monailabel.interfaces.config import TaskConfig
from monailabel.interfaces.datastore import Datastore

from lib.activelearning.board import Board
from lib.activelearning.next_image import NextImage
from lib.configs.conf import AppConf
from lib.core.images import CaseError, ImageHeader, read_header
from lib.core.methods import method_class
from lib.core.networks import NETWORKS_2D, NETWORKS_3D
from lib.core.plan import decide_kind, plan_task
from lib.core.policies import POLICIES
from lib.core.spec import SpecError, TaskSpec
from lib.infers.segmentation import Segmentation
from lib.scoring.low_contrast import LowContrastScoring
from lib.server.datastores import some_images
from lib.store.project import Project
from lib.trainers.semi_supervised import SemiSupervisedTraining

logger = logging.getLogger(__name__)

LOOKED_AT = 24
"""Studies whose headers decide the kind of model and its working grid."""


class LoCoTask(TaskConfig):
    """Hands out the tasks of one model."""

    def __init__(self, spec: TaskSpec, project: Project, conf: AppConf) -> None:
        super().__init__()
        self.name = spec.data.kind
        self.labels = dict(spec.labels)
        self._spec, self._project, self._conf = spec, project, conf
        self.board = Board(self.name, project, conf.patient, len(self.labels), conf.seed)

    def infer(self) -> Segmentation:
        """Inference with the live model."""
        return Segmentation(self.name, self._spec, self._project.model(self.name))

    def trainer(self) -> SemiSupervisedTraining:
        """Training on all studies."""
        conf = self._conf
        return SemiSupervisedTraining(self.name, self._spec, self._project, conf.patient, conf.seed, conf.cache_bytes)

    def strategy(self) -> dict[str, NextImage]:
        """The strategies; the configured one also as `random`, the only name that OHIF can call."""
        conf = self._conf
        strategies = {name: NextImage(name, self.board, conf.control_share) for name in POLICIES}
        return {"low_contrast": strategies["low_contrast"], "random": strategies[conf.strategy], **strategies}

    def scoring_method(self) -> dict[str, LowContrastScoring]:
        """The scoring pass behind the strategies."""
        dropout = self._conf.strategy == "mc_dropout"
        return {"low_contrast": LowContrastScoring(self.name, self._project, self._conf.patient, dropout)}


def plan_for(datastore: Datastore, project: Project, conf: AppConf) -> TaskSpec:
    """Specification of a model for these studies. Raises `SpecError` with one sentence when labels are not known."""
    headers = look_at(datastore)
    kind = conf.kind or decide_kind(headers)
    if conf.kind is None:
        looked = f"from {len(headers)} studies" if headers else "there are no studies to look at; set --conf models"
        logger.info("Model: %s (%s)", kind, looked)
    labels = conf.labels or known_labels(project)
    check_against_submitted(labels, project)
    spec = plan_task(kind, labels, headers, conf.method, torch.cuda.is_available())
    training = replace(
        spec.training,
        epochs=conf.epochs or spec.training.epochs,
        iterations_per_epoch=conf.iterations or spec.training.iterations_per_epoch,
        seed=conf.seed,
    )
    spec = replace(spec, training=training)
    if conf.network:
        spec = replace(spec, network=replace(spec.network, name=_fitting(conf.network, spec)))
    method_class(spec.method.name).check(spec)
    return spec


def known_labels(project: Project) -> Mapping[str, int]:
    """Names found in submitted labels. Raises `SpecError` when there are none."""
    names = project.journal.label_names()
    if not names:
        raise SpecError(
            "no labels are known: nothing was submitted yet; set them with --conf labels NAME[,NAME...], "
            "for example --conf labels polyp"
        )
    return names


def check_against_submitted(labels: Mapping[str, int], project: Project) -> None:
    """Raises `SpecError` when a name has another value than in the submitted labels, whose files would change their meaning."""
    submitted = project.journal.label_names()
    moved = [name for name, value in labels.items() if submitted.get(name, value) != value]
    if moved:
        kept = ", ".join(f"{name} {submitted[name]}" for name in moved)
        raise SpecError(
            f"expected --conf labels to keep the values of the labels that were submitted ({kept}), but got "
            f"{', '.join(f'{name} {labels[name]}' for name in moved)}; keep their order and add new ones at the end"
        )


def look_at(datastore: Datastore) -> list[ImageHeader]:
    """Headers of some studies; those that cannot be read are left out with a warning."""
    headers = []
    for path in some_images(datastore, LOOKED_AT):
        try:
            headers.append(read_header(path))
        except CaseError as e:
            logger.warning("Left out: %s", e)
    return headers


def _fitting(network: str, spec: TaskSpec) -> str:
    valid = NETWORKS_2D if spec.data.spatial_dims == 2 else NETWORKS_3D
    if network not in valid:
        raise SpecError(
            f"expected --conf network to be one of {', '.join(valid)} for a {spec.data.kind} model, "
            f"but got {network!r}; choose one"
        )
    return network
