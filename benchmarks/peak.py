"""How much memory a piece of code needs."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch


class PeakMemory:
    """Of this process while the block runs, in MiB: `mib` the highest resident size, `extra` the same less that at the start.

    With a GPU both speak of what torch holds on it.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._cuda = torch.device(device).type == "cuda"
        self.mib = self.extra = 0.0

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated() / 2**20
        else:
            ctypes.CDLL(None).malloc_trim(0)  # hands freed memory back, which the block would reuse uncounted
            self._start = _resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = torch.cuda.max_memory_allocated() / 2**20 if self._cuda else _resident("VmHWM")
        self.extra = self.mib - self._start


def _resident(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"expected /proc/self/status to hold {key}, but it does not; run on Linux")
