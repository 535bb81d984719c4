"""What LoCo's training step costs beside forward and backward of the bare network on the same three batches.

    python benchmarks/train_step.py [--data DIR] [--kinds frame,volume] [--steps 8] [--threads 2] [--no-write]

The app's own training task runs on a few studies of DIR: its loader, engine, handlers, method, optimiser and teacher, with
its defaults for this machine; only validation and publishing are left out. After each step the bare student network does
one forward and backward on the labelled, weak and strong images of that step, so both meet the same state of the machine.

`own`: LoCo's own work without the teacher's pass: CutMix, thresholds, losses and contrast with their backward, and the
moving average, as a share of step and loop. `loop`: loader, engine and handlers, likewise.
Goal: own at most 15 % on a CPU and 10 % on a GPU, loop at most 10 %. Exits 1 when it is missed.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT)]

import torch  # noqa: E402
from benchmarks.report import write  # noqa: E402
from benchmarks.step_clock import WARM_UP, MeasuredTraining  # noqa: E402
from monailabel.datastore.local import LocalDatastore  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from lib.core.cases import PATIENT_PATTERN  # noqa: E402
from lib.core.images import read_header  # noqa: E402
from lib.core.plan import plan_task  # noqa: E402
from lib.core.spec import MethodSpec, TaskSpec  # noqa: E402
from lib.store.project import open_project  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
OWN, LOOP = {"cpu": 0.15, "cuda": 0.10}, 0.10
SEED = 0
SETS = {"frame": ("kvasir", 24), "volume": ("la", 8)}
"""Folder below DIR and number of studies, every third of them labelled."""

GROUPS = {
    "network": ("student forward", "network backward"),
    "teacher": ("teacher forward",),
    "own": (
        "CutMix", "CDF", "contrast: ICE", "contrast: BCE", "contrast: rest", "pixel losses", "losses backward",
        "rest of the method", "teacher average",
    ),
    "optimiser": ("optimiser",),
    "loop": ("loader", "engine and handlers"),
}  # fmt: skip


def specification(kind: str, images: list[Path], steps: int, cuda: bool) -> TaskSpec:
    """The app's defaults for these studies, with just as many steps."""
    spec = plan_task(kind, {"object": 1}, [read_header(str(image)) for image in images], MethodSpec(), cuda)
    training = replace(spec.training, epochs=1, iterations_per_epoch=WARM_UP + 1 + steps, seed=SEED)
    return replace(spec, training=training)


def run_kind(kind: str, data: Path, steps: int, device: str) -> dict[str, Any]:
    """All figures of one kind of model."""
    name, count = SETS[kind]
    pool = data / name / "pool"
    images = list(islice(sorted((pool / "images").iterdir()), count))
    spec = specification(kind, images, steps, device == "cuda")
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder, "studies")
        studies.mkdir()
        for image in images:
            (studies / image.name).symlink_to(image.resolve())
        datastore = LocalDatastore(str(studies), extensions=[f"*{''.join(images[0].suffixes)}"], auto_reload=False)
        for image in images[::3]:
            stem = image.name.split(".")[0]
            label = next((pool / "labels").glob(f"{stem}.*"))
            datastore.save_label(stem, str(label), "final", {})
        training = MeasuredTraining(kind, spec, open_project(folder, str(studies)), PATIENT_PATTERN, SEED)
        training.measure(datastore, device)
    return {
        "spec": asdict(spec.data) | asdict(spec.training),
        **summary(training.steps),
        "memory_mb": training.memory_mb,
    }


def summary(steps: list[dict[str, float]]) -> dict[str, Any]:
    """Median seconds of each part, and what the groups of parts make of the whole."""
    parts = {name: statistics.median(s.get(name, 0.0) for s in steps) for group in GROUPS.values() for name in group}
    groups = {group: sum(parts[name] for name in names) for group, names in GROUPS.items()}
    whole = sum(groups.values())
    bare = statistics.median(s["bare network"] for s in steps)
    return {
        "seconds": {"step and loop": whole, "bare network": bare, "parts": parts},
        "times_bare_network": whole / bare,
        "shares": {group: seconds / whole for group, seconds in groups.items()},
    }


def reached(figures: dict[str, Any], device: str) -> bool:
    """Whether one kind meets the goals."""
    return figures["shares"]["own"] <= OWN[device] and figures["shares"]["loop"] <= LOOP


def show(console: Console, kind: str, figures: dict[str, Any], device: str) -> None:
    """One row per part, then one per group."""
    seconds, memory = figures["seconds"], figures["memory_mb"]
    table = Table("part", "ms", "share", title=f"{kind}: {'goal met' if reached(figures, device) else 'goal missed'}")
    for group, names in GROUPS.items():
        for name in names:
            part = seconds["parts"][name]
            table.add_row(f"  {name}", f"{1e3 * part:.1f}", f"{part / seconds['step and loop']:.1%}")
        table.add_row(f"[bold]{group}", "", f"[bold]{figures['shares'][group]:.1%}", end_section=True)
    table.add_row("step and loop", f"{1e3 * seconds['step and loop']:.0f}", "")
    table.add_row("bare network", f"{1e3 * seconds['bare network']:.0f}", f"1 : {figures['times_bare_network']:.2f}")
    table.add_row("extra memory, MB", f"{memory['step']:.0f}", f"bare {memory['bare network']:.0f}")
    console.print(table)


def main(arguments: list[str]) -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    logging.disable(logging.INFO)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    figures = {kind: run_kind(kind, options.data, options.steps, device) for kind in options.kinds}
    console = Console(width=100)
    for kind, found in figures.items():
        show(console, kind, found, device)
    if not options.no_write:
        settings = {"seed": SEED, "steps": options.steps, "threads": options.threads, "device": device}
        write("train_step", settings, figures)
    own = max(f["shares"]["own"] for f in figures.values())
    loop = max(f["shares"]["loop"] for f in figures.values())
    met = all(reached(f, device) for f in figures.values())
    verdict = "met" if met else "missed"
    print(f"training step: LoCo's own work at most {own:.1%}, the loop at most {loop:.1%} of the time; goal {verdict}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
