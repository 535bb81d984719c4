"""Peak memory of a block of code."""

from __future__ import annotations

from pathlib import Path

import torch


class PeakMemory:
    """`mib`: highest resident size of this process while the block ran; with a GPU, most memory that torch held on it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.mib = 0.0

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = torch.cuda.max_memory_allocated() / 2**20 if self._cuda else _high_water_mark()


def _high_water_mark() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
