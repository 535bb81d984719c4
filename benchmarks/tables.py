"""The tables of docs/methods.md, made from the result files.

    python benchmarks/tables.py

Each stands between two marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`; a table whose result file is missing keeps its
text. `method_cost.py` and `label_efficiency.py` do this themselves when they write into `benchmarks/results`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "methods.md"

EFFICIENCY = "label_efficiency"


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
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
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
        "s per step",
        "MiB",
    )
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    best = {row["labels"]: max(r["teacher_dice"][0] for r in figures["rows"] if r["labels"] == row["labels"])
            for row in figures["rows"]}  # fmt: skip
    for row in figures["rows"]:
        dice = _spread(row["teacher_dice"], row["seeds"])
        cells = (
            row["labels"],
            f"`{row['arm']}`",
            str(row["seeds"]),
            f"**{dice}**" if row["teacher_dice"][0] == best[row["labels"]] else dice,
            *(_spread(row[name], row["seeds"]) for name in ("student_dice", "teacher_hd95", "low_contrast_dice")),
            f"{row['seconds_per_step']:.2f}",
            str(row["peak_mib"]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    name = settings["data"]
    seeds = max(row["seeds"] for row in figures["rows"])
    made = (
        f"{settings['iterations']} steps of {settings['batch']} labelled and as many unlabelled images, seeds 0 to {seeds - 1}, "
        f"{settings['device']} ({machine['processor']}), commit `{record['commit'][:10]}`. {figures['line']}."
    )
    return "\n".join([made, "", *rows, "", f"![{name}](../benchmarks/results/{EFFICIENCY}_{name}.png)"])


def _spread(figure: Sequence[float], seeds: int) -> str:
    return f"{figure[0]:.1f} ± {figure[1]:.1f}" if seeds > 1 else f"{figure[0]:.1f}"


def main() -> int:
    """Fill every table whose result file is there."""
    text = DOCS.read_text()
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if path.stem == "method_cost":
            text = with_section(text, path.stem, cost(record["figures"]))
        elif path.stem.startswith(EFFICIENCY) and "rows" in record["figures"]:
            text = with_section(text, path.stem, efficiency(record))
    DOCS.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
