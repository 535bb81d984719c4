"""What a training step of each method costs relative to plain supervision, all in one run.

    python benchmarks/method_cost.py [--rounds N] [--side N]

In each round every method makes one whole step (loss, backward, optimiser, averages) on the same random images; the ratio is the
median over rounds of ratios within a round, so that a busy machine slows both alike. Writes benchmarks/results/method_cost.json
and the table of docs/methods.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "apps" / "loco")]

import torch  # noqa: E402
from benchmarks.report import write  # noqa: E402
from benchmarks.tables import cost, fill  # noqa: E402
from rich.console import Console  # noqa: E402

from lib.core.batch import Batch, Origin  # noqa: E402
from lib.core.methods import METHODS, Method, build_method, marked, second_network  # noqa: E402
from lib.core.networks import build_network, default_network  # noqa: E402
from lib.core.spec import KINDS, DataSpec, Kind, MethodSpec, NetworkSpec, TaskSpec, TrainSpec  # noqa: E402
from lib.core.teacher import StudentTeacher  # noqa: E402
from lib.progressbar import track  # noqa: E402

TOTAL = 1000
"""Steps of the imagined run; the measured ones are its last, when every stage and ramp is over."""
CLASSES = 2


def task(kind: Kind, name: str, side: int) -> TaskSpec:
    """A small model of a kind, for two images with and two without labels."""
    volume = kind == "volume"
    patch = (max(32, 3 * side // 8),) * 3 if volume else (side, side)
    data = DataSpec(kind, patch, side, (1.0,) * 3 if volume else (1.0, 1.0))
    network = NetworkSpec(default_network(kind, cuda=False), CLASSES, 32 if volume else 64, pretrained=False)
    # PyTorch's convolutions of a single volume are slow in a way of their own, and would be half of the figures
    count = 2
    return TaskSpec({"object": 1}, data, network, MethodSpec(name), TrainSpec(1, TOTAL, count, count, 1e-2, 0.99))


def batch_of(spec: TaskSpec) -> Batch:
    """Random images with a round object in the labels."""
    generator = torch.Generator().manual_seed(0)
    count, size = spec.training.batch_labelled, spec.data.patch
    views = [torch.rand(count, spec.data.channels, *size, generator=generator) for _ in range(5)]
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    label = (sum(a**2 for a in axes) < 0.3).to(torch.uint8).expand(count, *size).contiguous()
    origin = tuple(Origin(f"p{i}", f"s{i}", i, 8) for i in range(count))
    strong, more, labelled_strong = views[2:]
    return Batch(views[0], label, views[1], strong, torch.zeros_like(label), more, labelled_strong, origin, origin)


class Run:
    """One method with its optimiser."""

    def __init__(self, spec: TaskSpec) -> None:
        torch.manual_seed(0)
        network = StudentTeacher(build_network(spec.network, spec.data.spatial_dims)).train()
        self.method: Method = build_method(network, spec.method, CLASSES, TOTAL, 0, second_network(spec))
        groups = [*network.student.parameter_groups(1e-3), *self.method.parameter_groups(1e-3)]
        self.optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
        self.step_no = TOTAL - 100

    def step(self, batch: Batch) -> float:
        """Seconds of one whole step."""
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.step(batch, self.step_no).loss.backward()
        self.optimizer.step()
        self.method.after_step(self.step_no, 0.99)
        self.step_no += 1
        return time.perf_counter() - start


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median over rounds of the ratio to `supervised` in the same round."""
    base = seconds["supervised"]
    return {n: statistics.median(s / b for s, b in zip(times, base, strict=True)) for n, times in seconds.items()}


def main(arguments: list[str]) -> int:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--side", type=int, default=128, help="of a picture in pixels; a volume has three eighths of it"
    )
    options = parser.parse_args(arguments)
    console = Console(width=120)
    figures: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        runs = {n: Run(task(kind, n, options.side)) for n, m in METHODS.items() if kind in m.kinds}
        batch = batch_of(task(kind, "supervised", options.side))
        for run in runs.values():
            run.step(batch)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        turns = [name for _ in range(options.rounds) for name in runs]
        for name in track(turns, f"Steps on a {kind}", console=console):
            seconds[name].append(runs[name].step(batch))
        figures[kind] = ratios(seconds)
        del runs
    settings = {"rounds": options.rounds, "side": options.side, "classes": CLASSES}
    write("method_cost", settings, figures)
    rows = cost(figures)
    fill("method_cost", rows)
    console.print(rows)
    costly = max((value, name, kind) for kind, found in figures.items() for name, value in found.items())
    console.print(f"the dearest step: {marked(costly[1])} on a {costly[2]}, {costly[0]:.1f} times plain supervision")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
