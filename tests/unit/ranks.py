"""Two processes on the CPU that train together, for tests."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from lib.core.distributed import process_group

WORLD = 2
HEAVY = [
    "torch",
    "monai.data",
    "monai.inferers",
    "monai.networks.nets",
    "monai.transforms",
    "segmentation_models_pytorch",
]


def run_ranks(folder: Path, work: Callable[[Path], Any], timeout_s: float = 120) -> list[Any]:
    """What `work(folder)`, a function of a module, returns on each rank; raises when it does on one of them."""
    # both are forked from a process that has imported everything once and, unlike this one, never ran a backward pass
    multiprocessing.set_forkserver_preload(HEAVY)
    torch.multiprocessing.start_processes(
        _rank, (str(folder), work, timeout_s), nprocs=WORLD, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def _rank(rank: int, folder: str, work: Callable[[Path], Any], timeout_s: float) -> None:
    torch.set_num_threads(1)
    address = (Path(folder) / "rendezvous").as_uri()
    with process_group("gloo", address, rank, WORLD, timedelta(seconds=timeout_s)):
        result = work(Path(folder))
    torch.save(result, Path(folder) / f"{rank}.pt")
