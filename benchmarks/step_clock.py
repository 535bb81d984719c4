"""The app's training task with a clock in its step, for `train_step.py`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from benchmarks.peak import PeakMemory
from ignite.engine import Engine
from monailabel.datastore.local import LocalDatastore
from monailabel.tasks.train.basic_train import Context

from lib.core import contrast
from lib.core.batch import Batch
from lib.core.methods import loco
from lib.progressbar import track
from lib.trainers.milestones import Milestones
from lib.trainers.semi_supervised import SemiSupervisedTraining

WARM_UP = 2
"""Steps before anything is timed; the memory is looked at in the next one, which is not timed either."""


@dataclass
class Clock:
    """Seconds of named parts of a step, each without the parts measured inside it."""

    device: torch.device

    def __post_init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name` and take it from the part around it."""
        self._inner.append(0.0)
        started = self.now()
        yield
        whole = self.now() - started
        self.parts[name] += whole - self._inner.pop()
        if self._inner:
            self._inner[-1] += whole

    def timed(self, name: str, function: Callable) -> Callable:
        """`function` as the part `name`."""

        def call(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*args, **options)

        return call


class MeasuredTraining(SemiSupervisedTraining):
    """The app's training task with a clock in its step; no validation, no publishing."""

    def measure(self, datastore: LocalDatastore, device: str) -> None:
        """Run one training and keep the seconds of each timed step in `steps`, extra memory in `memory_mb`."""
        self.steps: list[dict[str, float]] = []
        self.memory_mb: dict[str, float] = {}
        self({"device": device}, datastore)

    def milestones(self, context: Context) -> Milestones:
        """The app's, without validation and publishing."""
        milestones = super().milestones(context)
        milestones.epoch_done = milestones.run_done = lambda: None
        return milestones

    def train_iteration_update(self, context: Context) -> Callable[[Engine, Any], list[dict[str, Any]]]:
        """The app's step with its parts timed, followed by the bare network on the same batch."""
        update, clock = super().train_iteration_update(context), Clock(context.device)
        self._done: float | None = None

        def measured(engine: Engine, batch: Batch) -> list[dict[str, Any]]:
            started, number = clock.now(), engine.state.iteration - 1
            clock.parts.clear()
            if number == WARM_UP:
                with PeakMemory(context.device) as memory:
                    output = update(engine, batch)
                self.memory_mb["step"] = memory.extra
                with PeakMemory(context.device) as memory:
                    self._bare(context, batch.to(context.device))
                self.memory_mb["bare network"] = memory.extra
            else:
                with self._watched(context, clock):
                    output = update(engine, batch)
                inside = sum(clock.parts.values())
                whole = clock.now() - started
                between = 0.0 if self._done is None else started - self._done
                clock.parts["loader"] = min(between, self.loader_seconds)
                clock.parts["engine and handlers"] = between - clock.parts["loader"] + whole - inside
                parts = dict(clock.parts)
                begun = clock.now()
                self._bare(context, batch.to(context.device))
                if number > WARM_UP:
                    self.steps.append({**parts, "bare network": clock.now() - begun})
            self._done = clock.now()
            return output

        return measured

    def train_data_loader(self, context: Context, num_workers: int = 0, shuffle: bool = True) -> Iterator:
        """The app's loader; the time in which the engine waits for it is kept."""
        return _Waiting(super().train_data_loader(context, num_workers, shuffle), self)

    def _bare(self, context: Context, batch: Batch) -> None:
        context.network.student.zero_grad(set_to_none=True)
        with torch.autocast(context.device.type, enabled=context.device.type == "cuda"):
            output = context.network.student(torch.cat([batch.image_l, batch.image_u_weak, batch.image_u_strong]))
        outputs = [output.logits, output.projection]
        torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
        context.network.student.zero_grad(set_to_none=True)

    @contextmanager
    def _watched(self, context: Context, clock: Clock) -> Iterator[None]:
        """The functions that make up a step, timed while the block runs."""
        method, network, optimizer = self._state.method, context.network, context.optimizer
        forward, step = network.student.forward, method.step
        stamps: dict[str, float] = {}

        def student(image: torch.Tensor) -> Any:
            output = forward(image)
            for tensor in (output.logits, output.projection):
                tensor.register_hook(lambda _: stamps.update(losses=clock.now()))
            return output

        def whole_step(*args: Any) -> Any:
            output = step(*args)
            output.loss.register_hook(lambda _: stamps.update(backward=clock.now()))
            return output

        def optimise(*args: Any, **options: Any) -> Any:
            begun = clock.now()
            clock.parts["losses backward"] += stamps["losses"] - stamps["backward"]
            clock.parts["network backward"] += begun - stamps["losses"]
            with clock.part("optimiser"):
                return type(optimizer).step(optimizer, *args, **options)

        with ExitStack() as patches:
            for target, name, function in (
                (network.student, "forward", clock.timed("student forward", student)),
                (network.teacher, "forward", clock.timed("teacher forward", network.teacher.forward)),
                (network, "update_teacher", clock.timed("teacher average", network.update_teacher)),
                (method, "step", clock.timed("rest of the method", whole_step)),
                (method, "_paste_labelled", clock.timed("CutMix", method._paste_labelled)),
                (method.filter, "update", clock.timed("CDF", method.filter.update)),
                (loco, "cross_entropy", clock.timed("pixel losses", loco.cross_entropy)),
                (loco, "confident_cross_entropy", clock.timed("pixel losses", loco.confident_cross_entropy)),
                (loco, "contrast_loss", clock.timed("contrast: rest", loco.contrast_loss)),
                (contrast, "_ice_pixels", clock.timed("contrast: ICE", contrast._ice_pixels)),
                (contrast, "_bce_pixels", clock.timed("contrast: BCE", contrast._bce_pixels)),
                (optimizer, "step", optimise),
            ):
                patches.enter_context(mock.patch.object(target, name, function))
            yield


class _Waiting:
    """A loader that tells the training how long each batch was waited for."""

    def __init__(self, loader: Any, training: MeasuredTraining) -> None:
        self._loader, self._training = loader, training

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return track(self._timed(), "Training steps", len(self))

    def _timed(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self._training.loader_seconds = time.perf_counter() - started
            if batch is None:
                return
            yield batch
