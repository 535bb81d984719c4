"""Labels of images that somebody else had labelled meanwhile: kept as another reading, beside the label that counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from lib.store.database import Database
from lib.store.records import Reading, to_json

_OVERTAKEN = """SELECT 1 FROM submissions s
    WHERE s.id = (SELECT MAX(id) FROM submissions WHERE image = :image) AND s.removed IS NULL AND s.client <> :client
    AND EXISTS (SELECT 1 FROM picks theirs WHERE theirs.image = :image AND theirs.client = s.client AND theirs.ts <= s.ts
        AND theirs.id > (SELECT MAX(id) FROM picks WHERE image = :image AND client = :client))
    AND NOT EXISTS (SELECT 1 FROM readings WHERE image = :image AND client = :client AND ts >= s.ts)"""


class Readings(Database):
    """The part of the journal about second readings."""

    def is_overtaken(self, image: str, client: str | None) -> bool:
        """Whether an image that was served to `client` was served to another annotator after that, who has labelled it.

        The hold had run out, which `client` does not know yet. Once they have handed in a reading they were told: what they
        submit after that is a correction like any other, and so is a label in place of one that nobody was asked for, as one
        stored in the PACS. Of an anonymous annotator nothing is known.
        """
        values = {"image": image, "client": client}
        return bool(client and self.read(_OVERTAKEN, values))

    def add_reading(
        self,
        image: str,
        client: str,
        sha256: str,
        labels: Mapping[str, int],
        model_version: int | None,
        now: float,
        kept: str,
    ) -> int:
        """Keep a second reading and end the annotator's lease; arguments as `add_submission`. Returns its number."""
        with self.write() as connection:
            cursor = connection.execute(
                "INSERT INTO readings (image, client, sha256, labels, model_version, ts, kept) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (image, client, sha256, to_json(labels), model_version, now, kept),
            )
            connection.execute("DELETE FROM leases WHERE image = ? AND client = ?", (image, client))
            return int(cursor.lastrowid or 0)

    def readings(self, image: str) -> list[Reading]:
        """Second readings of an image, newest first."""
        rows = self.read("SELECT * FROM readings WHERE image = ? ORDER BY id DESC", (image,))
        return [_reading(row) for row in rows]

    def reading(self, id: int) -> Reading | None:
        """One by its number, None for a number that was not given."""
        known = self.read("SELECT COALESCE(MAX(id), 0) FROM readings")[0][0]
        rows = self.read("SELECT * FROM readings WHERE id = ?", (id,)) if 0 < id <= known else []
        return _reading(rows[0]) if rows else None


def _reading(row: sqlite3.Row) -> Reading:
    fields = dict(row)
    return Reading(labels=json.loads(fields.pop("labels")), **fields)
