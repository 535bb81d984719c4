"""Cells, summary and goal of the label efficiency benchmark; one real cell of two steps; result files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.cellfile import CellFile, SettingsError, part_of
from benchmarks.datasets import Studies, studies_with
from benchmarks.efficiency import goal_of, summarise
from benchmarks.experiment import changed, mean_of, options_of, record_of, run, settings_of
from benchmarks.label_efficiency import (
    ABLATIONS,
    Cell,
    arguments_of,
    arms_of,
    cells_of,
    main,
    spec_of,
    without_unfit,
)
from PIL import Image
from studies import write_frames
from unit.helpers import FRAME
from unit.helpers import spec_of as small_spec

from lib.core.batch import StepDataset
from lib.core.cases import Record
from lib.core.methods import METHODS
from lib.core.spec import SpecError
from lib.trainers import semi_supervised

ARMS = ["supervised", "loco"]


def cell(dice, hd95=10.0, low=0.1):
    scores = {"a": {"dice": dice, "hd95": hd95, "missed": 1}, "b": {"dice": low, "hd95": hd95, "missed": 0}}
    return {"student": scores, "teacher": scores, "seconds_per_step": 0.5, "peak_mib": 100}


def test_a_part_of_the_cells_compares_all_arms():
    cells = list(cells_of(["20", "40"], ARMS, 2, ceiling=True))
    assert [c.key for c in cells[:4]] == ["20/supervised/0", "20/loco/0", "40/supervised/0", "40/loco/0"]
    assert [c.key for c in cells[-2:]] == ["all/supervised/0", "all/supervised/1"]
    assert len(cells) == 10


def test_the_summary_is_mean_and_spread_over_seeds():
    cells = {"40/loco/0": cell(0.5, low=0.1), "40/loco/1": cell(0.7, low=0.3), "all/supervised/0": cell(0.9, low=0.9)}
    rows = summarise(cells, ["b"])
    assert [(r["labels"], r["arm"], r["seeds"]) for r in rows] == [("40", "loco", 2), ("all", "supervised", 1)]
    assert rows[0]["teacher_dice"] == [40.0, pytest.approx(14.14)]
    assert rows[0]["low_contrast_dice"][0] == 20.0
    assert rows[0]["missed"] == 1.0
    assert rows[1]["teacher_dice"] == [90.0, 0.0]


@pytest.mark.parametrize(
    ("dice", "met"),
    [
        ({"supervised": 0.50, "loco": 0.56, "fixmatch": 0.55}, True),
        ({"supervised": 0.50, "loco": 0.54, "fixmatch": 0.53}, False),
        ({"supervised": 0.50, "loco": 0.56, "fixmatch": 0.57}, False),
    ],
)
def test_the_goal(dice, met):
    rows = summarise({f"40/{arm}/0": cell(d, low=d) for arm, d in dice.items()}, ["b"])
    found, line = goal_of("kvasir", rows)
    assert found is met
    assert line.endswith("goal met" if met else "goal missed")
    assert goal_of("acdc", rows)[0]


def test_the_goal_compares_arms_on_the_seeds_that_both_have():
    dice = {"supervised/0": 0.5, "supervised/1": 0.4, "loco/0": 0.6, "loco/1": 0.48, "cps/0": 0.58, "bcp/2": 0.9}
    rows = summarise({f"40/{key}": cell(d, low=d) for key, d in dice.items()}, ["b"])
    assert rows[0]["by_seed"] == {"0": 60.0, "1": 48.0}
    met, line = goal_of("kvasir", rows)
    assert met
    assert "LoCo 54.0 Dice, +9.0 against supervised, +2.0 against the best other arm (cps, same seeds: 0)" in line
    rows = summarise({f"40/{key}": cell(dice[key]) for key in ("supervised/0", "loco/1")}, ["b"])
    assert goal_of("kvasir", rows) == (True, "kvasir: LoCo and supervised have no seed in common yet")


def test_variants_change_what_they_name_and_nothing_else():
    shared = small_spec()
    shared = replace(shared, training=replace(shared.training, learning_rate=0.05))
    plain = spec_of(shared, Cell("40", "loco", 2), ablate=True)
    assert (plain.method, plain.training.seed) == (shared.method, 2)
    for name, changes in ABLATIONS.items():
        variant = spec_of(shared, Cell("40", name, 2), ablate=True)
        assert (variant == plain) is (not changes), name
    with pytest.raises(SpecError, match=r"expected the name of a value of the specification, but got 'method\.ice'"):
        changed(shared, {"method.ice": False})


def test_unknown_arms_are_refused():
    options = arguments_of(["--data", "x", "--methods", "loco,nothing"])
    with pytest.raises(SpecError, match="expected `method` to be one of"):
        arms_of(options)
    with pytest.raises(SpecError, match="expected variants among"):
        arms_of(arguments_of(["--data", "x", "--ablate", "--variants", "no luck"]))


def test_all_methods_are_those_that_can_work_on_the_data():
    fitting, refusals = without_unfit(list(METHODS), small_spec(), [])
    assert sorted(set(METHODS) - set(fitting)) == ["mn", "spcl"]
    assert [sentence.split(" for ")[0] for sentence in refusals] == [
        "expected a slice model",
        "expected a volume model",
    ]
    two = replace(small_spec(), labels={"rv": 1, "lv": 2})
    assert set(METHODS) - set(without_unfit(list(METHODS), two, [])[0]) == {"mn", "spcl", "ersr"}


def test_a_method_that_cannot_work_is_refused_before_anything_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.label_efficiency.quiet", lambda: None)  # levels would outlive the test
    for side, count in (("pool", 4), ("val", 1)):
        write_frames(tmp_path / "set" / side / "images", tmp_path / "set" / side / "labels", count)
    options = ["--data", str(tmp_path / "set"), "--labels", "2", "--methods", "supervised,spcl", "--out", str(tmp_path)]
    assert main([*options, "--cache", str(tmp_path / "cache"), "--threads", str(torch.get_num_threads())]) == 2
    assert "expected a slice model for the method spcl" in capsys.readouterr().err
    assert not list(tmp_path.glob("label_efficiency*"))


def test_finished_cells_are_kept_and_other_settings_refused(tmp_path):
    CellFile("x", {"batch": 4}, tmp_path).add("40/loco/0", {"dice": 1})
    again = CellFile("x", {"batch": 4}, tmp_path)
    assert again.cells == {"40/loco/0": {"dice": 1}}
    again.write({"line": "done"})
    assert json.loads((tmp_path / "x.json").read_text())["figures"]["line"] == "done"
    with pytest.raises(SettingsError, match="but batch differ"):
        CellFile("x", {"batch": 2}, tmp_path)


def test_a_cell_made_with_other_numbers_of_its_method_is_refused(tmp_path):
    cells = CellFile("x", {"batch": 4}, tmp_path)
    cells.add("40/ua_mt/0", {"options": {"passes": 8, "noise": 0.1}})
    cells.check("40/ua_mt/0", {"passes": 8, "noise": 0.1})
    cells.check("40/ua_mt/1", {"passes": 4})
    with pytest.raises(SettingsError, match=r"expected the cell 40/ua_mt/0 .* but passes differ"):
        CellFile("x", {"batch": 4}, tmp_path).check("40/ua_mt/0", {"passes": 4, "noise": 0.1})


def test_a_change_to_one_method_leaves_the_cells_of_the_others_alone():
    spec = small_spec(FRAME)
    other = changed(spec, {"method.ua_mt.passes": 2})
    assert settings_of(spec) == settings_of(other)
    assert settings_of(spec) != settings_of(changed(spec, {"method.contrast_weight": 0.3}))
    named = [replace(s, method=replace(s.method, name="ua_mt")) for s in (spec, other)]
    assert settings_of(named[0]) != settings_of(named[1])
    assert [options_of(s)["passes"] for s in named] == [8, 2]
    assert options_of(spec) == {}


def test_two_processes_keep_their_cells_in_one_file(tmp_path):
    one, other = (CellFile("x", {"batch": 4}, tmp_path) for _ in range(2))
    one.add("40/loco/0", {"dice": 1})
    other.add("40/loco/1", {"dice": 2})
    one.write({"line": "done"})
    assert set(CellFile("x", {"batch": 4}, tmp_path).cells) == {"40/loco/0", "40/loco/1"}


def test_a_part_is_a_number_of_a_count():
    assert part_of("2/3") == (1, 3)
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(ValueError, match="expected a part such as 1/2"):
            part_of(wrong)


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for n in range(4):
        mask = np.zeros((40, 40), dtype=np.uint8)
        mask[8:24, 8 + n : 24 + n] = 1
        image = (rng.integers(0, 60, (40, 40, 3)) + 120 * mask[..., None]).astype(np.uint8)
        paths = [str(tmp_path / f"{kind}{n}.png") for kind in ("image", "label")]
        for path, array in zip(paths, (image, mask), strict=True):
            Image.fromarray(array).save(path)
        records.append(Record(f"f{n}", *paths, f"f{n}"))
    return records


def test_one_cell_trains_on_all_labels_it_may_see_and_measures_student_and_teacher(frames, monkeypatch):
    torch.set_num_threads(1)
    seen = []

    class Watched(StepDataset):
        def __init__(self, labelled, unlabelled, *rest):
            seen.append(({r.id for r in labelled}, {r.id for r in unlabelled}))
            super().__init__(labelled, unlabelled, *rest)

    monkeypatch.setattr(semi_supervised, "StepDataset", Watched)
    spec = small_spec(FRAME, epochs=1, iterations=2)
    studies = studies_with(frames[:3], {"f0", "f1"})
    assert isinstance(studies, Studies)
    outcome = run(spec, frames[:3], studies, frames[3:], "cpu")
    assert seen == [({"f0", "f1"}, {"f2"})]
    assert set(outcome.student) == set(outcome.teacher) == {"f3"}
    kept = record_of(outcome, {"passes": 8})
    assert 0 <= mean_of(kept, "teacher", "dice") <= 1
    assert kept["peak_mib"] > 100
    assert kept["seconds_per_step"] == pytest.approx(kept["seconds"] / 2, abs=0.06)
