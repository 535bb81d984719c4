import pytest
import torch
from benchmarks import step_clock
from benchmarks.step_clock import Clock
from benchmarks.train_step import GROUPS, reached, summary


@pytest.fixture
def clock(monkeypatch):
    """A clock that ticks one second each time it is looked at."""
    ticks = iter(range(100))
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: float(next(ticks)))
    return Clock(torch.device("cpu"))


def test_a_part_does_not_count_what_is_measured_inside_it(clock):
    with clock.part("outer"):
        with clock.part("inner"):
            pass
        clock.timed("inner", lambda: None)()
    assert clock.parts == {"inner": 2.0, "outer": 3.0}


def step(**seconds):
    return {"student forward": 5.0, "network backward": 10.0, "bare network": 14.0, **seconds}


def test_shares_are_of_step_and_loop_together():
    found = summary([step(CDF=2.0, loader=3.0)] * 3)
    assert found["seconds"]["step and loop"] == 20.0
    assert found["shares"]["own"] == pytest.approx(0.1)
    assert found["shares"]["loop"] == pytest.approx(0.15)
    assert sum(found["shares"].values()) == pytest.approx(1.0)
    assert found["times_bare_network"] == pytest.approx(20 / 14)


def test_one_slow_step_does_not_count():
    found = summary([step(), step(), step(loader=100.0)])
    assert found["shares"]["loop"] == 0.0


def test_goal_depends_on_the_device():
    figures = {"shares": dict.fromkeys(GROUPS, 0.1) | {"own": 0.12}}
    assert reached(figures, "cpu")
    assert not reached(figures, "cuda")
