from pathlib import Path

import numpy as np
import pytest
from benchmarks.golden import left_out, main
from benchmarks.golden_checks import CHECKERS, LEFT_OUT, checker_of
from benchmarks.golden_checks.common import exact, of_maximum

DATA = Path(__file__).parents[2] / "data" / "golden"
FILES = sorted(p.relative_to(DATA).as_posix() for p in DATA.rglob("*.npz"))


@pytest.mark.parametrize("name", FILES)
def test_our_numbers_are_the_published_ones(name):
    with np.load(DATA / name) as case:
        errors = checker_of(name)(case)
    assert errors
    assert {q: e for q, e in errors.items() if not e[0] <= e[1]} == {}


def test_the_longest_fitting_beginning_decides():
    assert checker_of("uamt/step_original_3d.npz") is not checker_of("uamt/step_2d_k2.npz")
    assert checker_of("nowhere/x.npz") is None
    assert all(prefix.endswith(("_", "/")) or prefix.split("/")[-1] for prefix in CHECKERS)


def test_what_is_left_out_is_named_with_its_reason():
    some = next(n for n in LEFT_OUT if ":" not in n)
    assert left_out([f"{some}.npz", "new/one.npz"]) == [
        f"left out, {some}: {LEFT_OUT[some]}",
        "new: not implemented yet",
    ]


def test_deviations():
    recorded = np.array([1.0, -4.0])
    assert of_maximum(np.array([1.0, -4.4]), recorded) == pytest.approx(0.1)
    assert exact(np.array([1.0, 0.0]), recorded) == (0.5, 0.0)
    assert exact(np.zeros(3), recorded) == (1.0, 0.0)


def test_the_exit_status(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    with np.load(DATA / "cps/ramp.npz") as case:
        content = dict(case)
    (tmp_path / "cps").mkdir()
    np.savez(tmp_path / "cps/ramp.npz", **content)
    assert main([str(tmp_path)]) == 0
    np.savez(tmp_path / "cps/ramp.npz", **{**content, "w": content["w"] * 1.01})
    assert main([str(tmp_path)]) == 1
    assert "1 differ" in capsys.readouterr().out
