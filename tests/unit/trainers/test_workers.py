"""How many processes load images: bounded by cores, and for volumes by memory."""

from types import SimpleNamespace

import numpy as np
import pytest
from unit.helpers import FRAME, VOLUME, nifti, spec_of

from lib.core.cases import Record, Split
from lib.trainers import workers
from lib.trainers.workers import workers_of


@pytest.fixture
def machine(monkeypatch):
    """16 cores; free memory as a test says."""
    free = SimpleNamespace(available=2**40)
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: free)
    return free


def split_of(*images):
    records = tuple(Record(str(i), str(i), None, str(i)) for i in images)
    return Split(records[:1], records[1:], ())


def test_half_the_cores_are_shared_by_the_trainings_of_a_machine(machine, monkeypatch):
    assert workers_of(split_of("a"), spec_of(FRAME).data) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert workers_of(split_of("a"), spec_of(FRAME).data) == 2


def test_large_volumes_have_as_many_as_there_is_memory_for(machine, tmp_path):
    data = spec_of(VOLUME).data
    spacing = np.diag([2.0, 2.0, 2.0, 1.0])
    small, large = (nifti(tmp_path / f"{n}.nii.gz", np.zeros((n, n, n), np.uint8), spacing) for n in (4, 40))
    (tmp_path / "broken.nii.gz").write_bytes(b"x")
    split = split_of(small, tmp_path / "broken.nii.gz", large)
    needed = 80 * (40 * 2.0) ** 3 / np.prod(data.spacing)
    machine.available = int(2 * 3.5 * needed)
    assert workers_of(split, data) == 3
    machine.available = 1
    assert workers_of(split, data) == 1
