"""How many processes load images beside a training on a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import psutil

from lib.core.cases import Record, Split
from lib.core.distributed import world_size
from lib.core.images import CaseError, read_header
from lib.core.spec import DataSpec

_BYTES_PER_VOXEL = 80
"""Of a volume while it is turned and scaled (measured: 72)."""
_LOOKED_AT = 16
_SHARE = 0.5
"""Of the free memory that may be used so."""


def workers_of(split: Split, data: DataSpec) -> int:
    """Half the cores of each training process on this machine, at least one, and fewer where volumes are large for its memory."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    cores = max(1, (os.cpu_count() or 2) // 2 // processes)
    if data.kind != "volume":
        return cores
    needed = _BYTES_PER_VOXEL * _voxels([*split.labelled, *split.unlabelled], data)
    return max(1, min(cores, int(_SHARE * psutil.virtual_memory().available / processes / max(1.0, needed))))


def _voxels(records: Sequence[Record], data: DataSpec) -> float:
    """On the working grid, of the largest of some volumes, spread over the list; 0 where none can be read."""
    largest = 0.0
    for record in records[:: max(1, len(records) // _LOOKED_AT)]:
        try:
            header = read_header(record.image)
        except CaseError:
            continue
        extent = np.multiply(header.shape, header.spacing[: len(header.shape)])
        largest = max(largest, float(np.prod(extent) / np.prod(data.spacing[: len(extent)])))
    return largest
