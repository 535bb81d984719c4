"""Whether anything changed, from marks of the journal: a few indexed reads, at most once a second whoever asks."""

from __future__ import annotations

import hashlib
import re
import threading
import time

from lib.server.page.desk import Desk
from lib.server.page.drawings import Drawings
from lib.server.page.learning import is_starting
from lib.server.page.models import Changes
from lib.server.page.versions import Versions

_FRESH_S = 0.9
_SECONDS = re.compile(r"\d+ s of quiet")


class Watch:
    """Marks of the panels."""

    def __init__(self, desk: Desk, drawings: Drawings, versions: Versions) -> None:
        self._desk, self._drawings, self._versions = desk, drawings, versions
        self._lock = threading.Lock()
        self._known: tuple[float, Changes] | None = None

    def changes(self) -> Changes:
        """The marks as they were less than a second ago."""
        with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known[0] > _FRESH_S:
                self._known = now, self._look()
            return self._known[1]

    def _look(self) -> Changes:
        desk, journal, now = self._desk, self._desk.journal, time.time()
        view = desk.view()
        labels, leases, choices = journal.submission_mark(), journal.lease_mark(now), journal.choice_mark()
        runs, versions = journal.training_mark(), journal.version_mark(desk.model)
        studies = (len(view.pool), int(view.free.sum()), int(view.labelled.sum()), view.version)
        waiting = _SECONDS.sub("quiet", desk.retraining.waiting_for)
        day = time.strftime("%Y-%m-%d", time.localtime(now))
        last = journal.last_run(desk.model)
        return Changes(
            summary=_mark(labels, leases, choices, versions, studies, waiting, day, last and (last.id, last.status)),
            learning=_mark(runs, versions, is_starting(last)),
            queue=_mark(labels, leases, choices, versions, studies, journal.score_mark(), self._drawings.count),
            submissions=_mark(labels, versions, journal.comparison_count(), self._drawings.count),
            models=_mark(versions, self._versions.mark()),
        )


def _mark(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
