"""A result file that grows cell by cell, so that an experiment of hours can be stopped and gone on with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import report
from filelock import FileLock


def part_of(text: str) -> tuple[int, int]:
    """`1/2` is the first of two parts: (0, 2), for several processes that share the work. Raises `ValueError`."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"expected a part such as 1/2, but got {text!r}")
    return int(number) - 1, int(count)


class SettingsError(ValueError):
    """Results of other settings are in the way; one sentence."""


class CellFile:
    """`<folder>/<name>.json`: `cells` by key, each finished one kept; written whole."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path) -> None:
        """Raises `SettingsError` when the file holds cells of other settings."""
        self.path = folder / f"{name}.json"
        self._name, self._settings, self._folder = name, dict(settings), folder
        self.cells: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return
        known = json.loads(self.path.read_text())
        ours = json.loads(json.dumps(self._settings))
        differing = sorted(k for k in {*ours, *known["settings"]} if ours.get(k) != known["settings"].get(k))
        if differing:
            raise SettingsError(
                f"expected the cells of {self.path.name} to have these settings, but {', '.join(differing)} differ; "
                "name another --out folder or repeat the settings of the file"
            )
        self.cells = known["figures"]["cells"]

    def check(self, key: str, options: Mapping[str, Any]) -> None:
        """Raises `SettingsError` when a finished cell was made with other numbers of its own than `options`."""
        known = self.cells.get(key, {}).get("options")
        if known is not None and known != json.loads(json.dumps(options)):
            names = sorted(n for n in {*known, *options} if known.get(n) != options.get(n))
            raise SettingsError(
                f"expected the cell {key} of {self.path.name} to be made with the present options, but {', '.join(names)} "
                "differ; name another --out folder, or delete the cell to run it again"
            )

    def add(self, key: str, figures: dict[str, Any]) -> None:
        """Keep a finished cell."""
        self.cells[key] = figures
        self.write({})

    def write(self, summary: Mapping[str, Any]) -> None:
        """Write all cells, those of other processes too, and what was concluded from them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(Path(tempfile.gettempdir()) / f"loco-{self._name}.lock"):
            if self.path.exists():
                self.cells = json.loads(self.path.read_text())["figures"]["cells"] | self.cells
            report.write(self._name, self._settings, {"cells": self.cells, **summary}, self._folder)
