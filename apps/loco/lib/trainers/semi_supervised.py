"""MONAI Label training task: semi-supervised over all studies, resumable, publishing only what is not worse."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.inferers import Inferer, SimpleInferer
from monai.utils import set_determinism
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.basic_train import BasicTrainTask, Context
from monailabel.utils.async_tasks.utils import processes
from monailabel.utils.others.generic import device_list
from torch.multiprocessing import ProcessRaisedException

from lib.core.batch import StepDataset, train_loader
from lib.core.cache import CaseCache, CaseStore
from lib.core.cases import Record, labelled_groups, split_records
from lib.core.checkpoint import load_weights
from lib.core.distributed import rank, replicate, world_size
from lib.core.methods import Method, build_method, described, second_network
from lib.core.networks import build_network
from lib.core.spec import TaskSpec
from lib.core.teacher import StudentTeacher
from lib.decisions import decided
from lib.store.project import ModelFolder, Project
from lib.studies import records_of
from lib.trainers.milestones import Milestones
from lib.trainers.optimizers import make_optimizer
from lib.trainers.options import checked_request, chosen_options, option_defaults, smaller_batches
from lib.trainers.outcome import how_it_ended, recorded
from lib.trainers.progress import RunState
from lib.trainers.publish import adopt_live
from lib.trainers.ranks import device_of_rank, devices_of, launched, rendezvous, taking_part
from lib.trainers.resume import plan_run
from lib.trainers.standing import standing
from lib.trainers.step import started_by_server, training_step
from lib.trainers.tracking import open_tracking, tracking_address, tracking_choices
from lib.trainers.workers import workers_of

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
"""Share of labelled patients that is set aside."""

LOCK_WAIT_S = 60
"""How long a new run waits for the end of one that is being stopped."""


class SemiSupervisedTraining(BasicTrainTask):
    """Trains `name` on all studies of the datastore with the method of its specification."""

    def __init__(
        self, name: str, spec: TaskSpec, project: Project, pattern: str, seed: int, cache_bytes: int = 0
    ) -> None:
        """`spec`: what an untrained model would be; `pattern` tells patients from names; `cache_bytes`: 0 = no cache."""
        self._name, self._spec, self._project, self._pattern, self._seed = name, spec, project, pattern, seed
        self._cache_bytes = cache_bytes
        self._folder: ModelFolder = project.model(name)
        self._state: RunState | None = None
        super().__init__(
            str(self._folder.root),
            f"Semi-supervised training of the {name} model ({described(spec.method.name)}) on labelled and unlabelled studies",
            labels=list(spec.labels),
            stats_path=str(self._folder.stats),
            amp=True,
        )
        self._config = {
            **option_defaults(spec),
            "device": device_list(),
            "multi_gpu": False,
            "gpus": "all",
            "tracking": tracking_choices(),
            "reason": "started by hand",
        }

    def stats(self) -> dict[str, Any]:
        """What viewers show of the newest training, see `lib.trainers.standing`."""
        journal = self._project.journal
        pids = [p.pid for p in list(processes("train").values())]
        live = journal.live_version(self._name)
        return standing(super().stats(), journal.last_run(self._name), pids, live and live.version)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train once. Raises a `ValueError` with one sentence when it cannot start; the journal keeps how it ended."""
        options = checked_request(request, self._config)
        devices = [] if launched() else devices_of(options)
        options |= {"devices": devices, "multi_gpu": bool(devices), "gpus": ",".join(map(str, range(len(devices))))}
        options |= {"tracking_uri": tracking_address(Path(self._folder.root)), "by_server": started_by_server()}
        try:
            with FileLock(self._folder.lock, timeout=LOCK_WAIT_S):
                self._project.journal.keep_options(self._name, chosen_options(request))
                return self._train_recorded(options, datastore)
        except Timeout as e:
            raise RuntimeError(f"expected to train {self._name}, but another training of it is running; wait") from e

    def _train_recorded(self, options: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        reason = str(options.get("reason") or "started by hand")
        try:
            with recorded(self._project.journal, self._name, reason) as options["run"], rendezvous() as address:
                return self._train_in_memory({**options, "rendezvous": address}, datastore)
        finally:
            self._state = None

    # ---- one process or several ----

    def train(self, rank: int, world_size: int, request: dict[str, Any], datalist: list[Record]) -> dict[str, Any]:
        """The training in this process, as rank 0 of one or as one of several.

        MONAI Label starts a process per device when `multi_gpu` is on and calls this in each; those of torchrun are there
        already and wait in `follow`. MONAI Label's own process group and wrapper are not used: the group would wait for
        a dead rank as long as torch likes, the wrapper averages gradients that are parts of one sum.
        """
        with taking_part(self, rank, world_size, request, datalist) as alone:
            try:
                return super().train(rank, world_size, alone, datalist)
            except Exception as e:
                self._state.tracking.close(how_it_ended(e))
                raise

    def _train_in_memory(self, options: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; when the GPU has no room for it, again with smaller batches until one of each kind is left."""
        while True:
            try:
                return super().__call__(dict(options), datastore)
            except (torch.OutOfMemoryError, ProcessRaisedException) as e:
                smaller = smaller_batches(self._spec, options)
                if smaller is None or torch.OutOfMemoryError.__name__ not in f"{type(e).__name__} {e}":
                    raise
                self._state = None
            gc.collect()  # trainer and handlers know each other, and with them the networks on the GPU
            torch.cuda.empty_cache()
            options.update(smaller)
            labelled, unlabelled = smaller["train_batch_size"], smaller["unlabeled_batch_size"]
            decided(
                "smaller batch", model=self._name, labelled=labelled, unlabelled=unlabelled, why="out of GPU memory"
            )

    # ---- hooks of BasicTrainTask, in the order in which they are called ----

    def pre_process(self, request: dict[str, Any], datastore: Datastore) -> list[Record]:
        """All studies as records; gives new labelled patients their side and decides where the run starts."""
        adopt_live(self._name, self._folder, self._project.journal)
        records = records_of(datastore, self._pattern)
        if not any(r.label for r in records):
            raise ValueError(
                "expected at least one submitted label to train on, but there is none; submit a label first"
            )
        sides = self._project.journal.assign_splits(labelled_groups(records), VALIDATION_SHARE, self._seed)
        split = split_records(records, sides)
        state = self._state = plan_run(self._folder, self._spec, request, split)
        if state.resumed is not None:
            self._project.journal.go_on(state.run_id, int(state.resumed.metrics.get("run") or state.run_id))
        logger.info(
            "Training on %d labelled and %d unlabelled studies; %d labelled ones are set aside for validation",
            len(split.labelled), len(split.unlabelled), len(split.validation),
        )  # fmt: skip
        return records

    def partition_datalist(self, context: Context, shuffle: bool = False) -> tuple[list[Record], list[Record]]:
        """Records to train on, labelled or not, and validation records."""
        split = self._state.split
        return [*split.labelled, *split.unlabelled], list(split.validation)

    def _device(self, context: Context) -> torch.device:
        """The device of this process."""
        if world_size() == 1:
            return super()._device(context)
        return device_of_rank(context.request["devices"], int(os.environ.get("LOCAL_RANK", context.local_rank)))

    def _create_network_and_optimizer(self, context: Context) -> tuple[StudentTeacher, torch.optim.Optimizer]:
        """The same weights on every rank, then random numbers (dropout) of its own for each."""
        network, optimizer = super()._create_network_and_optimizer(context)
        replicate(network)
        replicate(self._state.method.parts)
        if world_size() > 1:
            torch.manual_seed(self._state.spec.training.seed + rank())
        return network, optimizer

    def network(self, context: Context) -> StudentTeacher:
        """Student and teacher: resumed, continued from the live model, or new."""
        state = self._state
        set_determinism(state.spec.training.seed)
        network = StudentTeacher(build_network(state.spec.network, state.spec.data.spatial_dims))
        source = state.resumed or state.start
        if source is not None:
            load_weights(network, source)
        if state.resumed is None and state.start is not None:
            network.student.load_state_dict(network.teacher.state_dict())
        return network

    def optimizer(self, context: Context) -> torch.optim.Optimizer:
        """For the student and what the method brings along; the teacher does not train."""
        training = self._state.spec.training
        method = self._state.method = self._method(context)
        rates = training.learning_rate, training.encoder_rate
        groups = [*context.network.student.parameter_groups(*rates), *method.parameter_groups(*rates)]
        optimizer = make_optimizer(groups, training)
        if self._state.resumed is not None and self._state.resumed.optimizer:
            optimizer.load_state_dict(self._state.resumed.optimizer)
        return optimizer

    def _method(self, context: Context) -> Method:
        """The method of the run on the device, with the state that a stopped run or the live model left."""
        state = self._state
        spec = state.spec
        method = build_method(
            context.network,
            spec.method,
            spec.network.classes,
            spec.training.iterations,
            spec.training.seed,
            second_network(spec),
        ).to(context.device)
        source = state.resumed or state.start
        if source is not None and source.method and source.spec.method.name == spec.method.name:
            method.load_state_dict(source.method)
        return method

    def loss_function(self, context: Context) -> Callable:
        """Unused: the method's step computes the loss."""
        return torch.nn.Identity()

    def train_pre_transforms(self, context: Context) -> list:
        """Unused: the loader draws batches of `lib.core.batch`."""
        return []

    def train_post_transforms(self, context: Context) -> list:
        """Unused, see `train_pre_transforms`."""
        return []

    def val_inferer(self, context: Context) -> Inferer:
        """Unused: validation predicts as inference does, through `lib.core.predict`."""
        return SimpleInferer()

    def _create_evaluator(self, context: Context) -> None:
        """The teacher is validated at the end of each epoch by `Milestones`."""
        return

    def train_data_loader(self, context: Context, num_workers: int = 0, shuffle: bool = True) -> Iterator:
        """Batches of the remaining steps of the run, of several processes the rows of this one."""
        state = self._state
        spec = state.spec
        views = state.method.views
        unlabelled = state.split.unlabelled if views.unlabelled else ()
        cache = CaseCache(self._project.cache, self._cache_bytes) if self._cache_bytes else None
        store = CaseStore(spec.data, spec.network.classes, cache)
        dataset = StepDataset(
            state.split.labelled, unlabelled, store, spec.data, spec.training, views, rank(), world_size()
        )
        first = state.first_epoch * spec.training.iterations_per_epoch
        return train_loader(dataset, first, num_workers, context.device.type == "cuda")

    def _create_trainer(self, context: Context) -> SupervisedTrainer:
        """MONAI's trainer around the method's step."""
        state = self._state
        spec = state.spec
        workers = workers_of(state.split, spec.data) if context.device.type == "cuda" else 0
        return SupervisedTrainer(
            device=context.device,
            max_epochs=spec.training.epochs - state.first_epoch,
            train_data_loader=self.train_data_loader(context, num_workers=workers),
            epoch_length=spec.training.iterations_per_epoch,
            network=context.network,
            optimizer=context.optimizer,
            loss_function=self.loss_function(context),
            prepare_batch=lambda batch, device, non_blocking: batch.to(device),
            amp=self._amp and context.device.type == "cuda",
            decollate=False,
            train_handlers=self.train_handlers(context),
            iteration_update=self.train_iteration_update(context),
        )

    def train_iteration_update(self, context: Context) -> Callable[[Engine, Any], list[dict[str, Any]]]:
        """One optimiser step of the method, see `lib.trainers.step`."""
        return training_step(context, self._state, self._amp and context.device.type == "cuda")

    def train_handlers(self, context: Context) -> list[Any]:
        """None of MONAI's: `Milestones` also tracks."""
        return []

    def milestones(self, context: Context) -> Milestones:
        """Log lines, validation, saving and publishing of this run."""
        return Milestones(self._name, context, self._state, self._folder, self._project.journal)

    def finalize(self, context: Context) -> None:
        """Open what the run is followed in, and attach all that happens along the way."""
        if rank() == 0:
            self._state.tracking = open_tracking(context, self._project.folder.name, self._state.resumed is not None)
        self.milestones(context).attach(context.trainer)
