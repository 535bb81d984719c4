"""Plots of result files, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_ALL = "all"
_FEW = 6
"""Arms that lines alone show well enough."""


def label_efficiency(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Dice of the teacher: a row per arm at the number of labels with most arms, and a line for each arm with several numbers.

    Of few arms the line is enough, and one with a single number is a point there. The ceiling is dashed in both.

    Args:
        rows: as `summarise` of benchmarks/efficiency.py makes them.
        title: above the plot.
        path: PNG to write.
    """
    few = [row for row in rows if row["labels"] != _ALL]
    by_count = {count: [row for row in few if row["labels"] == count] for count in {row["labels"] for row in few}}
    widest = max(by_count, key=lambda count: (len(by_count[count]), -int(count)))
    several = [row for row in few if sum(row["arm"] == other["arm"] for other in few) > 1]
    panels = [(_arm_by_arm, by_count[widest])] if len(by_count) == 1 or len(by_count[widest]) > _FEW else []
    panels += [(_against_labels, several if panels else few)] if several else []
    height = max(4.5 if several else 0.0, *(1.4 + 0.36 * len(own) for draw, own in panels if draw is _arm_by_arm), 0.0)
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(6.5 * len(panels) + 0.5, height), dpi=120, layout="constrained", squeeze=False
    )
    for axes, (draw, own) in zip(all_axes[0], panels, strict=True):
        line = axes.axvline if draw is _arm_by_arm else axes.axhline
        for row in rows:
            if row["labels"] == _ALL:
                line(row["teacher_dice"][0], color="grey", linestyle="--", label="supervised, all labels")
        draw(axes, own)
        axes.set_title(f"{title}, {widest} labels" if draw is _arm_by_arm else title)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.savefig(path)
    plt.close(figure)


def _against_labels(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for number, arm in enumerate(arms):
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: int(row["labels"]))
        x = [int(row["labels"]) * (1 + 0.012 * (number - (len(arms) - 1) / 2)) for row in own]
        dice, spread = zip(*(row["teacher_dice"] for row in own), strict=True)
        axes.errorbar(x, dice, yerr=spread, marker="o", capsize=3, label=arm)
    axes.set(xlabel="labelled patients or frames", ylabel="mean Dice of the teacher, %", xscale="log")
    ticks = sorted({int(row["labels"]) for row in rows})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()


def _arm_by_arm(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """A dot per seed; best on top, by the mean over the seeds that all arms have."""
    common = set(rows[0]["by_seed"]).intersection(*(row["by_seed"] for row in rows))
    ranked = sorted(rows, key=lambda row: float(np.mean([row["by_seed"][s] for s in common or row["by_seed"]])))
    for number, seed in enumerate(sorted({seed for row in rows for seed in row["by_seed"]})):
        dots = [(row["by_seed"][seed], place) for place, row in enumerate(ranked) if seed in row["by_seed"]]
        axes.plot(
            *zip(*dots, strict=True), marker="osD^v"[number % 5], linestyle="", color=f"C{number}", label=f"seed {seed}"
        )
    axes.set_yticks(range(len(rows)), [row["arm"] for row in ranked])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("mean Dice of the teacher, %; ordered by the seeds that all arms have")
    axes.grid(axis="x", alpha=0.3)


def learning_curves(rows: Sequence[Mapping[str, Any]], start: int, query: int, title: str, path: Path) -> None:
    """Dice against the number of labels, one line with its spread per strategy.

    Args:
        rows: with `arm`, `curve` and `spread`, one value per model.
        start: labels of the first model.
        query: labels added per round.
        title: above the plot.
        path: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), dpi=120, layout="constrained")
    for row in rows:
        labels = [start + query * n for n in range(len(row["curve"]))]
        (line,) = axes.plot(labels, row["curve"], marker="o", label=row["arm"])
        low, high = ([c + sign * s for c, s in zip(row["curve"], row["spread"], strict=True)] for sign in (-1, 1))
        axes.fill_between(labels, low, high, color=line.get_color(), alpha=0.15)
    axes.set(title=title, xlabel="labels", ylabel="mean Dice of the teacher, %")
    axes.legend(fontsize="small")
    figure.savefig(path)
    plt.close(figure)
