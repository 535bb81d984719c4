"""Does the page stay quick with many studies?

    python benchmarks/page_scale.py --studies 10000

The real server on a folder of that many tiny frames, with scores of all, a label on every tenth, and versions. Asks each panel
again and again while labels arrive, so that nothing is answered from what was asked before, and notes time and size; then the
page itself in Chromium: it is opened, paged, searched and sorted while labels arrive, and the longest time for which it did not
react is noted (a long task, in the browser's words). Exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from benchmarks.next_sample import made_scores, study_names  # noqa: E402
from benchmarks.report import write  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from tests.browser import CHROMIUM, FLAGS  # noqa: E402
from tests.server import Server  # noqa: E402

from lib.progressbar import track  # noqa: E402
from lib.store.journal import Journal  # noqa: E402

GOALS = {"p95_ms": 500.0, "kilobytes": 100.0, "longest_task_ms": 200.0}
PANELS = {
    "summary": {},
    "learning": {},
    "queue": {"limit": 12},
    "queue, sorted": {"limit": 12, "sort": "margin", "descending": True, "offset": 4000},
    "queue, searched": {"limit": 12, "search": "video1"},
    "submissions": {"limit": 10},
    "worst": {"limit": 6},
    "models": {},
    "changes": {},
}
ROUNDS, VERSIONS, CASES = 15, 30, 60
LABELLED_EVERY, LABEL_S = 10, 2.0
_PATIENCE_MS = 60_000
_LONG_TASKS = """() => { window.long = [];
  new PerformanceObserver(list => window.long.push(...list.getEntries().map(e => e.duration)))
    .observe({ type: 'longtask', buffered: true }); }"""
_KNOWN_TASK = "setTimeout(() => { const end = performance.now() + 300; while (performance.now() < end); })"


def make_studies(folder: Path, count: int) -> list[str]:
    """That many frames of 32 x 24 pixels; returns their names."""
    folder.mkdir(parents=True)
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(folder.parent / "frame.png")
    content = (folder.parent / "frame.png").read_bytes()
    names = study_names(count)
    for name in track(names, "Writing studies"):
        (folder / f"{name}.png").write_bytes(content)
    return names


def label(journal: Journal, image: str, client: str) -> None:
    """What a submission leaves: its file and a line in the journal."""
    file = journal.path.parent / "labels" / "final" / f"{image}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ones((24, 32), np.uint8)).save(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    journal.add_submission(image, image.split("_")[0], str(file), digest, {"lesion": 1}, client, None, time.time())
    journal.release(image)


def fill(journal: Journal, names: Sequence[str]) -> list[str]:
    """Scores, labels and versions, as months of work leave them; returns the images without a label."""
    rng = np.random.default_rng(0)
    labelled = names[::LABELLED_EVERY]
    for name in track(labelled, "Labelling"):
        label(journal, name, "ann")
    for number in range(1, VERSIONS + 1):
        dice = 0.9 - 0.5 / number
        cases = {name: {"lesion": float(np.clip(rng.normal(dice, 0.1), 0, 1))} for name in labelled[:CASES]}
        details = {"reason": "not worse", "per_class": {"lesion": dice}, "cases": cases}
        run = journal.start_run("frame", "new labels", 0, 1, time.time())
        journal.update_run(run, {"labelled": 10 * number, "method": "loco"}, time.time())
        journal.finish_run(run, "done", "", time.time())
        journal.add_version("frame", "none", "0" * 64, run, dice, CASES, details, True, time.time())
    journal.put_scores("frame", VERSIONS, made_scores(list(names), 0), time.time())
    return [name for name in names if name not in set(labelled)]


@contextmanager
def labels_arriving(journal: Journal, images: Iterator[str]) -> Iterator[None]:
    """A label every few seconds, by somebody else."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(LABEL_S):
            label(journal, next(images), "ben")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ask(server: Server, journal: Journal, images: Iterator[str]) -> dict[str, dict[str, float]]:
    """Milliseconds and kilobytes of each panel; a label comes before each round."""
    taken: dict[str, list[float]] = {name: [] for name in PANELS}
    sizes: dict[str, float] = {}
    for _ in track(range(ROUNDS), "Asking"):
        label(journal, next(images), "ben")
        for name, query in PANELS.items():
            started = time.perf_counter()
            answer = server.get(f"/loco/page/{name.split(',')[0]}", params=query)
            taken[name].append(1e3 * (time.perf_counter() - started))
            answer.raise_for_status()
            sizes[name] = len(answer.content) / 1e3
    return {
        name: {
            "median_ms": round(float(np.median(t)), 1),
            "p95_ms": round(float(np.percentile(t, 95)), 1),
            "kilobytes": round(sizes[name], 1),
        }
        for name, t in taken.items()
    }


