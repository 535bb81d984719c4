import math
from pathlib import Path

import pytest
import torch
from benchmarks.method_cost import Run, batch_of, ratios, task

from lib.core.methods import METHODS

DOCS = Path(__file__).parents[3] / "docs" / "methods.md"
SIDE = 64


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, method in METHODS.items() for kind in ("frame", "volume") if kind in method.kinds],
)
def test_every_method_trains_the_networks_that_people_use(name, kind):
    """The shared suite has a tiny network; the real ones also answer in other memory formats."""
    run = Run(task(kind, name, SIDE))
    before = [p.detach().clone() for p in run.method.network.student.parameters()]
    run.step(batch_of(task(kind, name, SIDE)))
    after = list(run.method.network.student.parameters())
    assert all(math.isfinite(float(p.detach().sum())) for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_method_has_a_row_and_reconstructions_say_so():
    described = DOCS.read_text().split("## Compared")[0]
    rows = {line.split("`")[1]: line for line in described.splitlines() if line.startswith("| `")}
    assert set(METHODS) == set(rows)
    assert all(("reconstruction" in rows[name]) is METHODS[name].reconstruction for name in METHODS)


def test_ratios_are_medians_of_ratios_within_a_round():
    seconds = {"supervised": [1.0, 2.0, 1.0], "loco": [2.0, 6.0, 2.5]}
    assert ratios(seconds) == pytest.approx({"supervised": 1.0, "loco": 2.5})
