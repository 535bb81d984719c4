"""Does the server keep answering? Eight annotators loop next sample, infer, submit; a training runs; `GET /info/` is timed.

    python benchmarks/load.py [--minutes 5] [--annotators 8] [--infers 1000] [--no-stock]

The same load goes to a stock MONAI Label server with a toy app that marks bright pixels and a toy training, which is less work
than this app's networks. Goals: p95 of `GET /info/` at most 200 ms, no request failed, memory flat over 1,000 inferences.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "apps" / "loco")]

from benchmarks.report import write  # noqa: E402
from tests.server import Server  # noqa: E402
from tests.studies import write_frames  # noqa: E402

from lib.progressbar import track  # noqa: E402

GOAL_P95_MS = 200.0
GOAL_GROWTH_MB = 100.0
_STUDIES = 400
_TIMEOUT_S = 120


@dataclass
class Seen:
    """Answers of one server."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    training: list[bool] = field(default_factory=list)
    """At each look, whether a training was running."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, name: str, method: str, url: str, **body: Any) -> requests.Response | None:
        """One timed request; anything but 200 is a failure."""
        started = time.perf_counter()
        try:
            answer = requests.request(method, url, timeout=_TIMEOUT_S, **body)
            failure = None if answer.status_code == 200 else f"{name}: {answer.status_code} {answer.text[:200]}"
        except requests.RequestException as e:
            answer, failure = None, f"{name}: {type(e).__name__}"
        with self.lock:
            self.seconds.setdefault(name, []).append(time.perf_counter() - started)
            if failure:
                self.failures.append(failure)
        return None if failure else answer


def annotate(server: Server, model: str, client: str, truth: Path, seen: Seen, until: float) -> None:
    """One annotator: next sample, segment it, submit its truth, until the time is over; when all is labelled, again."""
    rng = random.Random(client)
    everything = sorted(p.stem for p in truth.glob("*.png"))
    while time.monotonic() < until:
        answer = seen.ask("next sample", "POST", f"{server.url}/activelearning/random", json={"client_id": client})
        image = ((answer.json() or {}).get("id") if answer is not None else None) or rng.choice(everything)
        params = {"params": json.dumps({"client_id": client, "result_extension": ".nii.gz"})}
        seen.ask("infer", "POST", f"{server.url}/infer/{model}?image={image}&output=image", data=params)
        with (truth / f"{image}.png").open("rb") as file:
            body = {"files": {"label": (f"{image}.png", file)}, "data": params}
            seen.ask("submit", "PUT", f"{server.url}/datastore/label?image={image}", **body)


def watch(server: Server, seen: Seen, until: float) -> None:
    """Ask for the information twice a second."""
    while time.monotonic() < until:
        seen.ask("info", "GET", f"{server.url}/info/")
        time.sleep(0.5)


def keep_training(server: Server, model: str, options: dict[str, Any], seen: Seen, until: float) -> None:
    """Start a training whenever none runs; note whether one did."""
    while time.monotonic() < until:
        running = requests.get(f"{server.url}/train/?check_if_running=true", timeout=_TIMEOUT_S).status_code == 200
        seen.training.append(running)
        if not running:
            requests.post(f"{server.url}/train/{model}", json=options, timeout=_TIMEOUT_S)
        time.sleep(2)


def under_load(server: Server, model: str, truth: Path, annotators: int, minutes: float, train: dict[str, Any]) -> Seen:
    """All of them at once."""
    seen = Seen()
    until = time.monotonic() + 60 * minutes
    work = [
        threading.Thread(target=annotate, args=(server, model, f"a{n}", truth, seen, until)) for n in range(annotators)
    ]
    work += [
        threading.Thread(target=watch, args=(server, seen, until)),
        threading.Thread(target=keep_training, args=(server, model, train, seen, until)),
    ]
    for thread in work:
        thread.start()
    for _ in track(range(round(60 * minutes)), "Seconds under load"):
        time.sleep(1)
    for thread in work:
        thread.join()
    return seen


def memory_of(server: Server, model: str, images: list[str], infers: int) -> list[int]:
    """Resident memory of the server in MB after each tenth of the inferences."""
    process = psutil.Process(server.process.pid)
    seen = []
    for number in track(range(infers), "Inferences"):
        url = f"{server.url}/infer/{model}?image={images[number % len(images)]}&output=json"
        requests.post(url, timeout=_TIMEOUT_S).raise_for_status()
        if (number + 1) * 10 // infers > number * 10 // infers:
            seen.append(round(process.memory_info().rss / 2**20))
    return seen


def summary(seen: Seen) -> dict[str, Any]:
    """Milliseconds by request, and what failed."""
    times = {
        name: {
            "count": len(values),
            "p50_ms": round(1000 * float(np.percentile(values, 50)), 1),
            "p95_ms": round(1000 * float(np.percentile(values, 95)), 1),
            "max_ms": round(1000 * max(values), 1),
        }
        for name, values in seen.seconds.items()
    }
    share = round(sum(seen.training) / max(1, len(seen.training)), 2)
    return {
        "requests": times,
        "training_share": share,
        "failed": len(seen.failures),
        "failures": sorted(set(seen.failures))[:10],
    }


def measure_loco(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """This app: first a model, then the load, then memory."""
    ids = write_frames(root / "studies", root / "truth", _STUDIES, size=(256, 192))
    short = {"labels": "lesion", "epochs": 1, "iterations": 4, "retrain_after": 5, "retrain_idle": 2}
    server = Server(root / "studies", root / "server.log", **short)
    try:
        server.start()
        for image in ids[:2]:
            server.submit(image, root / "truth" / f"{image}.png").raise_for_status()
        server.post("/train/frame", json={})
        server.wait_for(lambda: server.get("/loco/health").json()["live_version"], 600)
        long = {"max_epochs": 1000, "iterations_per_epoch": 20}
        seen = under_load(server, "frame", root / "truth", options.annotators, options.minutes, long)
        requests.delete(f"{server.url}/train/", timeout=_TIMEOUT_S)
        memory = memory_of(server, "frame", ids, options.infers)
        growth = memory[-1] - memory[0]
        return {**summary(seen), "rss_mb_by_tenth": memory, "growth_mb": growth, "infers": options.infers}
    finally:
        server.stop()


def measure_stock(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The stock server with the toy app of the tests under the same annotators."""
    write_frames(root / "studies", root / "truth", _STUDIES, size=(256, 192))
    server = Server(root / "studies", root / "server.log", ROOT / "tests/stock")
    try:
        server.start()
        return summary(under_load(server, "toy", root / "truth", options.annotators, options.minutes, {}))
    finally:
        server.stop()


