"""Tables of the documents, made from result files."""

from pathlib import Path

import pytest
from benchmarks import plots
from benchmarks.tables import ablation, cost, efficiency, learning, look, with_section
from PIL import Image

BEGIN, END = "<!-- method_cost: begin -->", "<!-- method_cost: end -->"


def row(labels: str, arm: str, dice: float, seeds: int = 3) -> dict:
    figures = {name: [dice, 1.25] for name in ("student_dice", "teacher_dice", "low_contrast_dice")}
    cost = {"missed": 1.0, "seconds_per_step": 0.456, "peak_mib": 1500}
    by_seed = {str(seed): dice for seed in range(seeds)}
    return {
        "labels": labels,
        "arm": arm,
        "seeds": seeds,
        "by_seed": by_seed,
        **figures,
        "teacher_hd95": [20.0, 2.0],
        **cost,
    }


ROWS = [row("40", "supervised", 54.0), row("40", "loco", 63.44), row("all", "supervised", 70.0)]
RECORD = {
    "commit": "0123456789abcdef",
    "machine": {"processor": "a processor"},
    "settings": {"data": "kvasir", "iterations": 300, "batch": 4, "device": "cpu"},
    "figures": {"rows": ROWS, "line": "one line"},
}


def test_the_table_is_put_between_its_marks_again_and_again():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    rows = cost({"frame": {"loco": 2.04}, "slice": {"loco": 1.96}, "volume": {}})
    assert "| `loco` | 2.0 | 2.0 | - |" in rows
    once = with_section(text, "method_cost", rows)
    assert once == with_section(once, "method_cost", rows) == f"before\n{BEGIN}\n{rows}\n{END}\nafter\n"
    assert with_section(text, "other", rows) == text


def test_a_result_as_a_table_names_how_it_was_made_and_marks_the_best():
    text = efficiency(RECORD)
    assert text.startswith(
        "300 steps of 4 labelled and as many unlabelled images, seeds 0 to 2, cpu (a processor), commit"
    )
    assert "| 40 | `loco` | 3 | 63.4 ± 1.2 | 63.4 ± 1.2 | 20.0 ± 2.0 | 63.4 ± 1.2 | **63.4** | 0.46 | 1500 |" in text
    assert "| 40 | `supervised` | 3 | 54.0 ± 1.2 | 54.0 ± 1.2 | 20.0 ± 2.0 | 54.0 ± 1.2 | 54.0 |" in text
    assert "| all | `supervised` | 3 | 70.0 ± 1.2 | 70.0 ± 1.2 | 20.0 ± 2.0 | 70.0 ± 1.2 | **70.0** |" in text
    assert text.endswith("(../benchmarks/results/label_efficiency_kvasir.png)")


def test_a_single_seed_is_named():
    figures = {"rows": [row("40", "loco", 60.0, seeds=1)], "line": "x"}
    assert "unlabelled images, seed 0, cpu" in efficiency({**RECORD, "figures": figures})


def test_arms_with_unequal_seeds_are_compared_on_those_in_common():
    rows = [row("40", "loco", 60.0), row("40", "cps", 61.0, seeds=1)]
    rows[0]["by_seed"] = {"0": 64.0, "1": 58.0, "2": 58.0}
    text = efficiency({**RECORD, "figures": {"rows": rows, "line": "x"}})
    assert "| **64.0** | 0.46" in text
    assert "| 61.0 | 0.46" in text


def test_variants_as_a_table_the_best_first():
    text = ablation({**RECORD, "figures": {"rows": [row("40", "loco", 60.0, seeds=1), row("40", "no ICE", 61.0)]}})
    assert text.startswith("kvasir, 300 steps of 4 labelled")
    assert "|\n| no ICE | 40 | 3 | 61.0 ± 1.2 | 20.0 ± 2.0 | 1.0 |\n| loco | 40 | 1 | 60.0 | 20.0 | 1.0 |" in text


TWO_COUNTS = [*ROWS, row("80", "loco", 66.0), row("80", "supervised", 60.0)]


@pytest.mark.parametrize(
    "rows", [ROWS, TWO_COUNTS, [*TWO_COUNTS, *(row("40", f"arm {i}", 50.0 + i, seeds=1) for i in range(6))]]
)
def test_plots_of_one_and_of_several_numbers_of_labels(rows: list, tmp_path: Path):
    plots.label_efficiency(rows, "kvasir", tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 600
        assert (image.width > 1200) is (len(rows) > 6)  # many arms of one number have a panel of their own
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_strategies_as_tables_the_best_first():
    rows = [
        {
            "arm": arm,
            "aubc": a,
            "aubc_low": a - 9,
            "final_dice": a + 3,
            "final_low": a,
            "final_missed": 1.5,
            "final_border": 900.4,
        }
        for arm, a in (("low_contrast", 64.04), ("coverage", 66.0))
    ]
    matrix = {
        "low_contrast": {"coverage": {"difference": -1.96, "p": 0.2}},
        "coverage": {"low_contrast": {"difference": 1.96, "p": 0.2}},
    }
    training = {"epochs": 1, "iterations_per_epoch": 150, "batch_labelled": 4, "batch_unlabelled": 4}
    record = {
        "commit": "0123456789abcdef",
        "machine": {"processor": "a processor"},
        "settings": {
            "data": "kvasir", "pool": 800, "device": "cpu", "plan": {"start": 20, "rounds": 5, "query": 20},
            "spec": {"training": training},
        },
        "figures": {"rows": rows, "pairwise_aubc": matrix, "seeds": [0, 2], "line": "one line"},
    }  # fmt: skip
    text = learning(record)
    assert "800 images, 20 labels at first, 5 rounds of 20, 150 steps of 4 labelled and 4 unlabelled" in text
    assert text.index("| `coverage` | 66.0 | 57.0 | 69.0 | 66.0 | 1.5 | 900 |") < text.index(
        "| `low_contrast` | 64.0 |"
    )
    assert "| `low_contrast` | -1.96 (0.20) |  |" in text
    assert text.endswith("(../benchmarks/results/active_learning_kvasir.png)")


def test_the_gate_as_a_table_without_empty_strata():
    rows = [
        {"stratum": s, "score": "low contrast", "images": n, "rank_correlation": 0.5, "given_area": 0.4, "auroc": 0.75}
        for s, n in (("all", 780), ("absent", 0))
    ]
    models = [{"seed": 0, "mean_dice": 0.48}, {"seed": 1, "mean_dice": 0.51}]
    text = look({"commit": "01", "machine": {"processor": "p"}, "figures": {"rows": rows, "models": models}})
    assert "seeds 0, 1 (mean Dice of the images asked: 0.48, 0.51)" in text
    assert text.count("low contrast") == 1
    assert "| all | low contrast | 780 | 0.50 | 0.40 | 0.75 |" in text
