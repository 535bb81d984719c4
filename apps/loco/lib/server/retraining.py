"""Automatic retraining and what follows it: one thread in the server that asks the policy and starts MONAI Label's tasks."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from monailabel.utils.async_tasks.utils import processes, run_background_task, tasks

from lib.decisions import decided
from lib.server.journalled import JournalledLabels
from lib.server.policy import Decision, decide
from lib.store.journal import Journal
from lib.store.records import Run, Submission

logger = logging.getLogger(__name__)

TICK_S = 1.0
_SYNC_EVERY = 15
_STOP_GRACE_S = 0.2
"""MONAI Label kills a process first and notes that it was stopped a moment later."""
_SCORINGS = 3
"""So often is a pass tried that was killed or failed; then the next version is waited for."""
_ENDED = ("DONE", "ERROR", "STOPPED")


@dataclass(frozen=True)
class RetrainSettings:
    """`--conf auto_retrain | retrain_after | retrain_idle`."""

    enabled: bool
    after: int
    idle_s: float


class Retraining:
    """Starts a training when the policy says so and a scoring pass when a model went live; never two of a kind at once."""

    def __init__(
        self,
        model: str,
        journal: Journal,
        datastore: JournalledLabels,
        settings: RetrainSettings,
        run_task: Callable[[dict[str, Any], str, Callable | None], dict[str, Any]] = run_background_task,
    ) -> None:
        self._model, self._journal, self._datastore, self._settings = model, journal, datastore, settings
        self._run_task = run_task
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._ticks = 0
        self._scored_version: int | None = None
        self._tried_version, self._scorings = 0, 0
        self._offered: set[str] = set()
        """Studies that there were when the last scoring pass began."""
        self._started_here = False
        self._failing = False
        self._submissions: list[Submission] = []
        self._read_at: tuple[int, int] | None = None
        self.waiting_for = ""
        """What the policy said when it was asked last."""

    @property
    def settings(self) -> RetrainSettings:
        """When it starts a training."""
        return self._settings

    def start(self) -> None:
        """Clean up after a crash and begin to watch."""
        self._close_dead_runs()
        self._thread = threading.Thread(target=self._watch, name="loco-retraining", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; running trainings are not touched."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def tick(self, now: float) -> Decision:
        """Look once; start what is due."""
        self._ticks += 1
        if self._ticks % _SYNC_EVERY == 1:
            self._datastore.sync_journal()
            if set(self._datastore.list_images()) - self._offered:
                self._scored_version = None  # a pass scores what has no score yet
        self._close_dead_runs()
        self._score_if_due()
        runs = [r for r in self._journal.runs() if r.model == self._model]
        busy = self._started_here or _is_busy("train") or any(r.status == "running" for r in runs)
        finished = [r for r in runs if r.status != "running"]
        decision = decide(self._labels(), finished, busy, now, self._settings.after, self._settings.idle_s)
        if decision.reason != self.waiting_for:
            logger.info("Retraining: %s", decision.reason)
            self.waiting_for = decision.reason
        if decision.start and self._settings.enabled:
            decided("retrain", model=self._model, why=decision.reason)
            self._train(decision.reason, self._journal.options_of_last_run(self._model) if decision.again else {})
        return decision

    def _labels(self) -> list[Submission]:
        """All active submissions, read when one came or went: thousands are not to be read each second."""
        mark = self._journal.submission_mark()
        if mark != self._read_at:
            self._submissions, self._read_at = self._journal.submissions(), mark
        return self._submissions

    def _train(self, reason: str, options: Mapping[str, Any]) -> None:
        """Start a training. One that is stopped or dies before it has opened its run is journalled here.

        Otherwise nothing would tell that it was, and the policy would start it again at once and for ever.
        """
        before = self._journal.last_run(self._model)
        submission = self._journal.last_submission_id()

        def ended(task: Mapping[str, Any]) -> None:
            time.sleep(_STOP_GRACE_S)
            try:
                last = self._journal.last_run(self._model)
                if task["status"] == "DONE" or (last is not None and (before is None or last.id > before.id)):
                    return
                run = self._journal.start_run(self._model, reason, submission, os.getpid(), time.time())
                status = "stopped" if task["status"] == "STOPPED" else "failed"
                self._journal.finish_run(run, status, "its process ended before the training began", time.time())
            finally:
                self._started_here = False

        self._started_here = True
        self._run_task({**options, "model": self._model, "reason": reason}, "train", ended)

    def _watch(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self.tick(time.time())
                self._failing = False
            except Exception:  # whatever it is, the thread goes on; a spell of failures is logged once, not each second
                if not self._failing:
                    logger.exception("Retraining could not look at the journal; trying again")
                self._failing = True

    def _score_if_due(self) -> None:
        live = self._journal.live_version(self._model)
        if live is None or live.version == self._scored_version or _is_busy("scoring"):
            return
        self._scorings = 1 if live.version != self._tried_version else self._scorings + 1
        self._scored_version = self._tried_version = live.version
        self._offered = set(self._datastore.list_images())

        def ended(task: Mapping[str, Any]) -> None:
            if task["status"] == "ERROR" and self._scorings < _SCORINGS:
                self._scored_version = None  # due again; what it had scored is kept

        self._run_task({"method": "low_contrast", "model_version": live.version}, "scoring", ended)

    def _close_dead_runs(self) -> None:
        """A run whose process is gone ended: stopped by hand if MONAI Label says so, else interrupted."""
        for run in self._journal.running_runs():
            if not _is_alive(run):
                stopped = any(t.get("status") == "STOPPED" and _of_run(t, run) for t in tasks("train"))
                status = "stopped" if stopped else "interrupted"
                self._journal.finish_run(run.id, status, f"its process ended ({status})", time.time())


def _is_alive(run: Run) -> bool:
    try:
        process = psutil.Process(run.pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= run.started + 1
    except psutil.NoSuchProcess:
        return False


def _of_run(task: Mapping[str, Any], run: Run) -> bool:
    """Whether a MONAI Label task is the one that made a run: it ended after the run had started."""
    ended = time.mktime(time.strptime(task["end_ts"], "%Y-%m-%d %H:%M:%S")) if task.get("end_ts") else 0
    return ended + 1 >= run.started


def _is_busy(method: str) -> bool:
    """A task of this kind is running or waits for its turn."""
    return bool(processes(method)) or any(t["status"] not in _ENDED for t in tasks(method))
