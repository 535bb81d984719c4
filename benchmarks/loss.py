"""How fast and how lean the contrast loss is beside the specification written down literally, and whether both agree.

    python benchmarks/loss.py [--size 0.25] [--rounds 2] [--threads 2] [--no-write]

Each implementation runs forward and backward once in a fresh process for its extra memory: the highest resident size
during the call, less the one just before. That holds the gradients which both return, as large as the projections, and
so the same addition to both; the share without them is given too. Then both are timed in turns in one process. Values
and gradients are compared.
Goal in every case: at least 25 times as fast with at most a quarter of the extra memory. Exits 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT / "tests"), str(ROOT)]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from benchmarks.peak import PeakMemory  # noqa: E402
from benchmarks.report import write  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from unit.core.reference_contrast import reference_loss  # noqa: E402

from lib.core.contrast import contrast_loss  # noqa: E402
from lib.core.spec import ContrastSpec  # noqa: E402
from lib.progressbar import track  # noqa: E402

FASTER, MEMORY_SHARE = 25.0, 0.25
VALUE_ERROR, GRADIENT_ERROR = 1e-4, 1e-2
SEED, OURS_PER_ROUND = 0, 4
SPEC = ContrastSpec()
IMPLEMENTATIONS = {"ours": contrast_loss, "reference": reference_loss}


@dataclass(frozen=True)
class Case:
    """Shapes of one comparison; `stride` is that of the projection."""

    batch: int
    channels: int
    side: int
    dims: int
    stride: int
    classes: int = 2

    def scaled(self, factor: float) -> Case:
        """Same case with the side times `factor`, kept a multiple of 8."""
        return Case(self.batch, self.channels, max(16, round(self.side * factor / 8) * 8), self.dims, self.stride)


CASES = {
    "2D, full-size projection": Case(batch=2, channels=64, side=384, dims=2, stride=1),
    "2D, projection at stride 4": Case(batch=2, channels=64, side=384, dims=2, stride=4),
    "3D, projection at stride 2": Case(batch=1, channels=32, side=96, dims=3, stride=2),
}


def smooth(generator: torch.Generator, channels: int, case: Case, cells: int) -> torch.Tensor:
    """Random field `B channels H W [D]` whose features are about side/cells pixels wide."""
    coarse = torch.randn((case.batch, channels, *(cells,) * case.dims), generator=generator)
    mode = "bilinear" if case.dims == 2 else "trilinear"
    return F.interpolate(coarse, (case.side,) * case.dims, mode=mode, align_corners=True)


def build_inputs(case: Case) -> tuple[Any, ...]:
    """Lesion-like labels (9 to 18 % foreground), an unrelated confident teacher, projections that follow the class."""
    g = torch.Generator().manual_seed(SEED)
    size = (case.side,) * case.dims
    small = (case.side // case.stride,) * case.dims
    label = (smooth(g, 1, case, 5)[:, 0] > 0.75).to(torch.uint8)
    truth = smooth(g, 1, case, 5)
    logits = 8 * torch.cat([0.75 - truth, truth - 0.75], 1) + 0.3 * torch.randn((case.batch, 2, *size), generator=g)
    ignore = torch.zeros((case.batch, *size), dtype=torch.uint8)
    ignore[0, -case.side // 8 :] = 255
    direction = torch.randn((1, case.channels, *(1,) * case.dims), generator=g)

    def projection(foreground: torch.Tensor) -> torch.Tensor:
        follows = F.interpolate(foreground, small) if case.stride > 1 else foreground
        noise = torch.randn((case.batch, case.channels, *small), generator=g)
        return noise.add_(direction * (follows - 0.5)).requires_grad_()

    return (
        projection(label[:, None].float()),
        label,
        projection((truth > 0.75).float()),
        logits,
        ignore,
        torch.full((2,), 0.9),
    )


def measure(implementation: str, case: Case, out: Path) -> None:
    """In a fresh process: extra memory of the first call; writes value and gradients to `out`."""
    inputs = build_inputs(case)
    torch.randn(64, 64) @ torch.randn(64, 64)  # loads the libraries before memory is looked at
    with PeakMemory() as memory:
        loss = IMPLEMENTATIONS[implementation](*inputs, SPEC)
        loss.backward()
    gradients = [inputs[0].grad, inputs[2].grad]
    torch.save({"loss": loss.detach(), "gradients": gradients}, out)
    print(json.dumps({"extra": memory.extra, "returned": sum(g.nbytes for g in gradients) / 2**20}))


def run_measure(implementation: str, case: str, size: float, out: Path, threads: int) -> dict[str, float]:
    """Call `measure` in a new Python process and return its figures in MB."""
    command = [sys.executable, __file__, "--measure", implementation, "--case", case, "--out", str(out)]
    command += ["--size", str(size), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def seconds_of(case: Case, rounds: int) -> dict[str, float]:
    """Median seconds of forward and backward, the two implementations in turns: ours `OURS_PER_ROUND` times a round."""
    inputs = build_inputs(case)
    contrast_loss(*inputs, SPEC).backward()
    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in track(range(rounds), "Rounds"):
        for name in ["reference", *["ours"] * OURS_PER_ROUND]:
            inputs[0].grad = inputs[2].grad = None
            started = time.perf_counter()
            IMPLEMENTATIONS[name](*inputs, SPEC).backward()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def errors(ours: Path, reference: Path) -> dict[str, float]:
    """Relative error of the value, and of the gradients as a share of their maximum."""
    a, b = torch.load(ours, weights_only=True), torch.load(reference, weights_only=True)
    gradients = [
        float((x - y).abs().max() / y.abs().max()) for x, y in zip(a["gradients"], b["gradients"], strict=True)
    ]
    return {"value": float((a["loss"] / b["loss"] - 1).abs()), "gradient": max(gradients)}


def compare(case: str, size: float, rounds: int, threads: int) -> dict[str, Any]:
    """All figures of one case."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.pt" for name in IMPLEMENTATIONS}
        memory = {name: run_measure(name, case, size, file, threads) for name, file in files.items()}
        error = errors(files["ours"], files["reference"])
    seconds = seconds_of(CASES[case].scaled(size), rounds)
    without = {name: figures["extra"] - figures["returned"] for name, figures in memory.items()}
    return {
        "seconds": seconds,
        "extra_memory_mb": {name: figures["extra"] for name, figures in memory.items()},
        "returned_gradients_mb": memory["ours"]["returned"],
        "faster": seconds["reference"] / seconds["ours"],
        "memory_share": memory["ours"]["extra"] / memory["reference"]["extra"],
        "memory_share_without_returned_gradients": without["ours"] / without["reference"],
        "error": error,
    }


