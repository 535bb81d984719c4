"""The journal: what happened, who holds what. One SQLite file, shared by server, training and scoring processes.

It outlives a crash of any of them: every write is one transaction that is on disk when the method returns. Times are
passed in as `now`, unix seconds, so that policies and tests are deterministic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lib.store.comparisons import Comparisons
from lib.store.listing import Listing
from lib.store.overview import Overview
from lib.store.picking import Picking
from lib.store.pins import Pins
from lib.store.readings import Readings
from lib.store.records import to_json
from lib.store.schema import JournalError
from lib.store.scores import Scores
from lib.store.submissions import Submissions
from lib.store.training import Training

__all__ = ["Journal", "JournalError"]


class Journal(Submissions, Readings, Training, Scores, Picking, Pins, Comparisons, Overview, Listing):
    """Submissions, second readings, splits, runs, versions, scores, leases, skips, pins, picks and small settings in one file.

    Share one object among threads, and one path among processes. `Journal(path)` creates the file, opens it or refuses
    it with a `JournalError`.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """The value stored under `key`, or `default`."""
        rows = self.read("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(rows[0]["value"]) if rows else default

    def keep_options(self, model: str, options: Mapping[str, Any]) -> None:
        """Remember with which options a run of `model` was started, for one that goes on with it."""
        self.set(f"options/{model}", dict(options))

    def options_of_last_run(self, model: str) -> dict[str, Any]:
        """What `keep_options` was told last; empty before."""
        return self.get(f"options/{model}", {})

    def set(self, key: str, value: Any) -> None:
        """Store a value that JSON can hold under `key`, replacing what was there."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, to_json(value)),
            )
