"""One optimiser step: the glue between MONAI's trainer and a method."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monailabel.tasks.train.basic_train import Context

from lib.core.schedules import poly
from lib.trainers.progress import RunState


class ServerGoneError(RuntimeError):
    """The server that started this training is gone."""


def training_step(context: Context, state: RunState, amp: bool) -> Callable[[Engine, Any], list[dict[str, Any]]]:
    """MONAI's `iteration_update`: the method's loss, backward, SGD with a poly rate, then the teacher.

    Args:
        context: network, optimiser and device of the run.
        state: its specification and method.
        amp: mixed precision; the loss is scaled.

    Returns:
        A function of engine and `Batch`. It sets `engine.state.output` and fires `IterationEvents.MODEL_COMPLETED`, without
        which MONAI's handlers see nothing.
    """
    training = state.spec.training
    scaler = torch.amp.GradScaler(context.device.type, enabled=amp)
    parent = os.getppid()
    for group in context.optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])

    def update(engine: Engine, batch: Any) -> list[dict[str, Any]]:
        if os.getppid() != parent:
            raise ServerGoneError("the server that started this training is gone; it goes on after the next start")
        step = state.first_epoch * training.iterations_per_epoch + engine.state.iteration - 1
        for group in context.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * poly(step, training.iterations, training.poly_power)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(context.device.type, enabled=amp):
            output = state.method.step(batch.to(context.device), step)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        scaler.scale(output.loss).backward()
        scaler.step(engine.optimizer)
        scaler.update()
        state.method.after_step(step, training.ema_decay)
        engine.state.output = [{"loss": output.loss.detach(), **output.logs}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    return update
