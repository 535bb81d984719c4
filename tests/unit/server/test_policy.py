import pytest

from lib.server.policy import LATER_SHARE, MAX_RETRIES, decide
from lib.store.records import Run, Submission

NOW = 10_000.0


def labels(*images, first=1, ts=NOW - 100):
    return [
        Submission(i, image, image, f"{image}.png", "0", {}, "", None, ts, None)
        for i, image in enumerate(images, start=first)
    ]


def run(status="done", last=0, ended=NOW - 50):
    return Run(1, "frame", "", last, 1, NOW - 90, NOW - 60, ended, status, "", {})


def asked(submissions, runs=(), busy=False, now=NOW, after=3, idle=20.0):
    return decide(submissions, runs, busy, now, after, idle)


def test_nothing_is_submitted():
    assert asked([]) == asked([], [run()])
    assert (asked([]).start, asked([]).reason) == (False, "waiting for the first label")


def test_never_two_runs_at_once():
    got = asked(labels(*"abcdef"), busy=True)
    assert (got.start, got.reason) == (False, "a training is running")


def test_enough_new_labels_and_quiet():
    got = asked(labels(*"abc"))
    assert (got.start, got.reason) == (True, "3 new labels")


def test_too_few_new_labels():
    got = asked(labels(*"ab"))
    assert (got.start, got.reason) == (False, "waiting for 1 more labels (2 of 3 are new)")


def test_it_waits_for_quiet_after_the_last_label():
    recent = labels(*"abc", ts=NOW - 5)
    got = asked(recent)
    assert (got.start, got.reason) == (False, "waiting for 15 s of quiet")
    assert asked(recent, now=NOW + 15).start
    assert asked(recent, idle=5).start


def test_labels_of_earlier_runs_are_not_new():
    submissions = labels(*"abcde")
    assert not asked(submissions, [run(last=3)]).start
    assert asked(submissions, [run(last=2)]).start
    assert asked(submissions, [run(last=3)]).reason == "waiting for 1 more labels (2 of 3 are new)"


def test_labels_that_came_during_a_run_start_the_next():
    submissions = labels(*"abc") + labels(*"def", first=4)
    assert not asked(submissions, [run(last=3)], busy=True).start
    assert asked(submissions, [run(last=3)]).start


def test_a_study_submitted_again_and_again_is_one_label():
    again = labels("a", "a", "a", "b")
    assert asked(again).reason == "waiting for 1 more labels (2 of 3 are new)"
    corrected = labels(*"abc") + labels("a", "b", "c", first=4)
    assert asked(corrected, [run(last=3)]).start


def test_later_a_tenth_of_the_labelled_set_is_wanted():
    assert LATER_SHARE == 0.1
    many = labels(*(f"i{n}" for n in range(60)))
    assert asked(many, [run(last=55)]).reason == "waiting for 1 more labels (5 of 6 are new)"
    assert asked(many, [run(last=54)]).start
    assert asked(many, [run(last=57)], after=3).reason == "waiting for 3 more labels (3 of 6 are new)"


def test_an_interrupted_run_goes_on_at_once():
    got = asked(labels("a", ts=NOW), [run("interrupted", last=1, ended=NOW)])
    assert (got.start, got.reason) == (True, "going on with the interrupted training")


def test_a_failed_run_is_tried_again_after_the_quiet():
    early = asked(labels("a"), [run("failed", last=1, ended=NOW - 5)])
    assert (early.start, early.reason) == (False, "waiting to try again after a failed training")
    later = asked(labels("a"), [run("failed", last=1, ended=NOW - 25)])
    assert (later.start, later.reason) == (True, "trying again after a failed training")


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_after_too_many_failures_in_a_row_it_waits_for_labels(status):
    runs = [run(status, last=1)] * (MAX_RETRIES[status] + 1)
    assert asked(labels("a"), runs[1:]).start
    got = asked(labels("a"), runs)
    assert (got.start, got.reason) == (False, "waiting for 3 more labels (0 of 3 are new)")
    assert asked(labels(*"abcd"), runs).start
    interspersed = [run(status, last=1), run("done"), *runs]
    assert asked(labels("a"), interspersed).start


@pytest.mark.parametrize("status", ["done", "stopped"])
def test_a_run_that_was_done_or_stopped_by_hand_is_not_started_again(status):
    assert not asked(labels("a"), [run(status, last=1)]).start
