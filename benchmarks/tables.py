"""The tables of docs/methods.md and docs/active-learning.md, made from the result files.

    python benchmarks/tables.py

Each stands between two marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`; a table whose result file is missing keeps its
text. `method_cost.py`, `label_efficiency.py` and `active_learning.py` do this themselves when they write into
`benchmarks/results`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco")]

from lib.core.methods import marked  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "methods.md"

STRATEGIES = ROOT / "docs" / "active-learning.md"

EFFICIENCY, ABLATION, LEARNING, GATE = "label_efficiency", "_ablation", "active_learning", "_gate"


def with_section(text: str, name: str, rows: str) -> str:
    """`text` with `rows` between the two marks of `name`; unchanged when it has no such marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        return text
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n{rows}\n{end}{rest.split(end, 1)[1]}"


def fill(name: str, rows: str, docs: Path = DOCS) -> None:
    """Put a table into its place in the document."""
    docs.write_text(with_section(docs.read_text(), name, rows))


def cost(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: one row per method, one column per kind; `-` where a method does not work."""
    names = list(dict.fromkeys(name for kind in figures.values() for name in kind))
    rows = [f"| method | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for name in names:
        cells = (f"{kind[name]:.1f}" if name in kind else "-" for kind in figures.values())
        rows.append(f"| `{marked(name)}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def efficiency(record: Mapping[str, Any]) -> str:
    """Markdown of one result of `label_efficiency.py`: how it was made, a row per number of labels and arm, the plot."""
    settings, figures, machine = record["settings"], record["figures"], record["machine"]
    head = (
        "labels",
        "method",
        "seeds",
        "Dice, teacher",
        "Dice, student",
        "HD95",
        "Dice, low-contrast third",
        "Dice, seeds in common",
        "s per step",
        "MiB",
    )
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    common = {row["labels"]: _in_common([r["by_seed"] for r in figures["rows"] if r["labels"] == row["labels"]])
              for row in figures["rows"]}  # fmt: skip
    fair = [_mean(row["by_seed"], common[row["labels"]]) for row in figures["rows"]]
    best = {row["labels"]: max(v for v, r in zip(fair, figures["rows"], strict=True) if r["labels"] == row["labels"])
            for row in figures["rows"]}  # fmt: skip
    for row, value in zip(figures["rows"], fair, strict=True):
        names = ("teacher_dice", "student_dice", "teacher_hd95", "low_contrast_dice")
        cells = (
            row["labels"],
            f"`{marked(row['arm'])}`",
            str(row["seeds"]),
            *(_spread(row[name], row["seeds"]) for name in names),
            f"**{value:.1f}**" if value == best[row["labels"]] else f"{value:.1f}",
            f"{row['seconds_per_step']:.2f}",
            str(row["peak_mib"]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    name = settings["data"]
    seeds = max(row["seeds"] for row in figures["rows"])
    named = "seed 0" if seeds == 1 else f"seeds 0 to {seeds - 1}"
    made = (
        f"{settings['iterations']} steps of {settings['batch']} labelled and as many unlabelled images, {named}, "
        f"{settings['device']} ({machine['processor']}), commit `{record['commit'][:10]}`. {figures['line']}."
    )
    return "\n".join([made, "", *rows, "", f"![{name}](../benchmarks/results/{EFFICIENCY}_{name}.png)"])


def ablation(record: Mapping[str, Any]) -> str:
    """Markdown of variants, best first: they are measured on the development part, a tenth of the pool."""
    settings, figures, machine = record["settings"], record["figures"], record["machine"]
    ranked = sorted(figures["rows"], key=lambda row: -row["teacher_dice"][0])
    rows = ["| variant | labels | seeds | Dice, teacher | HD95 | missed |", "|---" * 6 + "|"]
    for row in ranked:
        dice, distance = (_spread(row[name], row["seeds"]) for name in ("teacher_dice", "teacher_hd95"))
        rows.append(f"| {row['arm']} | {row['labels']} | {row['seeds']} | {dice} | {distance} | {row['missed']:.1f} |")
    made = (
        f"{settings['data']}, {settings['iterations']} steps of {settings['batch']} labelled and as many unlabelled images, "
        f"{settings['device']} ({machine['processor']}), commit `{record['commit'][:10]}`."
    )
    return "\n".join([made, "", *rows])


def _in_common(seeds: Sequence[Mapping[str, float]]) -> list[str]:
    """Seeds that all arms have."""
    return sorted(set(seeds[0]).intersection(*seeds))


def _mean(by_seed: Mapping[str, float], seeds: Sequence[str]) -> float:
    """Mean over the seeds in common; over its own where there are none."""
    known = [by_seed[seed] for seed in seeds or by_seed]
    return sum(known) / len(known)


def learning(record: Mapping[str, Any]) -> str:
    """Markdown of one result of `active_learning.py`: arms by AUBC, the matrix of all pairs, the plot."""
    settings, figures, machine = record["settings"], record["figures"], record["machine"]
    plan, training = settings["plan"], settings["spec"]["training"]
    rows = ["| strategy | AUBC | AUBC, low-contrast third | last Dice | last, low-contrast third | missed | border drawn |",
            "|---" * 7 + "|"]  # fmt: skip
    ranked = sorted(figures["rows"], key=lambda row: -row["aubc"])
    for row in ranked:
        keys = ("aubc", "aubc_low", "final_dice", "final_low", "final_missed")
        values = " | ".join(f"{row[k]:.1f}" for k in keys)
        rows.append(f"| `{row['arm']}` | {values} | {row['final_border']:.0f} |")
    arms = [row["arm"] for row in ranked]
    pairs = [f"| AUBC, row minus column | {' | '.join(f'`{a}`' for a in arms)} |", "|---" * (len(arms) + 1) + "|"]
    for a in arms:
        found = figures["pairwise_aubc"][a]
        cells = (f"{found[b]['difference']:+.2f} ({found[b]['p']:.2f})" if b in found else "" for b in arms)
        pairs.append(f"| `{a}` | {' | '.join(cells)} |")
    name = settings["data"]
    made = (
        f"{settings['pool']} images, {plan['start']} labels at first, {plan['rounds']} rounds of {plan['query']}, "
        f"{training['epochs'] * training['iterations_per_epoch']} steps of {training['batch_labelled']} labelled and "
        f"{training['batch_unlabelled']} unlabelled images after each, seeds {', '.join(map(str, figures['seeds']))}, "
        f"{settings['device']} ({machine['processor']}), commit `{record['commit'][:10]}`. {figures['line']}."
    )
    plot = f"![{name}](../benchmarks/results/{LEARNING}_{name}.png)"
    return "\n".join([made, "", *rows, "", "In brackets Holm's p over all pairs.", "", *pairs, "", plot])


def look(record: Mapping[str, Any]) -> str:
    """Markdown of the gate: scores against the true loss, by stratum."""
    figures, machine = record["figures"], record["machine"]
    dice = ", ".join(f"{model['mean_dice']:.2f}" for model in figures["models"])
    rows = [
        "| stratum | score | images | rank correlation with 1 - Dice | predicted area taken out | AUROC |",
        "|---" * 6 + "|",
    ]
    for row in figures["rows"]:
        if row["images"]:
            values = " | ".join(f"{row[k]:.2f}" for k in ("rank_correlation", "given_area", "auroc"))
            rows.append(f"| {row['stratum']} | {row['score']} | {row['images']:.0f} | {values} |")
    seeds = ", ".join(str(model["seed"]) for model in figures["models"])
    made = (
        f"Means over the models of seeds {seeds} (mean Dice of the images asked: {dice}), "
        f"{machine['processor']}, commit `{record['commit'][:10]}`."
    )
    return "\n".join([made, "", *rows])


def _spread(figure: Sequence[float], seeds: int) -> str:
    return f"{figure[0]:.1f} ± {figure[1]:.1f}" if seeds > 1 else f"{figure[0]:.1f}"


def main() -> int:
    """Fill every table whose result file is there."""
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if path.stem == "method_cost":
            fill(path.stem, cost(record["figures"]))
        elif "rows" in record["figures"]:
            if path.stem.startswith(EFFICIENCY):
                fill(path.stem, (ablation if path.stem.endswith(ABLATION) else efficiency)(record))
            elif path.stem.startswith(LEARNING):
                fill(path.stem, (look if path.stem.endswith(GATE) else learning)(record), STRATEGIES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
