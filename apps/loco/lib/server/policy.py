"""When to retrain, as a pure function over what the journal says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib.store.records import Run, Submission

LATER_SHARE = 0.1
"""Once the labelled set is large, a run waits for this share of it in new labels."""

_CLOCK_NOISE_S = 5.0
"""Processes that note times one after the other may disagree by this much."""

MAX_RETRIES = {"failed": 2, "interrupted": 10}
"""How often in a row a run is tried again before it waits for new labels. A restart of the server interrupts a run; a run
that is killed each time, for want of memory say, must end some day."""


@dataclass(frozen=True)
class Decision:
    """Whether to start a run now, and the reason or what it waits for, in words; `again` with the options of the last run."""

    start: bool
    reason: str
    again: bool = False


def decide(
    submissions: Sequence[Submission],
    runs: Sequence[Run],
    busy: bool,
    now: float,
    retrain_after: int,
    retrain_idle: float,
) -> Decision:
    """Should a training start?

    Args:
        submissions: all active submissions, oldest first.
        runs: runs of this model, newest first, none of them still running unless `busy`.
        busy: a training is running or about to.
        now: unix seconds.
        retrain_after: new labels that make a run worth while; later a tenth of the labelled set if that is more.
        retrain_idle: seconds of quiet after the last label.

    Returns:
        The decision. Labels count by study: a resubmission of an unchanged study is one label.
    """
    if busy:
        return Decision(False, "a training is running")
    if not submissions:
        return Decision(False, "waiting for the first label")
    quiet = _since(submissions[-1].ts, now)
    if runs and _failures_in_a_row(runs) <= MAX_RETRIES.get(runs[0].status, 0):
        if runs[0].status == "interrupted":
            return Decision(True, "going on with the interrupted training", again=True)
        if runs[0].ended and _since(runs[0].ended, now) >= retrain_idle:
            return Decision(True, "trying again after a failed training", again=True)
        return Decision(False, "waiting to try again after a failed training")
    fresh, wanted = new_labels(submissions, runs, retrain_after)
    if fresh < wanted:
        return Decision(False, f"waiting for {wanted - fresh} more labels ({fresh} of {wanted} are new)")
    if quiet < retrain_idle:
        return Decision(False, f"waiting for {retrain_idle - quiet:.0f} s of quiet")
    return Decision(True, f"{fresh} new labels")


def new_labels(submissions: Sequence[Submission], runs: Sequence[Run], retrain_after: int) -> tuple[int, int]:
    """Labelled studies that no run has seen, and how many of them start one; arguments as `decide`."""
    seen = runs[0].last_submission if runs else 0
    fresh = {s.image for s in submissions if s.id > seen}
    labelled = {s.image for s in submissions}
    return len(fresh), max(retrain_after, int(LATER_SHARE * len(labelled)))


def _since(moment: float, now: float) -> float:
    """Seconds since a moment. One that lies ahead was noted before the clock was set back, and counts as long ago."""
    return now - moment if moment <= now + _CLOCK_NOISE_S else math.inf


def _failures_in_a_row(runs: Sequence[Run]) -> int:
    """How many of the newest runs ended without a model; at least 1, also when the newest did not."""
    count = next((i for i, run in enumerate(runs) if run.status not in MAX_RETRIES), len(runs))
    return max(1, count)
