"""How good each method is with few labels: Dice and HD95 of every arm on the same labels, seeds and number of steps.

    python benchmarks/label_efficiency.py --data DIR [--labels 20,40,80] [--methods supervised,mean_teacher,fixmatch,loco]
        [--seeds 3] [--iterations 300] [--batch 4] [--device cpu] [--full] [--ablate]

DIR holds `pool` and `val` (see benchmarks/datasets.py). For each seed the same patients of the pool are labelled in every
arm; the rest of the pool is unlabelled. Every arm trains a fixed number of steps through the app's own training task and
is measured once, at the end, on `val`: nothing is chosen by looking at `val`. Figures are means over the cases of `val`
on the grid of the image (rules for empty masks: benchmarks/metrics.py), then mean and standard deviation over the seeds.
The ceiling is supervised training with all labels of the pool for the same number of steps.

Each finished cell is kept in benchmarks/results/label_efficiency_<data set>.json and not run again. `--ablate` trains
variants of LoCo instead and measures them on a tenth of the pool that is then neither labelled nor unlabelled, so that
`val` is not used up; its file ends in `_ablation`. With `--methods all` those that cannot work on the data are left out, and it
says why.

Goal, checked where these cells exist: on kvasir with 40 labels LoCo's mean Dice (teacher) is at least 5 points above
supervised and not below any other arm, each on the seeds that both have. Exits 1 when it is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT)]

import torch  # noqa: E402
from benchmarks import plots, report, tables  # noqa: E402
from benchmarks.ablations import ABLATIONS  # noqa: E402
from benchmarks.cellfile import CellFile, SettingsError, part_of  # noqa: E402
from benchmarks.datasets import (  # noqa: E402
    DataSet,
    DataSetError,
    at_working_size,
    choose_groups,
    read_data_set,
    set_aside,
    studies_with,
)
from benchmarks.efficiency import ALL, best_variant, goal_of, show, summarise  # noqa: E402
from benchmarks.experiment import (  # noqa: E402
    Budget,
    changed,
    mean_of,
    options_of,
    plan_experiment,
    quiet,
    record_of,
    run,
    settings_of,
)
from benchmarks.metrics import low_contrast_ids  # noqa: E402
from rich.console import Console  # noqa: E402

from lib.core.cases import Record  # noqa: E402
from lib.core.methods import METHODS, marked, method_class  # noqa: E402
from lib.core.spec import SpecError, TaskSpec  # noqa: E402
from lib.progressbar import progress  # noqa: E402

_DEVELOPMENT_SHARE = 0.1


@dataclass(frozen=True)
class Cell:
    """One training: `labels` is a number of patients or "all", `arm` a method or the name of a variant of LoCo."""

    labels: str
    arm: str
    seed: int

    @property
    def key(self) -> str:
        """Its name in the result file."""
        return f"{self.labels}/{self.arm}/{self.seed}"


def cells_of(labels: Sequence[str], arms: Sequence[str], seeds: int, ceiling: bool) -> Iterator[Cell]:
    """Seed by seed across the arms, so that a part of the cells is already a fair comparison; the ceiling last."""
    for seed in range(seeds):
        for count in labels:
            yield from (Cell(count, arm, seed) for arm in arms)
    if ceiling:
        yield from (Cell(ALL, "supervised", seed) for seed in range(seeds))


def spec_of(shared: TaskSpec, cell: Cell, ablate: bool) -> TaskSpec:
    """The shared specification with method, variant and seed of a cell."""
    method = "loco" if ablate and cell.labels != ALL else cell.arm
    spec = replace(
        shared,
        method=replace(shared.method, name=method),
        training=replace(shared.training, seed=cell.seed),
    )
    return changed(spec, ABLATIONS[cell.arm]) if ablate else spec


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with pool and val")
    parser.add_argument("--labels", default="20,40,80", help="labelled patients, separated by commas")
    parser.add_argument("--methods", default="supervised,mean_teacher,fixmatch,loco", help="names, or all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=300, help="optimiser steps of each training")
    parser.add_argument("--batch", type=int, default=4, help="labelled images per step, and as many unlabelled ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--full", action="store_true", help="size and network that the app uses on a GPU")
    parser.add_argument("--no-ceiling", action="store_true", help="leave out the training with all labels")
    parser.add_argument("--ablate", action="store_true", help="variants of LoCo on a development part of the pool")
    parser.add_argument("--variants", help="with --ablate: some of the variants, separated by semicolons")
    parser.add_argument("--part", type=part_of, default=(0, 1), help="1/2: every second cell; another process does 2/2")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "loco-frames")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


def arms_of(options: argparse.Namespace) -> list[str]:
    """Methods or variants to train. Raises `SpecError` on an unknown one."""
    if options.ablate:
        arms = options.variants.split(";") if options.variants else list(ABLATIONS)
        unknown = [a for a in arms if a not in ABLATIONS]
        if unknown:
            raise SpecError(
                f"expected variants among {', '.join(ABLATIONS)}, but got {unknown[0]!r}; choose one of them"
            )
        return arms
    names = list(METHODS) if options.methods == ALL else options.methods.split(",")
    return [method_class(name).name for name in names]


def without_unfit(arms: Sequence[str], shared: TaskSpec, pool: Sequence[Record]) -> tuple[list[str], list[str]]:
    """The methods that can work on these images and labels, and for each of the others the sentence that says what it needs."""
    fitting, refusals = [], []
    for arm in arms:
        try:
            method_class(arm).check(replace(shared, method=replace(shared.method, name=arm)), pool)
            fitting.append(arm)
        except SpecError as e:
            refusals.append(str(e))
    return fitting, refusals


def train_cells(options: argparse.Namespace, data: DataSet, shared: TaskSpec, results: CellFile) -> DataSet:
    """Run the cells that are not there yet; the data set whose `val` they were measured on."""
    pool, val = data.pool, data.val
    if options.ablate:
        pool, val = set_aside(pool, _DEVELOPMENT_SHARE)
    pool = at_working_size(pool, shared.data, shared.network.classes, options.cache / data.name)
    everybody = {r.group for r in pool}
    ceiling = not (options.no_ceiling or options.ablate)
    arms = arms_of(options)
    if not options.ablate:
        arms, refusals = without_unfit(arms, shared, pool)
        if refusals and options.methods != ALL:
            raise SpecError(refusals[0])
        print(*(f"Left out: {refusal}" for refusal in refusals), sep="\n", end="\n" * bool(refusals), flush=True)
    cells = cells_of(options.labels.split(","), arms, options.seeds, ceiling)
    part, parts = options.part
    wanted = list(cells)[part::parts]
    for cell in wanted:
        results.check(cell.key, options_of(spec_of(shared, cell, options.ablate)))
    missing = [cell for cell in wanted if cell.key not in results.cells]
    steps = sum(spec_of(shared, cell, options.ablate).training.iterations for cell in missing)
    with progress(f"Steps of {len(missing)} trainings", steps) as advance:
        for cell in missing:
            labelled = everybody if cell.labels == ALL else choose_groups(pool, int(cell.labels), cell.seed)
            spec = spec_of(shared, cell, options.ablate)
            outcome = run(spec, pool, studies_with(pool, labelled), val, options.device, advance)
            results.add(cell.key, record_of(outcome, options_of(spec)))
            dice = [100 * mean_of(results.cells[cell.key], part, "dice") for part in ("teacher", "student")]
            named = f"{cell.labels} labels, {marked(cell.arm)}, seed {cell.seed}"
            print(f"{named}: Dice {dice[0]:.1f} (student {dice[1]:.1f}), {outcome.seconds:.0f} s", flush=True)
    return replace(data, pool=pool, val=val)


def main(arguments: Sequence[str]) -> int:
    """Train what is missing, print, plot, write; the exit status."""
    options = arguments_of(arguments)
    torch.set_num_threads(options.threads)
    quiet()
    budget = Budget(options.iterations, options.batch, options.full)
    name = f"label_efficiency_{options.data.name}{'_ablation' if options.ablate else ''}"
    try:
        data = read_data_set(options.data)
        shared = plan_experiment(data, budget)
        settings = {"data": data.name, **asdict(budget), "device": options.device, "spec": settings_of(shared)}
        results = CellFile(name, settings, options.out)
        used = train_cells(options, data, shared, results)
    except (DataSetError, SettingsError, SpecError) as e:
        print(e, file=sys.stderr)
        return 2
    rows = summarise(results.cells, low_contrast_ids(used.val, shared), [*METHODS, *ABLATIONS])
    met, line = goal_of(data.name, rows) if not options.ablate else (True, best_variant(rows))
    results.write({"rows": rows, "line": line, "goal_met": met})
    shown = [{**row, "arm": marked(row["arm"])} for row in rows]
    plots.label_efficiency(shown, data.name, results.path.with_suffix(".png"))
    if options.out == report.RESULTS:
        tables.main()
    show(Console(width=130), rows)
    print(line)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
