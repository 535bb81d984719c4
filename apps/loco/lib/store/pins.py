"""Images that somebody wants labelled before all others."""

from __future__ import annotations

import sqlite3

from lib.store.database import Database
from lib.store.records import Pinned


class Pins(Database):
    """The part of the journal about pinned images. A label ends a pin, and so does a skip that counts for all."""

    def pin(self, image: str, client: str | None, now: float) -> None:
        """Serve an image before all others from now on; one that is pinned already stays as it is."""
        with self.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO pins (image, client, ts) VALUES (?, ?, ?)", (image, client or "", now)
            )

    def unpin(self, image: str) -> bool:
        """Let an image wait for its turn again. Returns whether it was pinned."""
        with self.write() as connection:
            return bool(connection.execute("DELETE FROM pins WHERE image = ?", (image,)).rowcount)

    def pins(self) -> list[Pinned]:
        """All pinned images, those pinned first first."""
        return [Pinned(**dict(row)) for row in self.read("SELECT image, client, ts FROM pins ORDER BY ts, image")]


def pins_for(connection: sqlite3.Connection, client: str) -> list[str]:
    """Pinned images that an annotator has not passed by since they were pinned, those pinned first first."""
    rows = connection.execute(
        "SELECT image FROM pins WHERE NOT EXISTS (SELECT 1 FROM skips WHERE skips.image = pins.image "
        "AND skips.ts >= pins.ts AND (skips.for_all = 1 OR (skips.client = ? AND ? <> ''))) ORDER BY ts, image",
        (client, client),
    )
    return [row["image"] for row in rows]
