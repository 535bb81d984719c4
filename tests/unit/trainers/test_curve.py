"""The curve of a run: bounded, in order, over all of it."""

from itertools import pairwise

import pytest

from lib.trainers.progress import History


@pytest.mark.parametrize("steps", [1, 7, 8, 100, 5000])
def test_it_covers_the_whole_run_evenly_with_few_points(steps):
    history = History(limit=8)
    for step in range(1, steps + 1):
        history.add(step, {"loss": step / 2})
    found = [point["step"] for point in history.points]
    assert len(found) < 8
    assert found[0] == 1
    assert all(point["loss"] == point["step"] / 2 for point in history.points)
    gaps = {b - a for a, b in pairwise(found)}
    assert len(gaps) <= 1, "as far from each other everywhere"
    assert steps - found[-1] < 2 * max(gaps, default=1)
