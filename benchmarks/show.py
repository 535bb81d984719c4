"""What a person sees of the simulated annotator: plain lines, progress bars on a terminal, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from benchmarks.annotator import Annotator
from benchmarks.events import (
    Connected,
    Event,
    Exhausted,
    Labelled,
    Measuring,
    Picked,
    Point,
    Skipped,
    Trained,
    Training,
    TrainingFailed,
    Waiting,
)
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from lib.progressbar import LINE_EVERY_S, pace


class Show:
    """Prints events in plain words; in a terminal the training and the measuring are bars, elsewhere lines."""

    def __init__(self, console: Console, notes: Mapping[str, str] | None = None) -> None:
        """`notes`: something to add when an image is picked, by image."""
        self._console, self._notes = console, notes or {}
        self._bar: Progress | None = None
        self._task: Any = None
        self._kind = ""
        self._began, self._first, self._last = 0.0, 0, 0.0
        self._before: Point | None = None

    def __call__(self, event: Event) -> None:
        """Print one event."""
        name = type(event).__name__.lower()
        if name not in (self._kind, "skipped"):
            self.stop()
        getattr(self, f"_on_{name}")(event)

    def stop(self) -> None:
        """End a bar that is on the screen."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._kind = None, ""

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _on_connected(self, event: Connected) -> None:
        names = ", ".join(event.labels)
        self.say(f"Connected: {event.total} studies, {event.labelled} of them labelled. To outline: {names}.")

    def _on_picked(self, event: Picked) -> None:
        by = f"model version {event.model_version}" if event.model_version else "no model yet"
        note = f" [{self._notes[event.image]}]" if event.image in self._notes else ""
        self.say(f"{event.number:>3}. next image: {event.image}{note}", "bold")
        self.say(f"     why: {event.reason} ({by})")
        if event.repeated:
            self.say("     this image is labelled already and must not be served again: stopping", "red")

    def _on_labelled(self, event: Labelled) -> None:
        self.say(f"     label submitted, {event.count} so far", "green")

    def _on_skipped(self, event: Skipped) -> None:
        self.say(f"     {event.image} was left out: {event.why}", "yellow")

    def _on_waiting(self, event: Waiting) -> None:
        self.say(f"Waiting for {event.what} ...", "cyan")

    def _on_training(self, event: Training) -> None:
        terms = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in event.metrics.items())
        self._advance("training", f"training: step {event.step} of {event.total}", event.step, event.total, terms)

    def _on_trainingfailed(self, event: TrainingFailed) -> None:
        self.say(f"A training failed: {event.why}. The server tries again by itself.", "yellow")

    def _on_trained(self, event: Trained) -> None:
        state = {True: "is live", False: "is kept, the live one goes on", None: "is done"}[event.live]
        self.say(f"Trained: version {event.version} {state} after {event.seconds:.0f} s. {event.reason}", "green")

    def _on_measuring(self, event: Measuring) -> None:
        self._advance("measuring", "held-out images segmented through REST", event.done, event.total, "")

    def _on_point(self, event: Point) -> None:
        before = "no model" if self._before is None else _number(self._before.dice)
        classes = ", ".join(f"{k} {v:.3f}" for k, v in event.per_class.items()) if len(event.per_class) > 1 else ""
        after = f"{_number(event.dice)}" + (f" ± {event.spread:.3f}" if event.spread is not None else "")
        self.say(f"Dice on {event.source}: before {before}, now {after} {classes}".rstrip(), "bold green")
        self._before = event

    def _on_exhausted(self, event: Exhausted) -> None:
        self.say("Nothing is left to label: every image has a label, or somebody else holds it.")

    def _advance(self, kind: str, text: str, done: int, total: int, detail: str) -> None:
        now = monotonic()
        if self._kind != kind:
            self._kind, self._began, self._first, self._last = kind, now, done, now
        left = pace(done - self._first, total - self._first, now - self._began)
        detail = f"{left}; {detail}" if detail else left
        if not self._console.is_terminal:
            if now - self._last >= LINE_EVERY_S or done == total:
                self._last = now
                self.say(
                    f"     {text}, {done} of {total}, {detail}" if kind == "measuring" else f"     {text}: {detail}"
                )
            return
        if self._bar is None:
            columns = (TextColumn("     {task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
            self._task = self._bar.add_task(text, total=total, detail=detail)
        self._bar.update(self._task, description=text, completed=done, total=total, detail=detail)


def curve_table(curve: Sequence[Point]) -> Table:
    """The learning curve."""
    classes = list(curve[0].per_class) if curve else []
    table = Table("labels", "model version", "Dice", *classes, title=f"Dice on {curve[0].source}" if curve else None)
    for point in curve:
        dice = _number(point.dice) + (f" ± {point.spread:.3f}" if point.spread is not None else "")
        row = [_number(point.per_class.get(name)) for name in classes]
        table.add_row(str(point.labels), str(point.version or "-"), dice, *row)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def summary(annotator: Annotator, console: Console) -> None:
    """Curve, order of the images, and whether a labelled image was served again."""
    if annotator.curve:
        console.print(curve_table(annotator.curve))
    images = [picked.image for picked in annotator.served]
    console.print("Served in this order: " + (", ".join(images) or "none"), markup=False, highlight=False)
    if len(images) > 1:
        same = images == sorted(images)
        console.print(f"This is {'the same as' if same else 'not'} the alphabetical order.", markup=False)
    if annotator.repeats:
        console.print(f"A labelled image was served again: {', '.join(annotator.repeats)}", style="red", markup=False)
    elif images:
        console.print(f"No labelled image was served again ({len(images)} requests).", markup=False, highlight=False)
