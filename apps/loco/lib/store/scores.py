"""Scores of the images by model version, many images in one row: a hundred thousand are stored in a second.

A block names its terms itself. An image that is scored again is in a later block, which counts.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from itertools import groupby

from lib.store.database import Database
from lib.store.records import Score, ScoreBlock
from lib.store.schema import JournalError

_BLOCK = 1000
_PUT = "INSERT INTO scores (model, version, images, names, terms, embeddings, ts) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Scores(Database):
    """The part of the journal about what models say of the images. Version 0 is the look before there is a model."""

    def put_scores(self, model: str, version: int, rows: Iterable[Score], now: float) -> None:
        """Store scores by one model version in one transaction; those of the same images no longer count."""
        ordered = sorted(rows, key=lambda row: (len(row.embedding or b""), row.image))
        alike = (list(group) for _, group in groupby(ordered, key=lambda row: len(row.embedding or b"")))
        blocks = [_block(group[i : i + _BLOCK]) for group in alike for i in range(0, len(group), _BLOCK)]
        with self.write() as connection:
            connection.executemany(_PUT, ((model, version, *block, now) for block in blocks))

    def score_blocks(self, model: str, version: int) -> list[ScoreBlock]:
        """All scores by one model version as stored, oldest first; of an image in several blocks the last counts."""
        rows = self.read(
            "SELECT images, names, terms, embeddings FROM scores WHERE model = ? AND version = ? ORDER BY id",
            (model, version),
        )
        return [
            ScoreBlock(tuple(json.loads(images)), tuple(json.loads(names)), terms, embeddings)
            for images, names, terms, embeddings in rows
        ]

    def scores(self, model: str, version: int) -> list[Score]:
        """All scores by one model version, by image."""
        found = {score.image: score for block in self.score_blocks(model, version) for score in _unpacked(block)}
        return [found[image] for image in sorted(found)]

    def scored_images(self, model: str, version: int, term: str = "") -> set[str]:
        """Images that have a score by this model version, and `term` in it if one is given."""
        rows = self.read("SELECT images, names FROM scores WHERE model = ? AND version = ?", (model, version))
        return {
            image for row in rows if not term or term in json.loads(row["names"]) for image in json.loads(row["images"])
        }

    def score_mark(self) -> int:
        """A number that rises whenever scores are stored."""
        rows = self.read("SELECT seq FROM sqlite_sequence WHERE name = 'scores'")
        return int(rows[0]["seq"]) if rows else 0

    def drop_scores_before(self, model: str, version: int) -> None:
        """Delete the scores by versions older than `version`; the look before any model stays, for as long as none is usable."""
        with self.write() as connection:
            connection.execute("DELETE FROM scores WHERE model = ? AND version BETWEEN 1 AND ?", (model, version - 1))


def _block(rows: Sequence[Score]) -> tuple[str, str, bytes, bytes]:
    """Images and names as JSON, terms and embeddings as bytes."""
    names = sorted({name for keys in {tuple(row.terms) for row in rows} for name in keys})
    values: list[float] = []
    for row in rows:
        if not all(map(math.isfinite, row.terms.values())):  # it would poison the ranking of all images
            raise JournalError(
                f"expected the terms of {row.image} to be finite numbers, but got {row.terms}; leave it unscored"
            )
        values.extend([row.terms.get(name, math.nan) for name in names])
    images = json.dumps([row.image for row in rows], ensure_ascii=False)
    embeddings = b"".join(row.embedding or b"" for row in rows)
    return images, json.dumps(names, ensure_ascii=False), struct.pack(f"<{len(values)}f", *values), embeddings


def _unpacked(block: ScoreBlock) -> list[Score]:
    width, size = len(block.names), len(block.embeddings) // len(block.images)
    values = struct.unpack(f"<{width * len(block.images)}f", block.terms)
    return [
        Score(
            image,
            {k: v for k, v in zip(block.names, values[i * width : (i + 1) * width], strict=True) if not math.isnan(v)},
            block.embeddings[i * size : (i + 1) * size] or None,
        )
        for i, image in enumerate(block.images)
    ]
