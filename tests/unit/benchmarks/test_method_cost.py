from pathlib import Path

import pytest
from benchmarks.method_cost import ratios

from lib.core.methods import METHODS

DOCS = Path(__file__).parents[3] / "docs" / "methods.md"


def test_every_method_has_a_row_and_reconstructions_say_so():
    rows = {line.split("`")[1]: line for line in DOCS.read_text().splitlines() if line.startswith("| `")}
    assert set(METHODS) <= set(rows)
    assert all(("reconstruction" in rows[name]) is METHODS[name].reconstruction for name in METHODS)


def test_ratios_are_medians_of_ratios_within_a_round():
    seconds = {"supervised": [1.0, 2.0, 1.0], "loco": [2.0, 6.0, 2.5]}
    assert ratios(seconds) == pytest.approx({"supervised": 1.0, "loco": 2.5})
