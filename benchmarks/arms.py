"""What the runs of several strategies say: figures per arm over paired seeds, the matrix of all pairs, the goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from benchmarks.compare import aubc, paired_interval, pairwise
from rich.console import Console
from rich.table import Table

OWN, RANDOM, NOT_BELOW = "low_contrast", "foreground_random", ("mean_entropy", "clasp_pe")
LOW_POINTS = 1.0


def curves_of(entries: Sequence[Mapping[str, Any]], low: Sequence[str]) -> dict[str, list[float]]:
    """Per round, in per cent for Dice: `dice`, `low` (the third), `missed` (number) and `border` (pixels drawn so far)."""
    cases = [entry["cases"] for entry in entries]
    return {
        "dice": [100 * float(np.mean([c["dice"] for c in found.values()])) for found in cases],
        "low": [100 * float(np.mean([found[i]["dice"] for i in low])) for found in cases],
        "missed": [float(sum(c["missed"] for c in found.values())) for found in cases],
        "border": [float(entry["border"]) for entry in entries],
    }


def summarise(cells: Mapping[str, Mapping[str, Any]], low: Sequence[str]) -> dict[str, Any]:
    """Figures of all arms over the seeds that they share, so that all comparisons are paired.

    An arm with fewer seeds than the others is left out: it would take the seeds of all.
    """
    by_arm: dict[str, dict[int, dict[str, list[float]]]] = {}
    for key, cell in cells.items():
        arm, seed = key.rsplit("/", 1)
        by_arm.setdefault(arm, {})[int(seed)] = curves_of(cell["entries"], low)
    most = max(len(found) for found in by_arm.values())
    by_arm = {arm: found for arm, found in by_arm.items() if len(found) == most}
    seeds = sorted(set.intersection(*(set(found) for found in by_arm.values())))
    runs = {arm: [found[s] for s in seeds] for arm, found in by_arm.items()}
    area = {arm: [aubc(run["dice"]) for run in found] for arm, found in runs.items()}
    low_area = {arm: [aubc(run["low"]) for run in found] for arm, found in runs.items()}
    rows = [
        {
            "arm": arm,
            "aubc": float(np.mean(area[arm])),
            "aubc_low": float(np.mean(low_area[arm])),
            **{
                f"final_{k}": float(np.mean([run[k][-1] for run in found])) for k in ("dice", "low", "missed", "border")
            },
            "curve": np.mean([run["dice"] for run in found], axis=0).round(2).tolist(),
            "spread": np.std([run["dice"] for run in found], axis=0, ddof=min(1, len(found) - 1)).round(2).tolist(),
        }
        for arm, found in runs.items()
    ]
    matrix = pairwise(area)
    against = {arm: _against(area, low_area, arm) for arm in area if arm != OWN} if OWN in area else {}
    return {"seeds": seeds, "rows": rows, "pairwise_aubc": matrix, "low_contrast_against": against}


def _against(area: Mapping[str, Sequence[float]], low: Mapping[str, Sequence[float]], arm: str) -> dict[str, Any]:
    return {
        "aubc": [round(v, 3) for v in paired_interval(area[OWN], area[arm])],
        "aubc_low": [round(v, 3) for v in paired_interval(low[OWN], low[arm])],
    }


def goal_of(name: str, summary: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the goal is met, and the figure in one line; without the arms it speaks of there is none to miss."""
    against = summary["low_contrast_against"]
    if RANDOM not in against:
        best = max(summary["rows"], key=lambda row: row["aubc"])
        return True, f"{name}: highest AUBC {best['aubc']:.1f} by {best['arm']}"
    mean, low_end, high_end = against[RANDOM]["aubc"]
    third = against[RANDOM]["aubc_low"][0]
    below = [arm for arm in NOT_BELOW if arm in against and against[arm]["aubc"][0] < 0]
    met = low_end > 0 and third >= LOW_POINTS and not below
    beaten = f", below {' and '.join(below)}" if below else ""
    return met, (
        f"{name}: AUBC of low_contrast {mean:+.2f} ({low_end:+.2f} to {high_end:+.2f}) against foreground-aware random, "
        f"{third:+.2f} on the low-contrast third{beaten}, {len(summary['seeds'])} seeds; goal {'met' if met else 'missed'}"
    )


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Arms, and the matrix of all pairs."""
    table = Table("strategy", "AUBC", "AUBC low third", "last Dice", "last low third", "missed", "border drawn")
    for row in sorted(summary["rows"], key=lambda r: -r["aubc"]):
        figures = [row[k] for k in ("aubc", "aubc_low", "final_dice", "final_low", "final_missed")]
        table.add_row(row["arm"], *(f"{f:.1f}" for f in figures), f"{row['final_border']:.0f}")
    console.print(table)
    matrix = summary["pairwise_aubc"]
    pairs = Table("AUBC, row minus column (Holm's p)", *matrix)
    for arm, row in matrix.items():
        cells = [f"{row[b]['difference']:+.2f} ({row[b]['p']:.2f})" if b in row else "" for b in matrix]
        pairs.add_row(arm, *cells)
    console.print(pairs)
