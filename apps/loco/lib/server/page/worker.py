"""Work that no request waits for: a few threads, what was asked for last is done first, and what nobody looks at is dropped."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import HTTPException

from lib.core.checkpoint import CheckpointError
from lib.core.images import CaseError

logger = logging.getLogger(__name__)

_NICE = 5
_FAILURES = 1000
_EXPECTED = (CaseError, CheckpointError, HTTPException, OSError)


class Worker:
    """Runs jobs in daemon threads, the newest first, each key once at a time.

    Args:
        name: of its threads.
        threads: how many jobs run at once.
        limit: how many may wait; of more, those that were asked for longest ago are forgotten.
        done: called after each job.
        remember_s: how long a failure is known.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        limit: int,
        done: Callable[[], None] = lambda: None,
        remember_s: float = math.inf,
    ) -> None:
        self._waiting: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._busy: set[str] = set()
        self._failures: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._change = threading.Condition()
        self._name, self._threads, self._limit, self._done = name, threads, limit, done
        self._remember_s = remember_s
        self._started = False

    def ask(self, key: str, job: Callable[[], None]) -> None:
        """Have a job done soon, unless it is under way; one that waits already is moved to the front."""
        with self._change:
            if key in self._busy:
                return
            self._waiting[key] = job
            self._waiting.move_to_end(key)
            while len(self._waiting) > self._limit:
                self._waiting.popitem(last=False)
            if not self._started:
                self._started = True
                for number in range(self._threads):
                    threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()
            self._change.notify()

    def state(self, key: str) -> str:
        """`waiting`, `running` or, for what was not asked for, is done or failed, empty."""
        with self._change:
            return "running" if key in self._busy else "waiting" if key in self._waiting else ""

    def failure(self, key: str) -> str | None:
        """Why a job failed, as a sentence; None when it did not."""
        with self._change:
            when, sentence = self._failures.get(key, (-math.inf, ""))
            return sentence if sentence and time.monotonic() - when <= self._remember_s else None

    def forgive(self, key: str) -> None:
        """Forget that a job failed, so that it may be tried again."""
        with self._change:
            self._failures.pop(key, None)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; False when it takes longer."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def _work(self) -> None:
        if hasattr(os, "setpriority"):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting)
                key, job = self._waiting.popitem()
                self._busy.add(key)
            failure = _sentence_of(job)
            with self._change:
                self._busy.discard(key)
                if failure is not None:
                    self._failures[key] = time.monotonic(), failure
                    while len(self._failures) > _FAILURES:
                        self._failures.popitem(last=False)
                self._change.notify_all()
            self._done()


def _sentence_of(job: Callable[[], None]) -> str | None:
    """Run a job; why it failed, or None."""
    try:
        job()
    except _EXPECTED as e:
        return str(e.detail) if isinstance(e, HTTPException) else str(e)
    except Exception:  # the thread goes on with what others asked for; who asked for this is told
        logger.exception("Work in the background failed")
        return "expected to be able to do this, but it failed; the server's log says why"
    return None
