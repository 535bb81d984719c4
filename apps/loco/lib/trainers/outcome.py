"""How a training ends, in the words of the journal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lib.store.journal import Journal
from lib.trainers.step import ServerGoneError


def how_it_ended(error: Exception) -> str:
    """`interrupted`, to be gone on with, or `failed`; the error of a process of its own arrives as text."""
    return "interrupted" if ServerGoneError.__name__ in f"{type(error).__name__} {error}" else "failed"


@contextmanager
def recorded(journal: Journal, name: str, reason: str) -> Iterator[int]:
    """The training of the block as a run of the model `name` in the journal, which keeps how it failed.

    Returns:
        Number of the run. Whoever publishes its model says that it is done.
    """
    run_id = journal.start_run(name, reason, journal.last_submission_id(), os.getpid(), time.time())
    try:
        yield run_id
    except Exception as e:
        detail = str(e) if isinstance(e, ServerGoneError) else f"{type(e).__name__}: {e}"[:500]
        journal.finish_run(run_id, how_it_ended(e), detail, time.time())
        raise
