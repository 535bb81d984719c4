import os
import subprocess
import sys

import numpy as np
import pytest
from benchmarks import memory
from PIL import Image


@pytest.mark.parametrize("count", [2, 6, 100])
def test_generated_frames_and_their_labels(tmp_path, monkeypatch, count):
    monkeypatch.setattr(memory, "DIFFERENT", 3)
    monkeypatch.setattr(memory, "FRAME_SIZE", (48, 32))
    memory.write_frames(tmp_path, count)
    frames = sorted(p.stem for p in tmp_path.glob("*.jpg"))
    labels = sorted(p.stem for p in (tmp_path / "labels" / "final").glob("*.png"))
    assert frames == [f"frame_{n:05d}" for n in range(count)]
    assert labels == frames[: max(4, int(memory.LABELLED * count))], "a few, if there are so many"
    assert np.asarray(Image.open(tmp_path / "labels" / "final" / f"{labels[0]}.png")).shape == (32, 48)


def test_children_count():
    before = memory.resident(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert memory.resident(os.getpid()) > before
        assert memory.resident(child.pid) > 0
    finally:
        child.communicate(b"\n")


def test_summary():
    runs = [
        {"peak_gb": 1.0, "seconds_per_sample": [1.0, 2.0], "listing_s": 3.0},
        {"peak_gb": 2.0, "seconds_per_sample": [6.0], "listing_s": 2.0},
    ]
    assert memory.summary(runs) == {"peak_gb": 2.0, "seconds_per_sample": 2.0, "listing_s": 2.0}
