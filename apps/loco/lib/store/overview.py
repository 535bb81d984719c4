"""What the page asks of the journal: counts, days, pages of rows, and marks that tell whether anything changed."""

from __future__ import annotations

from typing import Any

from lib.store.database import Database
from lib.store.records import Run, Submission, run_from, submission_from

_FIRST_ACTIVE = "SELECT MIN(id) FROM submissions WHERE removed IS NULL GROUP BY image"
_LATEST_ACTIVE = "SELECT MAX(id) FROM submissions GROUP BY image"


class Overview(Database):
    """Reads over all parts of the journal; nothing is written here."""

    def labels_per_day(self, since: float) -> list[tuple[str, int, int]]:
        """(ISO day in local time, submissions, different images) of each day with a label from unix second `since` on."""
        rows = self.read(
            "SELECT date(ts, 'unixepoch', 'localtime') AS day, COUNT(*), COUNT(DISTINCT image) FROM submissions "
            "WHERE ts >= ? GROUP BY day ORDER BY day",
            (since,),
        )
        return [(row[0], int(row[1]), int(row[2])) for row in rows]

    def label_seconds(self, limit: int = 50) -> list[float]:
        """Seconds from the moment an image was served to its first label by the same annotator, of the latest such labels."""
        rows = self.read(
            "SELECT s.ts - MAX(p.ts) FROM submissions s JOIN picks p ON p.image = s.image AND p.client = s.client "
            f"AND p.ts <= s.ts WHERE s.id IN ({_FIRST_ACTIVE}) GROUP BY s.id ORDER BY s.id DESC LIMIT ?",
            (limit,),
        )
        return [float(row[0]) for row in rows]

    def validation_labels(self) -> int:
        """Labelled images of validation patients."""
        rows = self.read(
            f"SELECT COUNT(*) FROM submissions JOIN splits USING (patient) WHERE removed IS NULL AND side = 'validation' "
            f"AND id IN ({_LATEST_ACTIVE})"
        )
        return int(rows[0][0])

    def submission_page(
        self, offset: int, limit: int, search: str = ""
    ) -> tuple[int, list[tuple[Submission, int, bool]]]:
        """How many submissions there are, and some of them, newest first.

        Args:
            offset: first one.
            limit: at most so many.
            search: a part of the image's id or the client's name, in any case; empty for all.

        Returns:
            The count, and for each submission how many labels its image has, and whether it is the one that counts.
        """
        where = "instr(lower(image || ' ' || client), lower(?)) > 0"
        count = int(self.read(f"SELECT COUNT(*) FROM submissions WHERE {where}", (search,))[0][0])
        rows = self.read(
            f"SELECT * FROM submissions WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?", (search, limit, offset)
        )
        return count, [(s, *self._versions_of(s)) for s in map(submission_from, rows)]

    def run(self, id: int) -> Run | None:
        """One run by its number."""
        rows = self.read("SELECT * FROM runs WHERE id = ?", (id,))
        return run_from(rows[0]) if rows else None

    def label_counts(self) -> dict[int, int]:
        """Labels that each run was given to train on and to measure with, by run; without those that never began."""
        rows = self.read(
            "SELECT id, json_extract(progress, '$.labelled') + json_extract(progress, '$.validation') AS n FROM runs "
            "WHERE n IS NOT NULL"
        )
        return {int(row["id"]): int(row["n"]) for row in rows}

    def lease_mark(self, now: float) -> str:
        """Changes when a lease begins, is renewed, ends or expires."""
        return _text(self.read("SELECT COUNT(*), MAX(since), TOTAL(expires) FROM leases WHERE expires > ?", (now,))[0])

    def choice_mark(self) -> str:
        """Changes with each pick, skip and pin."""
        return _text(
            self.read(
                "SELECT (SELECT MAX(id) FROM picks), (SELECT MAX(id) FROM skips), "
                "(SELECT COUNT(*) || ' ' || TOTAL(ts) FROM pins)"
            )[0]
        )

    def training_mark(self) -> str:
        """Changes whenever a run starts, gets on or ends."""
        return _text(self.read("SELECT MAX(id), MAX(updated), COUNT(ended) FROM runs")[0])

    def version_mark(self, model: str) -> str:
        """Changes when a version comes or another one goes live."""
        return _text(
            self.read("SELECT COUNT(*), MAX(ts), MAX(version * live) FROM versions WHERE model = ?", (model,))[0]
        )

    def _versions_of(self, submission: Submission) -> tuple[int, bool]:
        rows = self.read("SELECT COUNT(*), MAX(id) FROM submissions WHERE image = ?", (submission.image,))
        return int(rows[0][0]), submission.removed is None and int(rows[0][1]) == submission.id


def _text(row: Any) -> str:
    return " ".join(str(value) for value in row)
