"""What viewers are told of the newest training: what it wrote of itself, put right by what is known from outside.

A training that is stopped or killed ends at once and writes no last word, and one that was started has nothing to tell until
its process has loaded everything, half a minute later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lib.store.records import Run

STARTING = "starting"


def standing(told: Mapping[str, Any], run: Run | None, processes: Collection[int], live: int | None) -> dict[str, Any]:
    """train_stats of a model.

    Args:
        told: what the newest training wrote of itself; empty before the first.
        run: its entry in the journal.
        processes: of trainings that run at this moment.
        live: version of the live model.

    Returns:
        `told` with `status` as it is now and `live_version`; of a training that has told nothing yet no more than its run.
    """
    known = {} if live is None else {"live_version": live}
    begun = {"epoch": 0, "step": 0, **({} if run is None else {"run": run.id})}
    if processes and (run is None or run.pid not in processes):
        return {**begun, **known, "status": STARTING}
    if run is None:
        return {**told, **known}
    return {**(told if told.get("run") == run.id else begun), **known, "status": run.status}
