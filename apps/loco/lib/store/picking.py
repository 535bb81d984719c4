"""Who holds which image, what was skipped and why, and what was served."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from lib.store.database import Database
from lib.store.pins import pins_for
from lib.store.records import Lease, Pick, Skip, pick_from, to_json

_TAKE_LEASE = """INSERT INTO leases (image, client, since, expires) VALUES (?, ?, ?, ?)
    ON CONFLICT (image)
    DO UPDATE SET client = excluded.client, since = excluded.since, expires = excluded.expires"""
_ADD_PICK = """INSERT INTO picks (image, client, model, version, reason, ts, strategy, seed, details)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
UNSURE, UNSURE_LIMIT = "unsure", 2
"""An image that this many annotators could not decide on is passed by for all; one that is not for now is not."""
_OWN_LEASE = """SELECT image FROM leases WHERE client = ? AND expires > ? AND NOT EXISTS
    (SELECT 1 FROM submissions s WHERE s.image = leases.image AND s.removed IS NULL) ORDER BY since, image"""


class Picking(Database):
    """The part of the journal about the next image."""

    def lease(
        self,
        image_order: Sequence[str],
        client: str | None,
        ttl_s: float,
        now: float,
        pick: Callable[[str], Pick] | None = None,
        pinned: Callable[[str], bool] | None = None,
        skips_known: int | None = None,
        keeps: Callable[[str], bool] | None = None,
    ) -> str | None:
        """Take the first image of `image_order` that nobody holds or has labelled, and log the pick, in one transaction.

        Others go on while an order is made: one of them may take an image and pass it by, which ends the lease. Such an
        image is not taken. Pinned images come before those of `image_order`, unless this annotator passed them by after
        they were pinned. And the same annotator may have asked twice at once: with `keeps`, whoever holds an image by
        then gets that one.

        Args:
            image_order: Image ids, best first.
            client: Annotator; None or "" is anonymous, and each anonymous request gets an image of its own.
            ttl_s: Seconds until the lease expires by itself.
            now: Unix seconds. A lease that would last longer than `ttl_s` from now, because the clock was set back, is cut.
            pick: What to log for the image that is taken; its id is ignored.
            pinned: Whether a pinned image may be served; None leaves the pins alone.
            skips_known: `last_skip_id` before `image_order` was made; None: the order knows all skips.
            keeps: Whether an image that this annotator holds may be served again; None takes a further one.

        Returns:
            The image, or None if all are held by others or labelled.
        """
        client = client or ""
        with self.write() as connection:
            connection.execute("UPDATE leases SET expires = ? WHERE expires > ?", (now + ttl_s, now + ttl_s))
            if client and keeps is not None:
                held = (row["image"] for row in connection.execute(_OWN_LEASE, (client, now)).fetchall())
                own = next((image for image in held if keeps(image)), None)
                if own is not None:
                    return own
            passed_by = _skipped_since(connection, skips_known) if skips_known is not None else ()
            first = [i for i in pins_for(connection, client) if pinned(i)] if pinned is not None else []
            order = (*first, *(i for i in image_order if i not in passed_by))
            image = next((i for i in order if _is_free(connection, i, client, now)), None)
            if image is not None:
                connection.execute(_TAKE_LEASE, (image, client, now, now + ttl_s))
                if pick is not None:
                    _log(connection, pick(image))
        return image

    def own_lease(self, client: str | None, now: float) -> str | None:
        """The image that an annotator holds and has not labelled, the first taken of several; None for anonymous ones."""
        if not client:
            return None
        rows = self.read(f"{_OWN_LEASE} LIMIT 1", (client, now))
        return rows[0]["image"] if rows else None

    def renew(self, image: str, client: str | None, ttl_s: float, now: float) -> bool:
        """Extend a lease to `ttl_s` seconds from `now`, also an expired one that nobody took since.

        Returns:
            False if `client` does not hold the image (any more).
        """
        with self.write() as connection:
            changed = connection.execute(
                "UPDATE leases SET expires = ? WHERE image = ? AND client = ?", (now + ttl_s, image, client or "")
            ).rowcount
        return bool(changed)

    def release(self, image: str, client: str | None = None) -> bool:
        """End the lease on an image: whoever holds it (its label was submitted), or that of `client` alone.

        Returns:
            Whether there was one.
        """
        where, values = ("", (image,)) if client is None else (" AND client = ?", (image, client))
        with self.write() as connection:
            return bool(connection.execute(f"DELETE FROM leases WHERE image = ?{where}", values).rowcount)

    def leases(self, now: float) -> list[Lease]:
        """The leases that are open at unix second `now`, longest held first."""
        rows = self.read("SELECT * FROM leases WHERE expires > ? ORDER BY since, image", (now,))
        return [Lease(**dict(row)) for row in rows]

    def open_leases(self, now: float) -> dict[str, str]:
        """Images held at unix second `now` and by whom ("" is anonymous), longest held first."""
        return {lease.image: lease.client for lease in self.leases(now)}

    def add_skip(self, image: str, client: str | None, reason: str, now: float, for_all: bool = False) -> None:
        """Remember that an annotator passed an image by, for themselves or for all, and end their lease on it."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO skips (image, client, reason, ts, for_all) VALUES (?, ?, ?, ?, ?)",
                (image, client or "", reason, now, int(for_all)),
            )
            connection.execute("DELETE FROM leases WHERE image = ? AND client = ?", (image, client or ""))
            if for_all:
                connection.execute("DELETE FROM pins WHERE image = ?", (image,))

    def last_skips(self) -> list[Skip]:
        """The latest skip of each image that was skipped, newest first."""
        rows = self.read(
            "SELECT image, client, reason, ts FROM skips WHERE id IN (SELECT MAX(id) FROM skips GROUP BY image) "
            "ORDER BY id DESC"
        )
        return [Skip(**dict(row)) for row in rows]

    def skips(self) -> dict[str, int]:
        """How often each image was skipped, for those that were."""
        return {row["image"]: row["n"] for row in self.read("SELECT image, COUNT(*) AS n FROM skips GROUP BY image")}

    def skipped_for(self, client: str | None) -> list[str]:
        """Images that are not to be offered to an annotator before all others, the longest ago skipped first.

        Of those without a name nobody knows whether they are the same person: what one of them passed by is offered last
        to all of them, and each of their doubts counts as another annotator's.
        """
        rows = self.read(
            "SELECT image FROM skips GROUP BY image "
            "HAVING MAX(for_all) = 1 OR MAX(client = ?) = 1 "
            "OR COUNT(DISTINCT CASE WHEN reason = ? THEN CASE client WHEN '' THEN ' ' || id ELSE client END END) >= ? "
            "ORDER BY MAX(ts), image",
            (client or "", UNSURE, UNSURE_LIMIT),
        )
        return [row["image"] for row in rows]

    def last_skip_id(self) -> int:
        """Highest id of a skip; 0 before the first."""
        return int(self.read("SELECT COALESCE(MAX(id), 0) FROM skips")[0][0])

    def add_pick(self, pick: Pick) -> None:
        """Log which image was served to whom and why; the id is given here."""
        with self.write() as connection:
            _log(connection, pick)

    def last_pick_id(self) -> int:
        """Highest id of a pick; 0 before the first."""
        return int(self.read("SELECT COALESCE(MAX(id), 0) FROM picks")[0][0])

    def last_pick(self, image: str) -> Pick | None:
        """The latest pick of an image."""
        rows = self.read("SELECT * FROM picks WHERE image = ? ORDER BY id DESC LIMIT 1", (image,))
        return pick_from(rows[0]) if rows else None

    def picks(self, limit: int = 50) -> list[Pick]:
        """The latest picks, newest first."""
        return [pick_from(row) for row in self.read("SELECT * FROM picks ORDER BY id DESC LIMIT ?", (limit,))]


def _skipped_since(connection: sqlite3.Connection, last: int) -> set[str]:
    """Images that somebody passed by after skip number `last`."""
    return {row["image"] for row in connection.execute("SELECT image FROM skips WHERE id > ?", (last,))}


def _is_free(connection: sqlite3.Connection, image: str, client: str, now: float) -> bool:
    """Nobody else holds the image, and it has no label. One's own is free, unless one is anonymous."""
    held = connection.execute("SELECT client FROM leases WHERE image = ? AND expires > ?", (image, now)).fetchone()
    if held is not None and (not client or held["client"] != client):
        return False
    labelled = "SELECT 1 FROM submissions WHERE image = ? AND removed IS NULL LIMIT 1"
    return connection.execute(labelled, (image,)).fetchone() is None


def _log(connection: sqlite3.Connection, pick: Pick) -> None:
    connection.execute(
        _ADD_PICK,
        (
            *(pick.image, pick.client, pick.model, pick.version, pick.reason, pick.ts, pick.strategy, pick.seed),
            to_json(pick.details),
        ),
    )
