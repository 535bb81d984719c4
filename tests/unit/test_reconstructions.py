"""Wherever a method that was rebuilt from little text is named for people, that is said; stored names stay plain."""

import io
from types import SimpleNamespace

import pytest
import torch
from benchmarks import efficiency, tables
from rich.console import Console
from unit.desks import client_of, open_desk, publish
from unit.helpers import Threshold, spec_of

from lib.configs.conf import KEYS
from lib.core.bundle.describe import metadata
from lib.core.bundle.export import _readme
from lib.core.checkpoint import Checkpoint
from lib.core.methods import METHODS, described, marked, method_class, note
from lib.core.spec import SpecError
from lib.infers.segmentation import LiveModel
from lib.infers.segmentation import described as words_of
from lib.trainers.milestones import Milestones
from lib.trainers.options import option_defaults
from lib.trainers.progress import Progress, RunState

NAMES = ["crii", "ideal", "cad", "mccs"]
SHOWN = [f"{name} (reconstruction)" for name in NAMES]


def test_which_methods_they_are():
    assert [name for name in METHODS if note(name)] == NAMES
    assert [marked(n) for n in NAMES] == SHOWN
    assert marked("loco") == "loco"
    assert marked("no ICE") == "no ICE"
    assert described("crii") == "CRII-Net, a reconstruction from little public text"


def test_lists_to_choose_from_hold_plain_names_and_a_note():
    options = option_defaults(spec_of())
    assert sorted(options["method"]) == sorted(METHODS)
    assert options["method_note"] == "reconstructions from little public text: crii, ideal, cad, mccs"
    assert all(shown in KEYS["method"] for shown in SHOWN)
    with pytest.raises(SpecError) as refused:
        method_class("magic")
    assert all(shown in str(refused.value) for shown in SHOWN)


@pytest.mark.parametrize(("name", "expected"), [("crii", "reconstruction"), ("loco", "")])
def test_the_reply_the_progress_and_the_facts_of_a_run(name, expected):
    spec = spec_of(method=name)
    prediction = SimpleNamespace(native_probs=lambda: torch.full((2, 1, 4, 4), 0.5))
    _, words = words_of(LiveModel(Checkpoint(spec, {}, {}), SimpleNamespace(teacher=Threshold()), 0), prediction)
    split = SimpleNamespace(labelled=[], unlabelled=[], validation=[])
    state = RunState(spec, split, 1)
    trainer = SimpleNamespace(state=SimpleNamespace(metrics={}, iteration=0, epoch=0, output=None))
    context = SimpleNamespace(trainer=trainer)
    stats = Progress(context, state).stats()
    facts = Milestones("frame", context, state, None, None)._facts()
    for said in (words, stats, facts):
        assert (said["method"], said["method_note"]) == (name, expected)


def test_the_page(tmp_path):
    desk = open_desk(tmp_path)
    publish(desk, method="crii")
    client = client_of(desk)
    learning, models = (client.get(f"/loco/page/{panel}").json() for panel in ("learning", "models"))
    for shown in (learning["training"], learning["versions"][0], models["versions"][0]):
        assert (shown["method"], shown["method_note"]) == ("crii", "reconstruction")


def test_the_bundle():
    spec = spec_of(method="crii")
    checkpoint = Checkpoint(spec, {}, {})
    assert "with the method crii (reconstruction) on frame studies" in metadata(checkpoint, "name")["description"]
    assert "method crii (reconstruction)" in _readme(checkpoint, "name", {})


def test_tables_and_console():
    assert "| `crii (reconstruction)` | 3.2 |" in tables.cost({"frame": {"crii": 3.2}})
    figures = {f"{part}_{f}": [50.0, 1.0] for part in ("teacher", "student") for f in ("dice", "hd95")}
    row = {"labels": "40", "arm": "crii", "seeds": 3, **figures, "low_contrast_dice": [1.0, 0.0], "missed": 0.0}
    row |= {"seconds_per_step": 1.0, "peak_mib": 1, "by_seed": {"0": 50.0}}
    said = io.StringIO()
    efficiency.show(Console(width=160, file=said), [row])
    assert "crii (reconstruction)" in said.getvalue()
    assert efficiency.goal_of("la", [row])[1] == "la: best arm crii (reconstruction) with 40 labels, Dice 50.0"
