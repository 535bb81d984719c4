import io
import logging

import pytest
from rich.console import Console

from lib import progressbar as module
from lib.progressbar import duration, pace, progress, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def slowly(items, clock, seconds):
    """Go through the items and take `seconds` for each."""
    for _ in items:
        clock.now += seconds


def test_without_a_terminal_a_line_every_few_seconds_tells_rate_and_time_left(clock):
    out = console(terminal=False)
    slowly(track(range(12), "Reading", console=out), clock, 1.25)
    assert out.file.getvalue().splitlines() == [
        "Reading: 4 of 12, 48.0 per min, 10 s left",
        "Reading: 8 of 12, 48.0 per min, 5 s left",
        "Reading: 12 of 12, 48.0 per min, done in 15 s",
    ]


def test_what_takes_long_before_it_is_handed_over_counts_as_well(clock):
    """As pre-labelling does: the work is in the source, not in the loop."""

    def worked():
        for item in range(3):
            clock.now += 10
            yield item

    out = console(terminal=False)
    assert list(track(worked(), "Pre-labelling", 3, out)) == [0, 1, 2]
    assert out.file.getvalue().splitlines() == [
        "Pre-labelling: 1 of 3, 6.0 per min, 20 s left",
        "Pre-labelling: 2 of 3, 6.0 per min, 10 s left",
        "Pre-labelling: 3 of 3, 6.0 per min, done in 30 s",
    ]


def test_what_is_done_at_once_is_not_shown(clock):
    for terminal in (False, True):
        out = console(terminal)
        assert list(track(range(1000), "Reading", console=out)) == list(range(1000))
        assert out.file.getvalue() == ""


def test_without_a_known_total_there_is_no_time_left(clock):
    out = console(terminal=False)
    slowly(track(iter(range(4)), "Reading", console=out), clock, 3.0)
    assert out.file.getvalue().splitlines() == [
        "Reading: 2, 20.0 per min",
        "Reading: 4, 20.0 per min",
        "Reading: 4, 20.0 per min, done in 12 s",
    ]


def test_in_a_terminal_a_bar_tells_them_and_goes_away(clock):
    out = console(terminal=True)
    with progress("Training steps", 200, out) as advance:
        clock.now += 30
        advance(50)
        drawn = out.file.getvalue()
    assert "Training steps" in drawn
    assert "50 of 200" in drawn
    assert "1.7 per s, 1 min 30 s left" in drawn
    assert out.file.getvalue().endswith("\x1b[2K"), "the line of the bar is wiped"


def test_a_server_writes_the_lines_to_its_log(clock, caplog):
    with caplog.at_level(logging.INFO):
        say = logging.getLogger("lib.x").info
        slowly(track(range(2), "Reading DICOM headers", console=console(False), say=say), clock, 6.0)
    assert [r.getMessage() for r in caplog.records] == [
        "Reading DICOM headers: 1 of 2, 10.0 per min, 6 s left",
        "Reading DICOM headers: 2 of 2, 10.0 per min, done in 12 s",
    ]


def test_a_failure_is_passed_on_and_never_called_done(clock):
    for terminal in (False, True):
        out = console(terminal)
        with pytest.raises(OSError, match="gone"):
            slowly_failing(out, clock)
        assert "done" not in out.file.getvalue()


def slowly_failing(out, clock):
    with progress("Exporting", 3, out) as advance:
        clock.now += 60
        advance()
        raise OSError("gone")


def test_stopping_early_ends_the_bar(clock):
    out = console(terminal=True)
    for item in track(range(100), "Reading", console=out):
        clock.now += 2
        if item == 5:
            break
    assert "5 of 100" in out.file.getvalue()
    assert out.file.getvalue().endswith("\x1b[2K"), "the line of the bar is wiped"


@pytest.mark.parametrize(
    ("done", "total", "seconds", "words"),
    [
        (0, 10, 5, "just begun"),
        (1, 10, 0, "just begun"),
        (30, 120, 10, "3.0 per s, 30 s left"),
        (1, 3, 90, "40.0 per h, 3 min 0 s left"),
        (10, 10, 10, "1.0 per s, 0 s left"),
        (12, 10, 10, "1.2 per s, 0 s left"),
        (7, None, 2, "3.5 per s"),
    ],
)
def test_pace(done, total, seconds, words):
    assert pace(done, total, seconds) == words


def test_durations():
    assert [duration(s) for s in (-1, 12.4, 59.6, 185, 7500)] == ["0 s", "12 s", "1 min 0 s", "3 min 5 s", "2 h 5 min"]