def look(server: Server) -> dict[str, float]:
    """Work with the page in Chromium: seconds until it is filled, and the longest time for which it did not react."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(_PATIENCE_MS)
        page.add_init_script(f"({_LONG_TASKS})()")
        started = time.perf_counter()
        page.goto(f"{server.url}/loco/")
        expect(page.locator("#connection")).to_have_text("Live", timeout=_PATIENCE_MS)
        filled = time.perf_counter() - started
        cards = page.locator("#next .study")
        for _ in range(5):
            shown = cards.first.get_attribute("data-key")
            page.locator("#next [data-part=following]").click()
            expect(cards.first).not_to_have_attribute("data-key", shown, timeout=_PATIENCE_MS)
        page.locator("#next [data-part=sort]").select_option("margin")
        page.locator("#next [data-part=search]").fill("video1999")
        expect(cards.first).to_contain_text("video1999", timeout=_PATIENCE_MS)
        page.mouse.wheel(0, 20_000)
        before = page.locator("#progress [data-kind=labelled] b").inner_text()
        for _ in range(3):
            expect(page.locator("#progress [data-kind=labelled] b")).not_to_have_text(before, timeout=_PATIENCE_MS)
            before = page.locator("#progress [data-kind=labelled] b").inner_text()
        longest = page.evaluate("Math.max(0, ...window.long)")
        page.evaluate(_KNOWN_TASK)
        page.wait_for_function("Math.max(0, ...window.long) >= 300", timeout=_PATIENCE_MS)  # so the clock does run
        browser.close()
    return {"filled_s": round(filled, 2), "longest_task_ms": round(longest, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=10_000)
    count = parser.parse_args(arguments).studies
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = make_studies(folder / "studies", count)
        journal = Journal(folder / "studies" / "loco.sqlite")
        waiting = iter(reversed(fill(journal, names)))
        server = Server(folder / "studies", folder / "log", labels="lesion", auto_retrain="false").start()
        try:
            server.wait_for(lambda: server.get("/loco/page/queue").json()["version"] == VERSIONS)
            panels = ask(server, journal, waiting)
            with labels_arriving(journal, waiting):
                page = look(server)
        finally:
            server.stop()
    missed = [
        *(f"{n}: {p[k]} {k}" for n, p in panels.items() for k in ("p95_ms", "kilobytes") if p[k] > GOALS[k]),
        *([f"{page['longest_task_ms']} longest_task_ms"] if page["longest_task_ms"] > GOALS["longest_task_ms"] else []),
    ]
    _print(panels, page, count)
    write(
        "page", {"studies": count, "rounds": ROUNDS}, {"panels": panels, "page": page, "goals": GOALS, "missed": missed}
    )
    print("Missed: " + "; ".join(missed) if missed else "Every goal was met.")
    return 1 if missed else 0


def _print(panels: dict[str, dict[str, float]], page: dict[str, float], count: int) -> None:
    table = Table(title=f"The page over {count} studies")
    for name in ("panel", "median ms", "p95 ms", "kB"):
        table.add_column(name, justify="left" if name == "panel" else "right")
    for name, figures in panels.items():
        table.add_row(name, *(f"{value}" for value in figures.values()))
    console = Console()
    console.print(table)
    console.print(f"In Chromium: filled in {page['filled_s']} s, longest pause {page['longest_task_ms']} ms")


if __name__ == "__main__":
    sys.exit(main())
