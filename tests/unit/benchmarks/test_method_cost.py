from pathlib import Path

import pytest
from benchmarks.method_cost import BEGIN, END, ratios, table, with_table

from lib.core.methods import METHODS

DOCS = Path(__file__).parents[3] / "docs" / "methods.md"


def test_every_method_has_a_row_and_reconstructions_say_so():
    rows = {line.split("`")[1]: line for line in DOCS.read_text().splitlines() if line.startswith("| `")}
    assert set(METHODS) <= set(rows)
    assert all(("reconstruction" in rows[name]) is METHODS[name].reconstruction for name in METHODS)


def test_ratios_are_medians_of_ratios_within_a_round():
    seconds = {"supervised": [1.0, 2.0, 1.0], "loco": [2.0, 6.0, 2.5]}
    assert ratios(seconds) == pytest.approx({"supervised": 1.0, "loco": 2.5})


def test_the_table_is_put_between_its_marks_again_and_again():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    rows = table({"frame": {"loco": 2.04}, "slice": {"loco": 1.96}, "volume": {}})
    assert "| `loco` | 2.0 | 2.0 | - |" in rows
    once = with_table(text, rows)
    assert once == with_table(once, rows) == f"before\n{BEGIN}\n{rows}\n{END}\nafter\n"
