"""Who submitted which label, and on which side of the validation split each patient stands, for ever."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.store.database import Database
from lib.store.records import Side, Submission, submission_from, to_json
from lib.store.schema import JournalError

_LATEST_ACTIVE = "removed IS NULL AND id IN (SELECT MAX(id) FROM submissions GROUP BY image)"


class Submissions(Database):
    """The part of the journal about labels and patients."""

    def add_submission(
        self,
        image: str,
        group: str,
        label: str,
        sha256: str,
        labels: Mapping[str, int],
        client: str | None,
        model_version: int | None,
        now: float,
        kept: str = "",
    ) -> int:
        """Append a saved label; on disk when this returns. A resubmission is a new row and the older ones stay.

        Args:
            image: Image id.
            group: Patient (or video) id, the unit of the validation split.
            label: Path of the label file; one below the journal's folder is stored relative to it, so that studies may
                be moved or copied.
            sha256: Of the label file.
            labels: Names found in the label and their values in it.
            client: Annotator; None or "" is anonymous.
            model_version: Version of the model that pre-labelled the image, None without one.
            now: Unix seconds.
            kept: Name of the copy that stays when the label is replaced.

        Returns:
            The id of the row; ids rise in the order of submission.
        """
        values = (image, group, self._relative(label), sha256, to_json(labels), client or "", model_version, now, kept)
        with self.write() as connection:
            cursor = connection.execute(
                "INSERT INTO submissions (image, patient, label, sha256, labels, client, model_version, ts, kept) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            connection.execute("DELETE FROM pins WHERE image = ?", (image,))
            return int(cursor.lastrowid or 0)

    def withdraw(self, id: int) -> None:
        """Take back a submission that could not be carried out and was not answered; its number is not given again."""
        with self.write() as connection:
            connection.execute("DELETE FROM submissions WHERE id = ?", (id,))

    def mark_removed(self, image: str, now: float) -> int:
        """Flag all submissions of an image whose label was deleted; they no longer count. Returns how many."""
        with self.write() as connection:
            return connection.execute(
                "UPDATE submissions SET removed = ? WHERE image = ? AND removed IS NULL", (now, image)
            ).rowcount

    def submissions(self, after_id: int = 0, active_only: bool = True) -> list[Submission]:
        """Submissions with an id above `after_id`, in order; active ones are those that were not removed."""
        where = "AND removed IS NULL" if active_only else ""
        rows = self.read(f"SELECT * FROM submissions WHERE id > ? {where} ORDER BY id", (after_id,))
        return [submission_from(row) for row in rows]

    def history(self, image: str) -> list[Submission]:
        """Every version of the label of an image, removed ones included, newest first."""
        rows = self.read("SELECT * FROM submissions WHERE image = ? ORDER BY id DESC", (image,))
        return [submission_from(row) for row in rows]

    def submission(self, id: int) -> Submission | None:
        """One submission by its number, None for a number that was not given."""
        known = 0 < id <= self.last_submission_id()
        rows = self.read("SELECT * FROM submissions WHERE id = ?", (id,)) if known else []
        return submission_from(rows[0]) if rows else None

    def latest(self) -> list[Submission]:
        """The version that counts of each labelled image, in the order of submission."""
        rows = self.read(f"SELECT * FROM submissions WHERE {_LATEST_ACTIVE} ORDER BY id")
        return [submission_from(row) for row in rows]

    def label_file(self, submission: Submission) -> Path:
        """Where the label file of a submission lies, or lay."""
        return self.path.parent / submission.label

    def make_labels_relative(self) -> None:
        """What earlier releases stored of the paths of label files, as this one does."""
        with self.write() as connection:
            rows = connection.execute("SELECT id, label FROM submissions").fetchall()
            changed = [(self._relative(row["label"]), row["id"]) for row in rows]
            connection.executemany("UPDATE submissions SET label = ? WHERE id = ?", changed)

    def _relative(self, label: str) -> str:
        path = Path(label)
        return str(path.relative_to(self.path.parent)) if path.is_relative_to(self.path.parent) else label

    def note_start(self, image: str, client: str | None, version: int, now: float) -> None:
        """Remember which model version segmented an image for an annotator, who may go on from there."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO starts (image, client, version, ts) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (image, client) DO UPDATE SET version = excluded.version, ts = excluded.ts",
                (image, client or "", version, now),
            )

    def start_of(self, image: str, client: str | None) -> int | None:
        """Model version that an annotator went on from, None when the image was not segmented for them."""
        rows = self.read("SELECT version FROM starts WHERE image = ? AND client = ?", (image, client or ""))
        return int(rows[0]["version"]) if rows else None

    def labelled_images(self) -> set[str]:
        """Images whose latest submission is active."""
        return {row["image"] for row in self.read(f"SELECT image FROM submissions WHERE {_LATEST_ACTIVE}")}

    def submission_mark(self) -> tuple[int, int]:
        """Two numbers that change whenever a label comes or goes: the last id, and how many submissions were removed."""
        row = self.read("SELECT COALESCE(MAX(id), 0), COUNT(removed) FROM submissions")[0]
        return int(row[0]), int(row[1])

    def last_submission_id(self) -> int:
        """Highest id given so far, removed ones included; 0 before the first."""
        return int(self.read("SELECT COALESCE(MAX(id), 0) FROM submissions")[0][0])

    def label_names(self) -> dict[str, int]:
        """Names in the active submissions, by first appearance, each with the value it had there."""
        names: dict[str, int] = {}
        for row in self.read("SELECT labels FROM submissions WHERE removed IS NULL ORDER BY id"):
            for name, value in json.loads(row["labels"]).items():
                names.setdefault(name, value)
        return names

    def splits(self) -> dict[str, Side]:
        """Side of every group known."""
        return {row["patient"]: row["side"] for row in self.read("SELECT * FROM splits ORDER BY patient")}

    def assign_splits(self, groups: Sequence[str], fraction: float, seed: int) -> dict[str, Side]:
        """Give each group that has no side yet one that it keeps for ever; the validation set only grows.

        Args:
            groups: Patients, in any order; repeats and known ones are fine.
            fraction: Wanted share of validation groups among all known, in [0, 1); rounded down.
            seed: Decides which of the new groups validate, independent of their order.

        Returns:
            The side of every group known, as `splits`.
        """
        if not 0.0 <= fraction < 1.0:
            raise JournalError(
                f"expected the validation fraction to be in [0, 1), but got {fraction}; leave groups for training"
            )
        with self.write() as connection:
            sides: dict[str, Side] = {row["patient"]: row["side"] for row in connection.execute("SELECT * FROM splits")}
            added = new_sides(sides, groups, fraction, seed)
            connection.executemany("INSERT INTO splits (patient, side) VALUES (?, ?)", added.items())
        return dict(sorted({**sides, **added}.items()))


def new_sides(sides: Mapping[str, Side], groups: Sequence[str], fraction: float, seed: int) -> dict[str, Side]:
    """Sides of the groups that `sides` does not have; see `Submissions.assign_splits`.

    Examples:
        >>> sorted(new_sides({}, ["a", "b", "c", "d"], 0.5, seed=0).values())
        ['train', 'train', 'validation', 'validation']
        >>> new_sides({}, ["a"], 0.9, seed=0)
        {'a': 'train'}
    """
    new = sorted(set(groups) - set(sides), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    validating = sum(side == "validation" for side in sides.values())
    wanted = math.floor(fraction * (len(sides) + len(new)) + 1e-9)  # 0.29 * 100 is 28.999...
    must_train = 0 if validating < len(sides) else 1
    count = max(0, min(wanted - validating, len(new) - must_train))
    return {group: "validation" if position < count else "train" for position, group in enumerate(new)}
