"""Memory and pace of training on many studies: 300 and 3,000 generated frames, 500 generated volumes.

    python benchmarks/memory.py [--frames 300 3000] [--volumes 500] [--iterations 8] [--repeats 2] [--no-write]

Each training is the app's own, in a process of its own: the studies are listed, the run planned, some steps done, the
teacher validated and published. Its peak is the largest resident size of it and its children together, sampled, or the
kernel's own figure for it if that is larger. Trainings on few and on many frames take turns, so that a machine that is
slow for a while is slow for both. The first run on a folder fills the cache, the second reads it.

Goal: a peak below 4 GB everywhere, and a sample of the many frames takes at most 1.2 times as long as one of the few.
Exits 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from lib.progressbar import track  # noqa: E402

PEAK_GB, FLAT = 4.0, 1.2
LABELLED = 0.05
"""Share of the studies that have a label."""
FRAME_SIZE = (640, 480)
VOLUME_SHAPE, VOLUME_SPACING = (112, 112, 72), (1.0, 1.0, 1.2)
DIFFERENT = 20
"""Studies that are drawn; the others are copies of them, files of their own all the same."""
WARM_UP = 2
"""Steps at the start of a run that are not timed."""
SEED = 0


def write_frames(folder: Path, count: int) -> None:
    """JPEG frames of 640 x 480, smooth colours with a bright blob; labels of a share of them where the app finds them."""
    rng = np.random.default_rng(SEED)
    labels = folder / "labels" / "final"
    labels.mkdir(parents=True)
    x, y = np.meshgrid(np.arange(FRAME_SIZE[0]), np.arange(FRAME_SIZE[1]))
    for number in range(min(count, DIFFERENT)):
        cx, cy, radius = rng.uniform(150, 490), rng.uniform(150, 330), rng.uniform(40, 90)
        blob = (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
        coarse = rng.integers(60, 160, (12, 16, 3), dtype=np.uint8)
        colours = np.asarray(Image.fromarray(coarse).resize(FRAME_SIZE, Image.Resampling.BICUBIC)).copy()
        colours[blob] += 60
        Image.fromarray(colours).save(folder / f"frame_{number:05d}.jpg", quality=90)
        Image.fromarray(blob.astype(np.uint8)).save(labels / f"frame_{number:05d}.png")
    multiply(folder, labels, "frame_{:05d}", (".jpg", ".png"), count)


def write_volumes(folder: Path, count: int) -> None:
    """NIfTI volumes of 112 x 112 x 72 voxels, noise with a bright ball."""
    rng = np.random.default_rng(SEED)
    labels = folder / "labels" / "final"
    labels.mkdir(parents=True)
    grid = np.meshgrid(*[np.arange(n) for n in VOLUME_SHAPE], indexing="ij")
    noise = rng.normal(100, 10, VOLUME_SHAPE)
    affine = np.diag([*VOLUME_SPACING, 1.0])
    for number in range(min(count, DIFFERENT)):
        centre = [rng.uniform(0.35, 0.65) * n for n in VOLUME_SHAPE]
        ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= rng.uniform(8, 16) ** 2
        nib.save(nib.Nifti1Image((noise + 80 * ball).astype(np.int16), affine), folder / f"patient{number:05d}.nii")
        nib.save(nib.Nifti1Image(ball.astype(np.uint8), affine), labels / f"patient{number:05d}.nii")
    multiply(folder, labels, "patient{:05d}", (".nii", ".nii"), count)


def multiply(folder: Path, labels: Path, name: str, suffixes: tuple[str, str], count: int) -> None:
    """Copies of the first `DIFFERENT` studies under other names up to `count`; labels of the first `LABELLED` of all."""
    image, label = suffixes
    for number in range(DIFFERENT, count):
        shutil.copyfile(folder / (name.format(number % DIFFERENT) + image), folder / (name.format(number) + image))
    wanted = min(count, max(4, int(LABELLED * count)))
    for number in range(DIFFERENT, wanted):
        shutil.copyfile(labels / (name.format(number % DIFFERENT) + label), labels / (name.format(number) + label))
    for number in range(wanted, min(count, DIFFERENT)):
        (labels / (name.format(number) + label)).unlink()


def train(app_dir: Path, studies: Path, iterations: int, out: Path) -> None:
    """One training by the app; writes when each step ended and how long listing and planning took."""
    from ignite.engine import Events
    from monailabel.interfaces.utils.app import app_instance

    ends: list[float] = []
    start = time.perf_counter()
    conf = {"labels": "lesion", "epochs": "1", "iterations": str(iterations)}
    app = app_instance(app_dir=str(app_dir), studies=str(studies), conf=conf)
    listed = time.perf_counter() - start
    (name,) = app.info()["trainers"]
    task = app._trainers[name]
    finalize = task.finalize

    def timed(context: Any) -> None:
        finalize(context)
        context.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: ends.append(time.perf_counter()))

    task.finalize = timed
    app.train({"model": name, "pretrained": False})
    stats = app.info()["train_stats"][name]
    batch = app.info()["trainers"][name]["config"]
    images = batch["train_batch_size"] + batch["unlabeled_batch_size"]
    steps = np.diff(ends[WARM_UP:]) / images
    result = {"seconds_per_sample": steps.tolist(), "listing_s": listed, "status": stats["status"]}
    out.write_text(json.dumps({**result, **{k: stats[k] for k in ("labelled", "unlabelled", "validation")}}))


def measure(app_dir: Path, studies: Path, iterations: int) -> dict[str, Any]:
    """Run `train` in a process of its own; its figures and the peak of its memory in GB."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "out.json", Path(folder) / "log.txt"
        command = [sys.executable, __file__, "--train", str(studies), "--app", str(app_dir), "--out", str(out)]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--iterations", str(iterations)],
                stdout=file, stderr=file, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            )  # fmt: skip
        sampled = 0
        while True:
            pid, _, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            sampled = max(sampled, resident(process.pid))
            time.sleep(0.1)
        if not out.exists():
            raise RuntimeError(f"expected the training to end, but it failed:\n{log.read_text()[-3000:]}")
        peak = max(sampled, usage.ru_maxrss * 1024) / 1e9
        return {**json.loads(out.read_text()), "peak_gb": peak}


