"""Does a strategy earn its place? An oracle labels what each strategy asks for; everything else is equal.

    python benchmarks/active_learning.py --data DIR --gate [--seeds 3] [--first DIR]
    python benchmarks/active_learning.py --data DIR [--strategies low_contrast,foreground_random,mean_entropy,clasp_pe]
        [--rounds 5] [--seeds 3] [--start 20] [--query 20] [--iterations 150] [--batch 4] [--pool 0] [--part 1/2]

DIR holds `pool` and `val` (see benchmarks/datasets.py). For each seed all strategies start from the same labels and the same
model; in each round the model looks at the pool, the app's own policy chooses, the true labels are added, and the app's own
training goes on from the last model for the same number of steps. The teacher is measured on `val` after each training:
mean Dice, Dice on the third with the lowest contrast of the true border (fixed beforehand, without a network), missed
classes; AUBC is the area under Dice against the round. Effort is the length of the true borders drawn, in pixels. Arms
are compared over paired seeds: 95 % intervals, and a matrix of all pairs with Holm's correction.

`--gate` is the cheap look beforehand: a model of the first labels per seed, and the rank correlation of each score with the
true Dice of the images it has not seen, by stratum. It ends with status 1 when the low-contrast score does not say more
than the predicted area alone, or less beside it than the mean entropy.

Goal, where the arms exist: AUBC of low_contrast above foreground_random with the 95 % interval above 0, at least 1 Dice
point above it on the low-contrast third, and not below mean_entropy or clasp_pe. Exits 1 when it is missed. Finished cells
(strategy and seed) are kept in benchmarks/results/active_learning_<data set>.json and not run again. The same seed gives
another first model on another processor: with `--first DIR` all arms of a seed start from one, whoever runs them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from benchmarks import gate, plots, report, tables  # noqa: E402
from benchmarks.arms import NOT_BELOW, OWN, RANDOM, goal_of, show, summarise  # noqa: E402
from benchmarks.cellfile import CellFile, SettingsError, part_of  # noqa: E402
from benchmarks.datasets import DataSet, DataSetError, at_working_size, choose_groups, read_data_set  # noqa: E402
from benchmarks.experiment import Budget, Laboratory, plan_experiment, quiet, settings_of  # noqa: E402
from benchmarks.metrics import low_contrast_ids, score_cases  # noqa: E402
from benchmarks.rounds import (  # noqa: E402
    Oracle,
    Plan,
    first_checkpoint,
    first_studies,
    look_at,
    predicted_areas,
    run_arm,
    teacher_of,
)
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from lib.core.cases import Record  # noqa: E402
from lib.core.policies import POLICIES  # noqa: E402
from lib.core.select import CONTROL_SHARE  # noqa: E402
from lib.core.spec import TaskSpec  # noqa: E402
from lib.progressbar import progress  # noqa: E402


def run_gate(
    data: DataSet, spec: TaskSpec, plan: Plan, options: argparse.Namespace, console: Console
) -> tuple[dict[str, Any], bool]:
    """A model of the first labels per seed, and the means over the seeds."""
    with first_folder(options) as folder:
        models = [
            look_once(data, with_seed(spec, seed), plan, options.device, folder / f"{seed}.pt")
            for seed in range(options.seeds)
        ]
    rows = gate.mean_rows([model["rows"] for model in models])
    table = Table("stratum", "score", "images", "rank correlation", "given area", f"AUROC Dice < {gate.BAD}")
    for row in rows:
        values = [f"{row[k]:.2f}" for k in ("rank_correlation", "given_area", "auroc")]
        table.add_row(row["stratum"], row["score"], f"{row['images']:.0f}", *values)
    console.print(table)
    return {"rows": rows, "models": models}, gate.passes(rows)


def look_once(data: DataSet, spec: TaskSpec, plan: Plan, device: str, first: Path) -> dict[str, Any]:
    """Train on the first labels, look at the rest of the pool, compare each score with the truth."""
    laboratory = Laboratory(sorted({r.group for r in data.pool}), device)
    try:
        studies = first_studies(data.pool, plan.start, spec.training.seed)
        checkpoint, _ = first_checkpoint(laboratory, spec, data.pool, studies.get_labeled_images(), first)
        unseen = set(studies.get_unlabeled_images())
        rest = [r for r in data.pool if r.id in unseen]
        areas = Oracle(data.pool, spec).areas(studies.get_labeled_images())
        pool = look_at(checkpoint, spec, rest, areas, laboratory.device, with_dropout=True)
        teacher = teacher_of(checkpoint, laboratory.device)
        dice = {i: s.dice for i, s in score_cases(teacher, rest, spec, laboratory.device).items()}
        rows = gate.judge(pool, dice, predicted_areas(teacher, rest, spec, laboratory.device))
    finally:
        laboratory.close()
    return {"seed": spec.training.seed, "rows": rows, "mean_dice": float(np.mean(list(dice.values())))}


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with pool and val")
    parser.add_argument("--strategies", default=",".join((OWN, RANDOM, *NOT_BELOW)), help="names, or all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=int, default=20, help="patients labelled before the first choice")
    parser.add_argument("--query", type=int, default=20, help="images chosen per round")
    parser.add_argument("--iterations", type=int, default=150, help="optimiser steps of each training")
    parser.add_argument("--batch", type=int, default=4, help="labelled images per step, and as many unlabelled ones")
    parser.add_argument("--method", default="loco", help="how all arms train")
    parser.add_argument(
        "--control", type=float, default=CONTROL_SHARE, help="share of random control picks in all arms"
    )
    parser.add_argument("--pool", type=int, default=0, help="so many patients of the pool instead of all")
    parser.add_argument("--val", type=int, default=0, help="so many cases of val instead of all, for a quick look")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--full", action="store_true", help="size and network that the app uses on a GPU")
    parser.add_argument("--gate", action="store_true", help="only the rank correlations of a young model's scores")
    parser.add_argument(
        "--first", type=Path, help="keep the first models here, for other processes and machines to share"
    )
    parser.add_argument("--part", type=part_of, default=(0, 1), help="1/2: every second seed; another process does 2/2")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "loco-frames")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


def prepared(options: argparse.Namespace) -> tuple[DataSet, TaskSpec]:
    """The data set at working size and the specification that all arms share. Raises `DataSetError`, `SpecError`."""
    data = read_data_set(options.data)
    spec = plan_experiment(data, Budget(options.iterations, options.batch, options.full))
    spec = replace(spec, method=replace(spec.method, name=options.method))
    pool: Sequence[Record] = data.pool
    if options.pool:
        groups = choose_groups(pool, options.pool, 99)
        pool = [r for r in pool if r.group in groups]
    pool = at_working_size(pool, spec.data, spec.network.classes, options.cache / data.name)
    return replace(data, pool=pool, val=data.val[: options.val or None]), spec


def strategies_of(names: str) -> list[str]:
    """Known strategies. Raises `DataSetError` on an unknown one."""
    wanted = list(POLICIES) if names == "all" else names.split(",")
    unknown = [w for w in wanted if w not in POLICIES]
    if unknown:
        raise DataSetError(
            f"expected strategies among {', '.join(POLICIES)}, but got {unknown[0]!r}; choose one of them"
        )
    return wanted


def with_seed(spec: TaskSpec, seed: int) -> TaskSpec:
    """The same specification with another seed."""
    return replace(spec, training=replace(spec.training, seed=seed))


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, print, plot, write; the exit status."""
    options = arguments_of(arguments)
    torch.set_num_threads(options.threads)
    quiet()
    plan = Plan(options.start, options.query, options.rounds, options.control)
    console = Console(width=140)
    name = f"active_learning_{options.data.name}"
    try:
        arms = strategies_of(options.strategies)
        data, spec = prepared(options)
        settings = {
            "data": data.name, "plan": asdict(plan), "device": options.device, "pool": len(data.pool),
            "val": len(data.val), "spec": settings_of(spec),
        }  # fmt: skip
        if options.gate:
            figures, met = run_gate(data, spec, plan, options, console)
            report.write(f"{name}{tables.GATE}", settings, figures, options.out)
            if options.out == report.RESULTS:
                tables.main()
            verdict = "says" if met else "does not say"
            print(f"gate on {data.name}: the low-contrast score {verdict} more than area and mean entropy")
            return 0 if met else 1
        cells = CellFile(name, settings, options.out)
        run_cells(options, arms, plan, data, spec, cells)
    except (DataSetError, SettingsError, ValueError) as e:
        print(e, file=sys.stderr)
        return 2
    summary = summarise(cells.cells, low_contrast_ids(data.val, spec))
    met, line = goal_of(data.name, summary)
    cells.write({**summary, "line": line, "goal_met": met})
    plots.learning_curves(summary["rows"], plan.start, plan.query, data.name, cells.path.with_suffix(".png"))
    if options.out == report.RESULTS:
        tables.main()
    show(console, summary)
    print(line)
    return 0 if met else 1


@contextmanager
def first_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Where the models of the first labels lie: in the folder asked for, else in one that is gone afterwards."""
    with ExitStack() as stack:
        yield options.first or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="first-models-")))


def run_cells(
    options: argparse.Namespace, arms: Sequence[str], plan: Plan, data: DataSet, spec: TaskSpec, cells: CellFile
) -> None:
    """Seed by seed, all strategies from one first model."""
    part, parts = options.part
    seeds = range(part, options.seeds, parts)
    missing = [(arm, seed) for seed in seeds for arm in arms if f"{arm}/{seed}" not in cells.cells]
    steps = len(missing) * (plan.rounds + 1) * spec.training.iterations
    with first_folder(options) as folder, progress("Training steps", steps) as advance:
        for arm, seed in missing:
            first = folder / f"{seed}.pt"
            entries = run_arm(arm, with_seed(spec, seed), plan, data.pool, data.val, options.device, first, advance)
            cells.add(f"{arm}/{seed}", {"entries": entries, "commit": report.commit()})
            dice = [100 * float(np.mean([c["dice"] for c in e["cases"].values()])) for e in entries]
            print(f"{arm}/{seed}: Dice {' '.join(f'{d:.1f}' for d in dice)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
