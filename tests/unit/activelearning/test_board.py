"""What the strategies look at: which model may choose, what is known of misses, what is new."""

import time
from dataclasses import replace

import numpy as np
from unit.activelearning.pools import (
    PATIENT,
    Studies,
    add_scores,
    add_version,
    ask,
    board_of,
    images_of,
    scored,
    strategy_of,
    submit,
)

from lib.activelearning.board import Board, enough_labels, is_usable, miss_rates, weak_classes
from lib.activelearning.next_image import NextImage
from lib.store.records import Score, Submission, Version


def test_coverage_until_the_model_is_good_for_choosing(project):
    studies = Studies(images_of(40))
    rng = np.random.default_rng(0)
    rows = [Score(i, {"image/contrast": 0.5}, rng.normal(size=4).astype(np.float16).tobytes()) for i in studies.images]
    project.journal.put_scores("frame", 0, rows, time.time())
    add_scores(project, studies.images)
    strategy = strategy_of(project)
    add_version(project)
    assert ask(strategy, studies, "a")["kind"] == "coverage", "too few labels"
    for image in studies.images[:10]:
        submit(project, image)
    assert ask(strategy, studies, "b")["model_version"] == 1
    add_version(project, dice=0.3)
    assert ask(strategy, studies, "c")["model_version"] == 1, "the version before was better"


def test_a_new_model_chooses_as_soon_as_it_has_scored_enough(project):
    studies = scored(project, 40)
    add_version(project)
    strategy = strategy_of(project)
    assert ask(strategy, studies, "a")["model_version"] == 1
    add_scores(project, studies.images[:10], 2)
    assert ask(strategy, studies, "b")["model_version"] == 1
    add_scores(project, studies.images[10:30], 2)
    assert ask(strategy, studies, "c")["model_version"] == 2


def test_a_study_that_comes_later_is_served_too(project):
    studies, strategy = scored(project, 11), strategy_of(project)
    assert ask(strategy, studies, "a")["id"] == "p0010_1"
    studies.images.append("p9999_1")
    assert ask(strategy, studies, "b")["id"] == "p9999_1"


def test_the_thread_keeps_the_view(project):
    studies, board = scored(project), board_of(project)
    board.start(studies, warm=["low_contrast"])
    strategy = NextImage("low_contrast", board, 0.0)
    served = []
    for i in range(6):
        served.append(ask(strategy, studies, f"a{i}")["id"])
        submit(project, served[-1], f"a{i}")
    board.stop()
    assert len(set(served)) == 6, "labels since the view was built are looked up at the click"


def test_the_draw_by_rank_gets_sharper_from_the_first_choice_by_the_model_to_the_end_of_the_budget(project):
    studies, board, progress = Studies(images_of(40)), board_of(project), []
    for count, image in enumerate(studies.images, start=1):
        submit(project, image)
        if count in (8, 24, 40):
            progress.append(board.view(studies).progress)
    assert progress == [0.0, 0.5, 1.0], "8 labels are there before a model can choose"


def test_rules_of_the_switch():
    assert enough_labels(1000, 8, {"polyp": 3}, 1)
    assert not enough_labels(1000, 7, {"polyp": 7}, 1)
    assert not enough_labels(1000, 50, {"polyp": 50, "tool": 2}, 2)
    assert not enough_labels(1000, 50, {"polyp": 50}, 2)
    assert enough_labels(6, 2, {"polyp": 2}, 1)
    cases = {f"c{i}": {"polyp": 0.0 if i < 3 else 0.9, "tool": 0.5} for i in range(10)}
    version = Version("frame", 1, "x", "0", None, 0.4, 10, {"cases": cases}, True, 0.0)
    assert not is_usable(version, {})
    both = {i: Submission(0, i, i, "x", "0", {"polyp": 1, "tool": 1}, "ann", None, 0.0, None) for i in cases}
    assert is_usable(version, both), "one class can be chosen for"
    absent = {i: {"polyp": 0.1, "tool": 1.0} for i in cases}
    polyps = {i: replace(s, labels={"polyp": 1}) for i, s in both.items()}
    assert not is_usable(replace(version, dice=0.55, details={"cases": absent}), polyps), "what is nowhere is no merit"
    assert is_usable(replace(version, cases=2), both), "two cases say little"