def reached(figures: dict[str, Any]) -> bool:
    """Whether one case meets the goal and both implementations agree."""
    fast = figures["faster"] >= FASTER and figures["memory_share"] <= MEMORY_SHARE
    return fast and figures["error"]["value"] <= VALUE_ERROR and figures["error"]["gradient"] <= GRADIENT_ERROR


def show(console: Console, figures: dict[str, dict[str, Any]]) -> None:
    """One row per case; `no grad`: share of the memory without the returned gradients; errors of value and gradient."""
    table = Table("case", "ours s", "slow s", "faster", "ours MB", "slow MB", "share", "no grad", "error", "")
    for name, f in figures.items():
        seconds, memory, error = f["seconds"], f["extra_memory_mb"], f["error"]
        table.add_row(
            name,
            f"{seconds['ours']:.3f}",
            f"{seconds['reference']:.2f}",
            f"{f['faster']:.1f}x",
            f"{memory['ours']:.0f}",
            f"{memory['reference']:.0f}",
            f"{f['memory_share']:.2f}",
            f"{f['memory_share_without_returned_gradients']:.2f}",
            f"{error['value']:.0e}, {error['gradient']:.0e}",
            "ok" if reached(f) else "missed",
        )
    console.print(table)


def main(arguments: list[str]) -> int:
    """Compare all cases, print, write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", type=float, default=1.0, help="side of all cases times this; below 1 nothing is written"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of timing; the slow one runs once in each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both implementations")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--measure", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.measure:
        measure(options.measure, CASES[options.case].scaled(options.size), options.out)
        return 0
    figures = {name: compare(name, options.size, options.rounds, options.threads) for name in CASES}
    show(Console(width=120), figures)
    if options.size == 1 and not options.no_write:
        settings = {"seed": SEED, "rounds": options.rounds, "threads": options.threads}
        settings["cases"] = {name: asdict(case) for name, case in CASES.items()}
        settings["extra_memory"] = (
            "peak resident size in forward and backward above the inputs, returned gradients included"
        )
        write("loss", settings, figures)
    slowest = min(f["faster"] for f in figures.values())
    largest = max(f["memory_share"] for f in figures.values())
    met = all(map(reached, figures.values()))
    verdict = "met" if met else "missed"
    print(f"contrast loss: at least {slowest:.1f}x as fast, at most {largest:.2f} of the extra memory; goal {verdict}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
