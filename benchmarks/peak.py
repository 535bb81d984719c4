"""How much memory a piece of code needs."""

from __future__ import annotations

import ctypes
from pathlib import Path


class PeakMemory:
    """Highest resident size of this process while the block runs, less the size at its start, in MB."""

    def __enter__(self) -> PeakMemory:
        ctypes.CDLL(None).malloc_trim(0)  # hands freed memory back, which the call would reuse uncounted
        self.start = self._read("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        return self

    def __exit__(self, *_: object) -> None:
        self.extra = self._read("VmHWM") - self.start

    @staticmethod
    def _read(key: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"expected /proc/self/status to hold {key}, but it does not; run on Linux")
