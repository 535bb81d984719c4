"""MONAI Label training task: semi-supervised over all studies, resumable, publishing only what is not worse."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler
from monai.inferers import Inferer, SimpleInferer
from monai.utils import set_determinism
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.basic_train import BasicTrainTask, Context
from monailabel.utils.others.generic import device_list

from lib.core.batch import StepDataset, train_loader
from lib.core.cache import CaseCache, CaseStore
from lib.core.cases import Record, labelled_groups, split_records
from lib.core.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    restore_network,
    save_checkpoint,
    why_not_continue,
)
from lib.core.distributed import agreed, gathered, rank, replicate, world_size
from lib.core.files import replacing
from lib.core.methods import Method, build_method, described, second_network
from lib.core.networks import build_network
from lib.core.spec import TaskSpec
from lib.core.teacher import StudentTeacher
from lib.core.validate import Validation, validate
from lib.decisions import decided
from lib.store.project import ModelFolder, Project
from lib.studies import records_of
from lib.trainers.options import option_defaults, smaller_batches
from lib.trainers.progress import Progress, RunState, dice_line, scalars
from lib.trainers.publish import adopt_live, live_checkpoint, publish
from lib.trainers.ranks import device_of_rank, devices_of, launched, launched_group, local_group, rendezvous
from lib.trainers.resume import plan_run
from lib.trainers.step import ServerGoneError, training_step

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
            "tracking": ["None", "mlflow"],
            "reason": "started by hand",
        }

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train once. Raises a `ValueError` with one sentence when it cannot start; the journal keeps how it ended."""
        allowed = {*self._config, "model", "client_id", "local_rank"}
        unknown = sorted(set(request) - allowed)
        if unknown:
            logger.warning("Ignored training options %s; known are %s", unknown, sorted(self._config))
        options = {k: v for k, v in request.items() if k in allowed}
        fixed = {
            "name": "train", "val_batch_size": 1, "dataset": "Dataset", "dataloader": "DataLoader",
            "early_stop_patience": -1, "val_split": 0.0, "tracking_uri": "", "tracking_experiment_name": "",
        }  # fmt: skip
        options["device"] = _first(options.get("device", self._config["device"]))
        devices = [] if launched() else devices_of(options)
        fixed |= {"devices": devices, "multi_gpu": bool(devices), "gpus": ",".join(map(str, range(len(devices))))}
        try:
            with FileLock(self._folder.lock, timeout=LOCK_WAIT_S):
                return self._train_recorded({**options, **fixed}, datastore)
        except Timeout as e:
            raise RuntimeError(f"expected to train {self._name}, but another training of it is running; wait") from e

    def _train_recorded(self, options: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        journal = self._project.journal
        reason = str(options.get("reason") or "started by hand")
        run_id = journal.start_run(self._name, reason, journal.last_submission_id(), os.getpid(), time.time())
        options["run"] = run_id
        try:
            with rendezvous() as options["rendezvous"]:
                result = self._train_in_memory(options, datastore)
        except Exception as e:
            # the error of a process of its own arrives as text
            status = "interrupted" if ServerGoneError.__name__ in f"{type(e).__name__} {e}" else "failed"
            detail = str(e) if isinstance(e, ServerGoneError) else f"{type(e).__name__}: {e}"[:500]
            journal.finish_run(run_id, status, detail, time.time())
            raise
        finally:
            self._state = None
        return result

    # ---- one process or several ----

    def train(self, rank: int, world_size: int, request: dict[str, Any], datalist: list[Record]) -> dict[str, Any]:
        """The training in this process, as rank 0 of one or as one of several.

        MONAI Label starts a process per device when `multi_gpu` is on and calls this in each; those of torchrun are there
        already and wait in `follow`. MONAI Label's own process group and wrapper are not used: the group would wait for
        a dead rank as long as torch likes, the wrapper averages gradients that are parts of one sum.
        """
        alone = {**request, "multi_gpu": False}
        if request["multi_gpu"]:
            with local_group(request["rendezvous"], rank, world_size):
                return super().train(rank, world_size, alone, datalist)
        if launched() and rank == 0:
            with launched_group():
                agreed(lambda: (self, alone, datalist))
                return super().train(0, world_size, alone, datalist)
        return super().train(rank, world_size, alone, datalist)

    def _train_in_memory(self, options: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; when the GPU has no room for it, again with smaller batches until one of each kind is left."""
        while True:
            try:
                return super().__call__(dict(options), datastore)
            except torch.OutOfMemoryError:
                smaller = smaller_batches(self._spec, options)
                if smaller is None:
                    raise
                self._state = None
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
        self._state = plan_run(self._folder, self._spec, request, split)
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
        """SGD on the student, as LoCo, and on what the method brings along; the teacher does not train."""
        training = self._state.spec.training
        method = self._state.method = self._method(context)
        optimizer = torch.optim.SGD(
            [
                *context.network.student.parameter_groups(training.learning_rate),
                *method.parameter_groups(training.learning_rate),
            ],
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
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
        """The teacher is validated at the end of each epoch by `_epoch_done`."""
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
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
        workers = max(1, (os.cpu_count() or 2) // 2 // local) if context.device.type == "cuda" else 0
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
        """TensorBoard and, where MONAI Label's switch is on, MLflow get every term that the method logs."""
        # first, so that the others log this epoch's Dice
        handlers: list[Any] = [_AtEpochEnd(lambda: self._epoch_done(context))]
        if rank() > 0:
            return handlers
        handlers.append(TensorBoardStatsHandler(log_dir=context.events_dir, output_transform=scalars))
        if context.tracking and context.tracking.lower() == "mlflow":
            handlers.append(
                MLFlowHandler(
                    tracking_uri=context.tracking_uri,
                    experiment_name=context.tracking_experiment_name,
                    run_name=context.tracking_run_name,
                    iteration_log=True,
                    output_transform=scalars,
                    close_on_complete=True,
                )
            )
        return handlers

    def finalize(self, context: Context) -> None:
        """Attach log lines, validation, saving and publishing; measure the live model on today's validation cases."""
        trainer, state = context.trainer, self._state
        live = agreed(lambda: live_checkpoint(self._folder))
        if live is not None and why_not_continue(live, state.spec) is None:
            network = restore_network(live).to(context.device).eval()
            state.live = _validated(network, context.val_datalist, live.spec, context.device)
        state.progress = Progress(context, state)
        if rank() == 0:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: self._iteration_done(state.progress))
            trainer.add_event_handler(Events.COMPLETED, lambda: self._run_done())

    # ---- what happens along the way ----

    def _iteration_done(self, progress: Progress) -> None:
        if progress.is_due():
            logger.info(progress.line())
            self._record(progress)

    def _epoch_done(self, context: Context) -> None:
        state = self._state
        spec, progress = state.spec, state.progress
        context.network.eval()
        result = _validated(context.network, context.val_datalist, spec, context.device)
        metrics = context.trainer.state.metrics
        metrics.update({"val_mean_dice": result.mean_dice} if result.cases else {})
        metrics.update({f"val_dice_{name}": dice for name, dice in result.per_class.items()})
        first = state.best is None or state.best.mean_dice is None or result.mean_dice is None
        improved = first or result.mean_dice >= state.best.mean_dice
        state.best = result if improved else state.best
        if rank() > 0:
            return
        checkpoint = self._checkpoint(context, progress.step)
        if improved:
            save_checkpoint(checkpoint, self._folder.best)
        save_checkpoint(checkpoint, self._folder.run)
        logger.info("Epoch %d of %d done: %s", progress.epoch, spec.training.epochs, dice_line(result))
        self._record(progress)

    def _run_done(self) -> None:
        state, journal = self._state, self._project.journal
        checkpoint = load_checkpoint(self._folder.best)
        live, reason = publish(self._name, self._folder, journal, checkpoint, state.best, state.live, state.run_id)
        decided("published" if live else "kept", model=self._name, version=checkpoint.version, why=reason)
        self._folder.run.unlink(missing_ok=True)
        self._folder.best.unlink(missing_ok=True)
        self._record(state.progress, {"version": checkpoint.version, "live": live, "reason": reason, "status": "done"})
        journal.finish_run(state.run_id, "done", reason, time.time())

    def _checkpoint(self, context: Context, step: int) -> Checkpoint:
        state = self._state
        thresholds = state.method.thresholds()
        return Checkpoint(
            spec=state.spec,
            student=context.network.student.state_dict(),
            teacher=context.network.teacher.state_dict(),
            method=copy.deepcopy(state.method.state_dict()),
            thresholds=[float(t) for t in thresholds] if thresholds is not None else [],
            optimizer=context.optimizer.state_dict(),
            step=step,
            metrics={
                "labelled": len(state.split.labelled),
                "unlabelled": len(state.split.unlabelled),
                "validation": len(state.split.validation),
                "best": {k: dict(v) for k, v in state.best.cases.items()} if state.best else {},
            },
        )

    def _record(self, progress: Progress, outcome: Mapping[str, Any] | None = None) -> None:
        """Progress to the journal and to MONAI Label's train_stats, written whole."""
        stats = {**progress.stats(), "status": "running", **(outcome or {})}
        self._project.journal.update_run(self._state.run_id, {**stats, "history": progress.curve()}, time.time())
        with replacing(self._folder.stats) as file:
            file.write(json.dumps(stats, indent=2).encode())


class _AtEpochEnd:
    """A MONAI handler that calls a function when an epoch is done."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._call)


def _validated(network: StudentTeacher, records: Sequence[Record], spec: TaskSpec, device: torch.device) -> Validation:
    """Dice of the teacher; each of several processes predicts its share of the cases, all get the whole."""
    share = records[rank() :: world_size()]
    parts = gathered(validate(network.teacher, share, spec.data, spec.labels, device))
    cases = {name: case for part in parts for name, case in part.cases.items()}
    return Validation({r.id: cases[r.id] for r in records if r.id in cases})


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) else value
