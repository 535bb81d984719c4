"""One optimiser step: the glue between MONAI's trainer and a method."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import psutil
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monailabel.tasks.train.basic_train import Context

from lib.core.batch import gather_batch
from lib.core.distributed import any_rank, rank, sum_gradients
from lib.core.schedules import poly
from lib.core.split_batch import split_over_ranks
from lib.trainers.progress import RunState


class ServerGoneError(RuntimeError):
    """The server that started this training, or the process that started this rank of it, is gone."""


def training_step(context: Context, state: RunState, amp: bool) -> Callable[[Engine, Any], list[dict[str, Any]]]:
    """MONAI's `iteration_update`: the method's loss, backward, SGD with a poly rate, then the teacher.

    With several processes each loads and runs its rows of the batch; loss and optimiser step are those of the whole.

    Args:
        context: network, optimiser and device of the run.
        state: its specification and method.
        amp: mixed precision; the loss is scaled.

    Returns:
        A function of engine and `Batch`. It sets `engine.state.output` and fires `IterationEvents.MODEL_COMPLETED`, without
        which MONAI's handlers see nothing.
    """
    training = state.spec.training
    device = context.device
    scaler = state.scaler = torch.amp.GradScaler(device.type, enabled=amp)
    if amp and state.resumed is not None and state.resumed.scaler:
        scaler.load_state_dict(dict(state.resumed.scaler))
    starters = _starters(context.request)
    for group in context.optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])

    # what a method computes outside the networks, every rank computes whole: its gradients are not added up
    networks = [*context.network.children(), *([state.method.parts["second"]] if state.method.second else [])]

    def update(engine: Engine, batch: Any) -> list[dict[str, Any]]:
        if any_rank(_starters(context.request) != starters, device):
            raise ServerGoneError("what started this training is gone; the training goes on after the next start")
        step = state.first_epoch * training.iterations_per_epoch + engine.state.iteration - 1
        # dropout of a step is the same whether the run was stopped before it or not; of each rank's rows another
        torch.manual_seed(step_seed(training.seed, step, rank()))
        begin, end = state.method.stage(step) if batch.image_u_weak is not None else (0, training.iterations)
        if step == begin:
            context.optimizer.state.clear()  # the momentum of another network
        for group in context.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * poly(step - begin, end - begin, training.poly_power)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        whole = gather_batch(batch.to(device), training)
        with split_over_ranks(networks), torch.autocast(device.type, enabled=amp):
            output = state.method.step(whole, step)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        scaler.scale(output.loss).backward()
        sum_gradients(p for n in networks for p in n.parameters())
        scaler.step(engine.optimizer)
        scaler.update()
        state.method.after_step(step, training.ema_decay)
        engine.state.output = [{"loss": output.loss.detach(), **output.logs}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    return update


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's random numbers in one step of one rank, from the seed of the run."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def started_by_server() -> bool:
    """Whether a MONAI Label server has started this process; a command may outlive the terminal that it was typed in."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "monailabel.interfaces.utils.app"


def _starters(request: Mapping[str, Any]) -> tuple[int, ...]:
    """Processes without which this training shall not go on: the server that started it, and what started the ranks."""
    parent = os.getppid()
    if not request["devices"]:
        return (parent,) if request["by_server"] else ()
    try:
        return (parent, psutil.Process(parent).ppid()) if request["by_server"] else (parent,)
    except psutil.NoSuchProcess:
        return (0,)
