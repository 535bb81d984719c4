"""Scores of the unlabelled images, who holds which image, what was skipped and what was served."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from lib.store.database import Database
from lib.store.records import Pick, Score, pick_from, score_from
from lib.store.schema import JournalError

_PUT_SCORE = """INSERT INTO scores (model, version, image, stratum, terms, embedding, ts) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (model, version, image, stratum)
    DO UPDATE SET terms = excluded.terms, embedding = excluded.embedding, ts = excluded.ts"""
_TAKE_LEASE = """INSERT INTO leases (image, client, since, expires) VALUES (?, ?, ?, ?)
    ON CONFLICT (image)
    DO UPDATE SET client = excluded.client, since = excluded.since, expires = excluded.expires"""


_encode_terms = json.JSONEncoder(check_circular=False, allow_nan=False, default=float).encode


class Picking(Database):
    """The part of the journal about the next image."""

    def put_scores(self, model: str, version: int, rows: Iterable[Score]) -> None:
        """Store scores by one model version in one transaction, replacing those of the same image and stratum.

        Version 0 is the cold start, where there is no model.
        """
        values = [
            (model, version, row.image, row.stratum, _terms_json(row), row.embedding, row.ts) for row in rows
        ]  # before the transaction: `rows` may be a slow generator
        with self.write() as connection:
            connection.executemany(_PUT_SCORE, values)

    def scores(self, model: str, version: int) -> list[Score]:
        """All scores by one model version, by image and stratum."""
        rows = self.read(
            "SELECT image, stratum, terms, embedding, ts FROM scores WHERE model = ? AND version = ? "
            "ORDER BY image, stratum",
            (model, version),
        )
        return [score_from(row) for row in rows]

    def scored_images(self, model: str, version: int) -> set[str]:
        """Images that have a score by this model version."""
        rows = self.read("SELECT DISTINCT image FROM scores WHERE model = ? AND version = ?", (model, version))
        return {row["image"] for row in rows}

    def drop_scores_before(self, model: str, version: int) -> int:
        """Delete the scores by versions older than `version`. Returns how many."""
        with self.write() as connection:
            return connection.execute("DELETE FROM scores WHERE model = ? AND version < ?", (model, version)).rowcount

    def lease(self, image_order: Sequence[str], client: str | None, ttl_s: float, now: float) -> str | None:
        """Take the first image of `image_order` that nobody holds, in one transaction.

        An annotator who asks again gets, renewed, the image they already hold if it is in `image_order`. Anonymous
        requests (`client` None or "") hold nothing together: each gets an image of its own.

        Args:
            image_order: Image ids, best first.
            client: Annotator.
            ttl_s: Seconds until the lease expires by itself.
            now: Unix seconds.

        Returns:
            The image, or None if all are held by others.
        """
        client = client or ""
        with self.write() as connection:
            held = {
                row["image"]: row["client"]
                for row in connection.execute("SELECT image, client FROM leases WHERE expires > ?", (now,))
            }
            own = (image for image in image_order if client and held.get(image) == client)
            free = (image for image in image_order if image not in held)
            image = next(own, None) or next(free, None)
            if image in held:
                connection.execute("UPDATE leases SET expires = ? WHERE image = ?", (now + ttl_s, image))
            elif image is not None:
                connection.execute(_TAKE_LEASE, (image, client, now, now + ttl_s))
        return image

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

    def release(self, image: str) -> None:
        """End the lease on an image, whoever holds it: its label was submitted."""
        with self.write() as connection:
            connection.execute("DELETE FROM leases WHERE image = ?", (image,))

    def open_leases(self, now: float) -> dict[str, str]:
        """Images held at unix second `now` and by whom ("" is anonymous), longest held first."""
        rows = self.read("SELECT image, client FROM leases WHERE expires > ? ORDER BY since, image", (now,))
        return {row["image"]: row["client"] for row in rows}

    def add_skip(self, image: str, client: str | None, reason: str, now: float) -> None:
        """Remember that an annotator passed an image by, and end their lease on it."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO skips (image, client, reason, ts) VALUES (?, ?, ?, ?)", (image, client or "", reason, now)
            )
            connection.execute("DELETE FROM leases WHERE image = ? AND client = ?", (image, client or ""))

    def skips(self) -> dict[str, int]:
        """How often each image was skipped, for those that were."""
        return {row["image"]: row["n"] for row in self.read("SELECT image, COUNT(*) AS n FROM skips GROUP BY image")}

    def add_pick(self, image: str, client: str | None, model: str, version: int, reason: str, now: float) -> None:
        """Log which image was served to whom and why."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO picks (image, client, model, version, reason, ts) VALUES (?, ?, ?, ?, ?, ?)",
                (image, client or "", model, version, reason, now),
            )

    def picks(self, limit: int = 50) -> list[Pick]:
        """The latest picks, newest first."""
        return [pick_from(row) for row in self.read("SELECT * FROM picks ORDER BY id DESC LIMIT ?", (limit,))]


def _terms_json(score: Score) -> str:
    """The terms as JSON; a term that is not a number would poison the ranking of all images."""
    try:
        return _encode_terms(score.terms)
    except ValueError as error:
        raise JournalError(
            f"expected the terms of {score.image} to be finite numbers, but got {score.terms}; leave it unscored"
        ) from error
