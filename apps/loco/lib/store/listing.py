"""What must be remembered of studies and labels beside their files: ids once given, notes of viewers, DICOM SEGs seen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lib.store.database import Database
from lib.store.records import SegRow, SegStatus, to_json


class Listing(Database):
    """The part of the journal about which study is which, shared by server, training and scoring processes."""

    def case_ids(self) -> dict[str, str]:
        """Id of every file that ever was a study, by its path in the studies."""
        return {row["path"]: row["id"] for row in self.read("SELECT path, id FROM case_ids")}

    def add_case_ids(self, ids: Iterable[tuple[str, str]]) -> None:
        """Remember (path, id) for ever; a path or id that is known already keeps what it has."""
        with self.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO case_ids (path, id) VALUES (?, ?)", ids)

    def note(self, kind: str, item: str) -> dict[str, Any]:
        """What was noted of an image (`kind` "image") or a label ("label/<tag>"); empty when nothing was."""
        rows = self.read("SELECT note FROM notes WHERE kind = ? AND item = ?", (kind, item))
        return json.loads(rows[0]["note"]) if rows else {}

    def notes(self) -> dict[tuple[str, str], dict[str, Any]]:
        """All notes by kind and item."""
        rows = self.read("SELECT kind, item, note FROM notes")
        return {(row["kind"], row["item"]): json.loads(row["note"]) for row in rows}

    def put_note(self, kind: str, item: str, note: dict[str, Any], now: float) -> None:
        """Replace what is noted of an image or a label."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO notes (kind, item, note, ts) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (kind, item) DO UPDATE SET note = excluded.note, ts = excluded.ts",
                (kind, item, to_json(note), now),
            )

    def drop_note(self, kind: str, item: str) -> None:
        """Forget what was noted."""
        with self.write() as connection:
            connection.execute("DELETE FROM notes WHERE kind = ? AND item = ?", (kind, item))

    def segs(self, *statuses: SegStatus) -> list[SegRow]:
        """DICOM SEGs seen, in the order in which they were first seen; all, or those of some statuses."""
        where = f"WHERE status IN ({', '.join('?' * len(statuses))})" if statuses else ""
        return [SegRow(**dict(row)) for row in self.read(f"SELECT * FROM segs {where} ORDER BY rowid", statuses)]

    def put_seg(self, row: SegRow) -> None:
        """Remember a SEG by its SOPInstanceUID, or that its status changed."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO segs (sop, series, image, status, detail, ts) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (sop) "
                "DO UPDATE SET series = excluded.series, status = excluded.status, detail = excluded.detail, ts = excluded.ts",
                (row.sop, row.series, row.image, row.status, row.detail, row.ts),
            )

    def drop_seg(self, sop: str) -> None:
        """Forget a SEG."""
        with self.write() as connection:
            connection.execute("DELETE FROM segs WHERE sop = ?", (sop,))