def show(results: dict[str, dict[str, Any]]) -> None:
    """A table of all requests."""
    table = Table("server", "request", "count", "p50 ms", "p95 ms", "max ms", "failed")
    for name, result in results.items():
        for request, times in result["requests"].items():
            values = (times["count"], times["p50_ms"], times["p95_ms"], times["max_ms"], result["failed"])
            table.add_row(name, request, *map(str, values))
    Console().print(table)


def main() -> int:
    """Measure, write, print; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--infers", type=int, default=1000)
    parser.add_argument("--no-stock", action="store_true")
    options = parser.parse_args()
    results = {}
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        if not options.no_stock:
            results["stock"] = measure_stock(Path(folder) / "stock", options)
        results["loco"] = measure_loco(Path(folder) / "loco", options)
    show(results)
    own = results["loco"]
    p95 = own["requests"]["info"]["p95_ms"]
    settings = {
        "minutes": options.minutes,
        "annotators": options.annotators,
        "studies": _STUDIES,
        "infers": options.infers,
    }
    write("load_alone" if options.no_stock else "load", settings, {**results, "load_average_before": before})
    good = p95 <= GOAL_P95_MS and own["failed"] == 0 and own["growth_mb"] <= GOAL_GROWTH_MB
    print(
        f"GET /info/ p95 {p95} ms, {own['failed']} failed, {own['growth_mb']} MB more over {own['infers']} inferences"
    )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