def resident(pid: int) -> int:
    """Resident bytes of a process and its children."""
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def loading(folder: Path) -> dict[str, float]:
    """Milliseconds to decode and scale a frame, and to read the same from the cache."""
    from lib.core.cache import CaseCache, CaseStore
    from lib.core.cases import Record
    from lib.core.spec import DataSpec

    data = DataSpec("frame", (256, 256), 256)
    paths = sorted(folder.glob("*.jpg"))[:30]
    records = [Record(p.stem, str(p), None, p.stem) for p in paths]
    with tempfile.TemporaryDirectory() as cache:
        stores: dict[str, Callable] = {
            "decoded": CaseStore(data, 2, None),
            "cached": CaseStore(data, 2, CaseCache(cache, 10**9)),
        }
        milliseconds: dict[str, list[float]] = {name: [] for name in stores}
        for lap in range(3):
            for record in records:
                for name, store in stores.items():
                    start = time.perf_counter()
                    store(record)
                    if lap:
                        milliseconds[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in milliseconds.items()}


def run(options: argparse.Namespace, root: Path, console: Console) -> dict[str, Any]:
    """Generate the studies, train on them in turns, and gather the figures by kind and number of studies."""
    sets = {f"{n} frames": (write_frames, n, options.repeats) for n in options.frames}
    sets[f"{options.volumes} volumes"] = (write_volumes, options.volumes, 1)
    figures: dict[str, Any] = {}
    for name, (write, count, _) in sets.items():
        start = time.perf_counter()
        (root / name).mkdir()
        write(root / name, count)
        shutil.copytree(
            ROOT / "apps/loco", root / f"{name} app", ignore=shutil.ignore_patterns("model", "logs", "__pycache__")
        )
        console.print(f"{name}: generated in {time.perf_counter() - start:.0f} s")
    turns = [(turn, name) for turn in range(options.repeats) for name in sets if turn < sets[name][2]]
    for turn, name in track(turns, "Trainings", console=console):
        result = measure(root / f"{name} app", root / name, options.iterations)
        console.print(f"{name}, run {turn + 1}: peak {result['peak_gb']:.2f} GB")
        figures.setdefault(name, []).append(result)
    figures["loading_ms"] = loading(root / f"{options.frames[0]} frames")
    return figures


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Peak over all runs of one set, median step per sample, listing."""
    return {
        "peak_gb": max(r["peak_gb"] for r in runs),
        "seconds_per_sample": statistics.median(s for r in runs for s in r["seconds_per_sample"]),
        "listing_s": min(r["listing_s"] for r in runs),
    }


def main(arguments: list[str]) -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs=2, default=[300, 3000], metavar=("FEW", "MANY"))
    parser.add_argument("--volumes", type=int, default=500)
    parser.add_argument("--iterations", type=int, default=8, help="steps of each training")
    parser.add_argument("--repeats", type=int, default=2, help="trainings on each set of frames")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--app", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.app, options.train, options.iterations, options.out)
        return 0
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="loco-memory-") as folder:
        figures = run(options, Path(folder), console)
    few, many = (f"{n} frames" for n in options.frames)
    totals = {name: summary(runs) for name, runs in figures.items() if name != "loading_ms"}
    table = Table("studies", "peak GB", "s per sample", "listing and planning s")
    for name, total in totals.items():
        table.add_row(name, *(f"{total[k]:.2f}" for k in ("peak_gb", "seconds_per_sample", "listing_s")))
    console.print(table)
    peak = max(total["peak_gb"] for total in totals.values())
    ratio = totals[many]["seconds_per_sample"] / totals[few]["seconds_per_sample"]
    load = figures["loading_ms"]
    console.print(f"a frame of {FRAME_SIZE}: {load['decoded']:.1f} ms decoded, {load['cached']:.1f} ms from the cache")
    met = peak < PEAK_GB and ratio <= FLAT
    if not options.no_write:
        from benchmarks.report import write

        settings = {"seed": SEED, "frames": options.frames, "volumes": options.volumes, "labelled": LABELLED}
        settings |= {"iterations": options.iterations, "repeats": options.repeats, "frame": FRAME_SIZE}
        settings |= {"volume": VOLUME_SHAPE, "goal": {"peak_gb": PEAK_GB, "ratio": FLAT}}
        write("memory", settings, {"summary": totals, "ratio": ratio, "loading_ms": load, "runs": figures})
    print(
        f"memory: peak {peak:.2f} GB, a sample of {many} takes {ratio:.2f} times one of {few}; "
        f"goal {'met' if met else 'missed'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