def test_weak_classes_are_those_that_the_model_finds_badly_where_they_are():
    cases = {f"c{i}": {"polyp": 0.9, "tool": 0.2 if i < 3 else 1.0} for i in range(10)}
    labels = {i: ["polyp", "tool"] if int(i[1:]) < 3 else ["polyp"] for i in cases}
    submissions = {
        i: Submission(0, i, i, "x", "0", dict.fromkeys(names, 1), "ann", None, 0.0, None) for i, names in labels.items()
    }
    version = Version("frame", 1, "x", "0", None, 0.8, 10, {"cases": cases}, True, 0.0)
    assert weak_classes(version, submissions) == {"tool"}, "rightly empty cases are no merit"
    few = {i: submissions[i] for i in ("c0", "c1", "c5")}
    assert weak_classes(version, few) == frozenset(), "two cases with the class cannot tell"


def test_a_class_that_the_model_does_not_know_is_covered_and_not_ranked(project):
    studies = Studies(images_of(60))
    rng = np.random.default_rng(0)
    names = ("threshold_deficit", "margin", "feature_contrast")
    rows = [
        Score(
            image,
            {f"{c}/present/{t}": rng.random() for c in ("polyp", "tool") for t in names},
            rng.normal(size=6).astype(np.float16).tobytes(),
        )
        for image in studies.images
    ]
    project.journal.put_scores("frame", 1, rows, time.time())
    for image in studies.images[:10]:
        project.journal.add_submission(image, image, "x.png", "0", {"polyp": 1, "tool": 1}, "ann", 1, time.time())
    cases = {image: {"polyp": 0.8, "tool": 0.1} for image in studies.images[:5]}
    details = {"cases": cases, "per_class": {"polyp": 0.8, "tool": 0.1}}
    project.journal.add_version("frame", "x.pt", "0", None, 0.45, 5, details, True, time.time())
    strategy = NextImage("low_contrast", Board("frame", project, PATIENT, 2, 0), 0.0)
    replies = [ask(strategy, studies, f"ann{i}") for i in range(30)]
    assert {reply["model_version"] for reply in replies} == {1}, "polyps can be chosen for, whatever the mean"
    kinds = {reply["kind"] for reply in replies}
    assert kinds >= {"coverage", "low contrast"}
    assert not any(reply["stratum"].startswith("tool") for reply in replies)


def test_a_miss_needs_something_to_miss():
    def version(cases):
        return Version("frame", 1, "x", "0", None, 0.4, len(cases), {"cases": cases}, True, 0.0)

    def labels(images, *names):
        return {i: Submission(0, i, i, "x", "0", {n: 1 for n in names}, "ann", None, 0.0, None) for i in images}

    cases = {f"c{i}": {"polyp": 0.0 if i < 3 else 0.9, "tool": 0.5} for i in range(10)}
    both = labels(cases, "polyp", "tool")
    assert miss_rates(version(cases), both) == {"polyp": 0.3, "tool": 0.0}
    # a false alarm counts 0 and a rightly empty case 1: neither says how often a polyp is missed
    empty = {"e0": {"polyp": 0.0, "tool": 1.0}, "e1": {"polyp": 1.0, "tool": 1.0}}
    assert miss_rates(version(cases | empty), both | labels(empty)) == {"polyp": 0.3, "tool": 0.0}
    assert miss_rates(version({"c": {"polyp": 0.0}}), both) == {}, "one case is no rate"
    assert miss_rates(version(cases), labels(cases, "tool")) == {"tool": 0.0}
