import io

import pytest
from benchmarks import show as module
from benchmarks.events import Measuring, Training
from benchmarks.show import Show
from rich.console import Console


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 50.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def shown(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    return Show(console), console.file


def test_without_a_terminal_a_line_every_few_seconds(clock):
    show, out = shown(terminal=False)
    for step in (4, 7, 10, 13, 30):
        show(Training(1, step, 30, {"loss_sup": 0.5}))
        clock.now += 3
    show(Measuring(0, 8))
    clock.now += 4
    show(Measuring(8, 8))
    assert out.getvalue().splitlines() == [
        "     training: step 10 of 30: 1.0 per s, 20 s left; loss sup 0.500",
        "     training: step 30 of 30: 2.2 per s, 0 s left; loss sup 0.500",
        "     held-out images segmented through REST, 8 of 8, 2.0 per s, 0 s left",
    ]


def test_in_a_terminal_a_bar_with_rate_and_time_left(clock):
    show, out = shown(terminal=True)
    show(Training(1, 10, 30, {}))
    clock.now += 10
    show(Training(1, 20, 30, {}))
    show.stop()
    assert "training: step 20 of 30" in out.getvalue()
    assert "1.0 per s, 10 s left" in out.getvalue()
