"""Summary and goal of the strategy benchmark, and what its oracle knows."""

import numpy as np
import pytest
from benchmarks.active_learning import strategies_of
from benchmarks.arms import goal_of, summarise
from benchmarks.datasets import DataSetError
from benchmarks.rounds import Oracle
from PIL import Image
from unit.helpers import spec_of

from lib.core.cases import Record


def cell(*dice, low=None):
    """A run whose cases are `a` (ordinary) and `b` (of low contrast)."""
    entries = []
    for number, value in enumerate(dice):
        faint = value if low is None else low[number]
        cases = {"a": {"dice": 2 * value - faint, "missed": 0}, "b": {"dice": faint, "missed": 1}}
        entries.append({"cases": cases, "border": 100 * number})
    return {"entries": entries}


def cells(ours, random, entropy=0.3):
    arms = {"low_contrast": ours, "foreground_random": random, "mean_entropy": entropy}
    return {f"{arm}/{s}": cell(0.2, base + 0.01 * s) for arm, base in arms.items() for s in range(3)}


def test_figures_over_the_seeds_that_the_arms_share():
    summary = summarise({**cells(0.5, 0.4), "coverage/0": cell(0.9, 0.9)}, ["b"])
    assert summary["seeds"] == [0, 1, 2]
    assert [r["arm"] for r in summary["rows"]] == ["low_contrast", "foreground_random", "mean_entropy"], "not finished"
    own = next(r for r in summary["rows"] if r["arm"] == "low_contrast")
    assert own["aubc"] == pytest.approx((20 + 51) / 2)
    assert (own["final_missed"], own["final_border"]) == (1.0, 100.0)
    assert summary["pairwise_aubc"]["low_contrast"]["foreground_random"]["difference"] == pytest.approx(5)


@pytest.mark.parametrize(
    ("ours", "random", "entropy", "met"),
    [(0.5, 0.4, 0.45, True), (0.5, 0.4, 0.55, False), (0.41, 0.4, 0.3, False), (0.4, 0.5, 0.3, False)],
)
def test_the_goal_needs_a_clear_gain_and_no_better_rival(ours, random, entropy, met):
    found, line = goal_of("kvasir", summarise(cells(ours, random, entropy), ["b"]))
    assert found is met
    assert line.endswith("goal met" if met else "goal missed")


def test_without_the_arms_there_is_no_goal():
    summary = summarise({"coverage/0": cell(0.1, 0.2)}, ["b"])
    assert goal_of("kvasir", summary) == (True, "kvasir: highest AUBC 15.0 by coverage")


def test_unknown_strategies_are_refused():
    assert strategies_of("all")[0] == "low_contrast"
    with pytest.raises(DataSetError, match=r"expected strategies among low_contrast, .*, but got 'luck'"):
        strategies_of("low_contrast,luck")


def test_the_oracle_knows_classes_border_and_area(tmp_path):
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[5:10, 5:10] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(50, 250, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    oracle = Oracle([Record("a", str(tmp_path / "a.jpg"), str(tmp_path / "a.png"), "a")], spec_of())
    assert oracle.classes("a") == ("polyp",)
    assert oracle.border("a") == 16
    assert oracle.areas(["a"]) == {"polyp": pytest.approx(25 / 400)}
