"""How far a long command is: a bar in a terminal, elsewhere a plain line every few seconds; both with rate and time left.

    for case in track(cases, "Reading cases"):
        ...

    with progress("Exporting", total=4) as advance:
        ...
        advance()

Neither is seen for what is done at once. Both are written to the standard error, so that what a command prints can be piped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

LINE_EVERY_S = 5.0
"""Seconds between two plain lines."""
BAR_AFTER_S = 1.0
"""A bar appears when a command takes longer than this."""

Item = TypeVar("Item")
Advance = Callable[..., None]
"""`advance(count=1)`: so many more are done."""


def track(
    items: Iterable[Item],
    what: str,
    total: int | None = None,
    console: Console | None = None,
    say: Callable[[str], object] | None = None,
) -> Iterator[Item]:
    """The items one after the other, counted as done when the next one is asked for; see `progress`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(what, total, console, say) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def progress(
    what: str, total: int | None, console: Console | None = None, say: Callable[[str], object] | None = None
) -> Iterator[Advance]:
    """Show how far the block is.

    Args:
        what: words before the numbers.
        total: how many there are; None when it is not known, then there is no time left.
        console: where to draw; by default the standard error. The one that the block prints on, if it does.
        say: takes the plain lines instead of the console; for a server its log.

    Returns:
        A function to call when one, or `count`, more are done.
    """
    console = console or Console(stderr=True)
    shown = _Bar(what, total, console) if console.is_terminal else _Lines(what, total, say or _printed_on(console))
    try:
        yield shown.advance
    except BaseException:
        shown.close(whole=False)
        raise
    shown.close(whole=True)


def pace(done: float, total: float | None, seconds: float) -> str:
    """Rate, and the time that is left at this rate.

    >>> pace(30, 120, 10), pace(1, 3, 90), pace(7, None, 2), pace(0, 5, 3)
    ('3.0 per s, 30 s left', '40.0 per h, 3 min 0 s left', '3.5 per s', 'just begun')
    """
    if not done or seconds <= 0:
        return "just begun"
    rate = done / seconds
    per, unit = next(((rate * s, u) for s, u in ((1, "s"), (60, "min")) if rate * s >= 1), (rate * 3600, "h"))
    text = f"{per:.1f} per {unit}"
    return text if total is None else f"{text}, {duration((total - done) / rate)} left"


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(12.4), duration(185), duration(7500)
    ('12 s', '3 min 5 s', '2 h 5 min')
    """
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


class _Lines:
    """Plain lines for logs and pipes."""

    def __init__(self, what: str, total: int | None, say: Callable[[str], object]) -> None:
        self._what, self._total, self._say = what, total, say
        self._done, self._began = 0, monotonic()
        self._last = self._began

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = monotonic()
        if now - self._last >= LINE_EVERY_S and self._done != self._total:
            self._last = now
            self._say(f"{self._count()}, {pace(self._done, self._total, now - self._began)}")

    def close(self, whole: bool) -> None:
        """Who saw lines, or waited long enough for one, sees the end too."""
        seconds = monotonic() - self._began
        if whole and seconds >= LINE_EVERY_S:
            self._say(f"{self._count()}, {pace(self._done, None, seconds)}, done in {duration(seconds)}")

    def _count(self) -> str:
        return f"{self._what}: {self._done}" if self._total is None else f"{self._what}: {self._done} of {self._total}"


class _Bar:
    """A bar that goes away when it is done."""

    def __init__(self, what: str, total: int | None, console: Console) -> None:
        self._began = monotonic()
        count = "{task.completed:.0f} of {task.total:.0f}" if total is not None else "{task.completed:.0f}"
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn(count),
            _PaceColumn(),
            console=console,
            transient=True,
            get_time=monotonic,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task(what, total=total)
        self._started = False

    def advance(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)
        if not self._started and monotonic() - self._began >= BAR_AFTER_S:
            self._started = True
            self._bar.start()

    def close(self, whole: bool) -> None:
        if self._started:
            self._bar.stop()


class _PaceColumn(ProgressColumn):
    """Rate and time left of a bar."""

    def render(self, task: Task) -> Text:
        """As text."""
        return Text(pace(task.completed, task.total, task.elapsed or 0.0))


def _printed_on(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
