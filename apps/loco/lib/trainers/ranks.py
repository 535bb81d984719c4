"""Which processes train together: one per device that MONAI Label's switch names, or those that torchrun has started."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ignite.distributed
import torch

from lib.core.distributed import agreed, process_group, rank, world_size
from lib.core.spec import SpecError

logger = logging.getLogger(__name__)


def devices_of(request: Mapping[str, Any]) -> list[str]:
    """Devices of a training by MONAI Label's `multi_gpu` and `gpus` ("all" or "0,1"); empty: one process as always.

    Raises:
        SpecError: `gpus` names none of this machine.
    """
    if str(request.get("multi_gpu", False)).lower() not in ("true", "1"):
        return []
    count = torch.cuda.device_count()
    text = str(request.get("gpus") or "all").strip()
    names = [str(i) for i in range(count)] if text == "all" else [name.strip() for name in text.split(",")]
    if count < 2 or len(names) < 2:
        logger.warning("Training in one process: `multi_gpu` needs two GPUs, this machine has %d", count)
        return []
    known = {str(i) for i in range(count)}
    if len(set(names)) < len(names) or not known.issuperset(names):
        raise SpecError(f"expected `gpus` to be all or different numbers from 0 to {count - 1}, but got {text!r}")
    return [f"cuda:{name}" for name in names]


def device_of_rank(devices: list[str], local_rank: int) -> torch.device:
    """Device of this process: its one of `devices`, else the GPU of its number on this machine, else the CPU."""
    name = devices[local_rank] if devices else f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def rendezvous() -> Iterator[str]:
    """Address at which the processes of one machine find each other; a file, as a port could be taken meanwhile."""
    with tempfile.TemporaryDirectory(prefix="loco-") as folder:
        yield (Path(folder) / "rendezvous").as_uri()


@contextmanager
def local_group(address: str, rank: int, world: int) -> Iterator[None]:
    """The group of the processes that MONAI Label has started."""
    with _group(address, rank, world, local_rank=rank):
        yield


def launched() -> bool:
    """Whether torchrun has started this process."""
    return torch.distributed.is_torchelastic_launched()


def processes_of(request: Mapping[str, Any]) -> int:
    """How many processes will train, before they have found each other: one per device, or those of torchrun."""
    return int(os.environ["WORLD_SIZE"]) if launched() else max(1, len(request.get("devices", ())))


@contextmanager
def launched_group() -> Iterator[None]:
    """The group of the processes that torchrun has started."""
    of = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    with _group("env://", of["RANK"], of["WORLD_SIZE"], local_rank=of["LOCAL_RANK"]):
        yield


@contextmanager
def taking_part(
    task: Any, rank: int, world: int, request: dict[str, Any], datalist: list[Any]
) -> Iterator[dict[str, Any]]:
    """The group that this process trains in, of one or several, for the block.

    Args:
        task: the training, which rank 0 of torchrun hands to those that wait in `follow`.
        rank: of this process.
        world: number of processes that MONAI Label has started.
        request: of the training; `multi_gpu` says whether MONAI Label has started them.
        datalist: the studies.

    Returns:
        The request without MONAI Label's switch: its own group and wrapper are not used.
    """
    alone = {**request, "multi_gpu": False}
    if request["multi_gpu"]:
        with local_group(request["rendezvous"], rank, world):
            yield alone
    elif launched() and rank == 0:
        with launched_group():
            agreed(lambda: (task, alone, datalist))
            yield alone
    else:
        yield alone


def follow() -> None:
    """Wait for the training that rank 0 plans and take part in it; of a process that torchrun has started as another."""
    with launched_group():
        task, request, datalist = agreed(lambda: None)
        logger.info("Rank %d of %d takes part", rank(), world_size())
        task.train(rank(), world_size(), request, datalist)


@contextmanager
def _group(address: str, rank: int, world: int, local_rank: int) -> Iterator[None]:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with process_group(backend, address, rank, world):
        # ignite would ask all ranks who they are when the first of its handlers wants to know, on rank 0 alone
        ignite.distributed.set_local_rank(local_rank)
        with _own_local_rank(local_rank):
            ignite.distributed.sync()
        yield


@contextmanager
def _own_local_rank(local_rank: int) -> Iterator[None]:
    """Hide a SLURM job from ignite, which would take the local rank of the job's step, the same for all of its processes."""
    before = {name: os.environ.pop(name, None) for name in ("SLURM_JOB_ID", "LOCAL_RANK")}
    os.environ["LOCAL_RANK"] = str(local_rank)
    try:
        yield
    finally:
        del os.environ["LOCAL_RANK"]
        os.environ.update({name: value for name, value in before.items() if value is not None})
