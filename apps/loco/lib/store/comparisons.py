"""How far each submitted label is from what the model had drawn: computed once, kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lib.store.database import Database
from lib.store.records import to_json


class Comparisons(Database):
    """The part of the journal about pre-labels against labels. A submission never changes, so neither does its result."""

    def put_comparison(self, submission: int, result: Mapping[str, Any], now: float) -> None:
        """Keep the result for one submission, replacing an older one."""
        with self.write() as connection:
            connection.execute(
                "INSERT INTO comparisons (submission, result, ts) VALUES (?, ?, ?) "
                "ON CONFLICT (submission) DO UPDATE SET result = excluded.result, ts = excluded.ts",
                (submission, to_json(result), now),
            )

    def comparisons(self, submissions: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Results of those of some submissions that have one."""
        marks = ", ".join("?" * len(submissions))
        rows = self.read(f"SELECT submission, result FROM comparisons WHERE submission IN ({marks})", submissions)
        return {int(row["submission"]): json.loads(row["result"]) for row in rows}

    def comparison_count(self) -> int:
        """How many results there are."""
        return int(self.read("SELECT COUNT(*) FROM comparisons")[0][0])
