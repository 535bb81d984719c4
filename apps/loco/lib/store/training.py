"""Training runs, and the model versions that came out of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.store.database import Database
from lib.store.records import ENDINGS, Run, Status, Version, run_from, to_json, version_from
from lib.store.schema import JournalError


class Training(Database):
    """The part of the journal about runs and versions."""

    def start_run(self, model: str, reason: str, last_submission: int, pid: int, now: float) -> int:
        """Open a run that uses the submissions up to `last_submission`; `now` in unix seconds. Returns its id."""
        with self.write() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (model, reason, last_submission, pid, started, updated, status, detail, progress) "
                "VALUES (?, ?, ?, ?, ?, ?, 'running', '', '{}')",
                (model, reason, last_submission, pid, now, now),
            )
            return int(cursor.lastrowid or 0)

    def update_run(self, run_id: int, progress: Mapping[str, Any], now: float) -> bool:
        """Replace the progress of a run. False, and nothing written, if it has ended, e.g. was stopped."""
        with self.write() as connection:
            changed = connection.execute(
                "UPDATE runs SET progress = ?, updated = ? WHERE id = ? AND status = 'running'",
                (to_json(progress), now, run_id),
            ).rowcount
        if not changed:
            self._refuse_unknown_run(run_id)
        return bool(changed)

    def go_on(self, run_id: int, stopped: int) -> None:
        """Note that a run goes on with a stopped one: labels that came since have hardly been learned when it ends."""
        with self.write() as connection:
            connection.execute(
                "UPDATE runs SET last_submission = MIN(last_submission, "
                "COALESCE((SELECT last_submission FROM runs WHERE id = ?), last_submission)) WHERE id = ?",
                (stopped, run_id),
            )

    def finish_run(self, run_id: int, status: Status, detail: str, now: float) -> bool:
        """End a run. The first ending stays: False, and nothing written, if it had ended before."""
        if status not in ENDINGS:
            raise JournalError(f"expected status to be one of {', '.join(ENDINGS)}, but got '{status}'; choose one")
        with self.write() as connection:
            changed = connection.execute(
                "UPDATE runs SET status = ?, detail = ?, ended = ?, updated = ? WHERE id = ? AND status = 'running'",
                (status, detail, now, now, run_id),
            ).rowcount
        if not changed:
            self._refuse_unknown_run(run_id)
        return bool(changed)

    def runs(self, limit: int = 50) -> list[Run]:
        """The latest runs, newest first."""
        return [run_from(row) for row in self.read("SELECT * FROM runs ORDER BY id DESC LIMIT ?", (limit,))]

    def last_run(self, model: str | None = None) -> Run | None:
        """The newest run, of `model` if given, running or ended; None before the first."""
        rows = self.read(
            "SELECT * FROM runs WHERE ? IS NULL OR model = ? ORDER BY id DESC LIMIT 1",
            (model, model),
        )
        return run_from(rows[0]) if rows else None

    def running_runs(self) -> list[Run]:
        """Runs without an end, oldest first; after a crash these are the ones to look at."""
        return [run_from(row) for row in self.read("SELECT * FROM runs WHERE status = 'running' ORDER BY id")]

    def _refuse_unknown_run(self, run_id: int) -> None:
        if not self.read("SELECT 1 FROM runs WHERE id = ?", (run_id,)):
            raise JournalError(f"expected run_id to be a run of {self.path}, but got {run_id}; take it from start_run")

    def add_version(
        self,
        model: str,
        path: str,
        sha256: str,
        run_id: int | None,
        dice: float | None,
        cases: int,
        details: Mapping[str, Any],
        live: bool,
        now: float,
        at_least: int = 1,
    ) -> int:
        """Add a trained model and, if `live`, make it the live one in the same transaction.

        Args:
            model: Model name.
            path: Its file.
            sha256: Of the file.
            run_id: Run that made it, None for an imported one.
            dice: Mean Dice in [0, 1] on the validation cases, None without any.
            cases: Number of validation cases.
            details: Anything to show beside it.
            live: Whether it serves from now on.
            now: Unix seconds.
            at_least: Lowest number to give, for a model that carries one already.

        Returns:
            Its version number: 1, 2, 3 … per model.
        """
        with self.write() as connection:
            row = connection.execute("SELECT COALESCE(MAX(version), 0) FROM versions WHERE model = ?", (model,))
            version = max(int(row.fetchone()[0]) + 1, at_least)
            if live:
                connection.execute("UPDATE versions SET live = 0 WHERE model = ? AND live = 1", (model,))
            connection.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (model, version, path, sha256, run_id, dice, cases, to_json(details), int(live), now),
            )
        return version

    def set_live(self, model: str, version: int) -> None:
        """Make `version` the one live version of `model`, e.g. to roll back."""
        with self.write() as connection:
            known = [row[0] for row in connection.execute("SELECT version FROM versions WHERE model = ?", (model,))]
            if version not in known:
                names = ", ".join(map(str, sorted(known))) or "none yet"
                raise JournalError(
                    f"expected version to be one of {model}'s ({names}), but got {version}; choose one of them"
                )
            connection.execute("UPDATE versions SET live = 0 WHERE model = ? AND live = 1", (model,))
            connection.execute("UPDATE versions SET live = 1 WHERE model = ? AND version = ?", (model, version))

    def live_version(self, model: str) -> Version | None:
        """The version that serves; None before the first was made live."""
        rows = self.read("SELECT * FROM versions WHERE model = ? AND live = 1", (model,))
        return version_from(rows[0]) if rows else None

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, oldest first."""
        rows = self.read("SELECT * FROM versions WHERE model = ? ORDER BY version", (model,))
        return [version_from(row) for row in rows]
