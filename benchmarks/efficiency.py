"""What the trainings of the label efficiency benchmark say: rows per arm, the goal, the table of a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from benchmarks.experiment import mean_of
from rich.console import Console
from rich.table import Table

from lib.core.methods import METHODS, marked

ALL = "all"
"""In place of a number of labels: all of the pool."""
GOAL_DATA, GOAL_LABELS, GOAL_POINTS = "kvasir", "40", 5.0


def summarise(
    cells: Mapping[str, Mapping[str, Any]], low: Sequence[str], arms: Sequence[str] = tuple(METHODS)
) -> list[dict[str, Any]]:
    """One row per number of labels and arm: mean and standard deviation over the seeds, in per cent for Dice.

    `low`: ids of the third of the cases with the lowest contrast. `arms`: all there may be, in their order.
    """
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for key, cell in cells.items():
        labels, arm, seed = key.split("/")
        groups.setdefault((labels, arm), {})[seed] = cell
    ordered = sorted(groups, key=lambda key: _order(*key, arms))
    return [_row(labels, arm, groups[labels, arm], low) for labels, arm in ordered]


def _row(labels: str, arm: str, found: Mapping[str, Mapping[str, Any]], low: Sequence[str]) -> dict[str, Any]:
    cells = list(found.values())
    row: dict[str, Any] = {"labels": labels, "arm": arm, "seeds": len(cells)}
    row["by_seed"] = {seed: round(100 * mean_of(c, "teacher", "dice"), 2) for seed, c in sorted(found.items())}
    for part in ("student", "teacher"):
        row[f"{part}_dice"] = _mean_and_spread([100 * mean_of(c, part, "dice") for c in cells])
        row[f"{part}_hd95"] = _mean_and_spread([mean_of(c, part, "hd95") for c in cells])
    row["low_contrast_dice"] = _mean_and_spread([100 * mean_of(c, "teacher", "dice", low) for c in cells])
    row["missed"] = float(np.mean([sum(case["missed"] for case in c["teacher"].values()) for c in cells]))
    row["seconds_per_step"] = float(np.median([c["seconds_per_step"] for c in cells]))
    row["peak_mib"] = max(c["peak_mib"] for c in cells)
    return row


def _order(labels: str, arm: str, arms: Sequence[str]) -> tuple[bool, int, int]:
    return labels == ALL, 0 if labels == ALL else int(labels), arms.index(arm)


def _mean_and_spread(values: Sequence[float]) -> list[float]:
    """Mean and standard deviation over the seeds; a single seed has no spread (0)."""
    return [round(float(np.mean(values)), 2), round(float(np.std(values, ddof=1)), 2) if len(values) > 1 else 0.0]


def goal_of(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether the goal is met, and the figure in one line. Without the cells it speaks of there is no goal to miss."""
    dice = {row["arm"]: row["by_seed"] for row in rows if row["labels"] == GOAL_LABELS}
    if name != GOAL_DATA or not {"loco", "supervised"} <= set(dice):
        best = max(rows, key=lambda row: row["teacher_dice"][0])
        return (
            True,
            f"{name}: best arm {marked(best['arm'])} with {best['labels']} labels, Dice {best['teacher_dice'][0]:.1f}",
        )
    leads = {
        arm: _lead(dice["loco"], other) for arm, other in dice.items() if arm != "loco" and dice["loco"].keys() & other
    }
    if "supervised" not in leads:
        return True, f"{name}: LoCo and supervised have no seed in common yet"
    rival = min(leads, key=leads.get)
    seeds = ", ".join(sorted(dice["loco"].keys() & dice[rival]))
    met = leads["supervised"] >= GOAL_POINTS and leads[rival] >= 0
    return met, (
        f"{name}, {GOAL_LABELS} labels: LoCo {np.mean(list(dice['loco'].values())):.1f} Dice, "
        f"{leads['supervised']:+.1f} against supervised, {leads[rival]:+.1f} against the best other arm "
        f"({marked(rival)}, same seeds: {seeds}); goal {'met' if met else 'missed'}"
    )


def _lead(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Mean difference over the seeds that both have."""
    return float(np.mean([own[seed] - other[seed] for seed in own.keys() & other.keys()]))


def show(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of all rows."""
    table = Table(
        "labels", "arm", "seeds", "teacher Dice", "student Dice", "teacher HD95", "low third", "missed", "s/step", "MiB"
    )
    for row in rows:
        figures = ("teacher_dice", "student_dice", "teacher_hd95", "low_contrast_dice")
        values = [f"{row[f][0]:.1f} ± {row[f][1]:.1f}" for f in figures]
        cost = [f"{row['missed']:.1f}", f"{row['seconds_per_step']:.2f}", str(row["peak_mib"])]
        table.add_row(row["labels"], marked(row["arm"]), str(row["seeds"]), *values, *cost)
    console.print(table)


def best_variant(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figure of an ablation in one line."""
    dice = {row["arm"]: row["teacher_dice"][0] for row in rows}
    best = max(dice, key=dice.get)
    beside = f", LoCo as it is {dice['loco']:.1f}" if "loco" in dice else ""
    return f"best variant: {best}, Dice {dice[best]:.1f} on the development part{beside}"
