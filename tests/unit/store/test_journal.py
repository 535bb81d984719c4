import copy
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from lib.store.journal import Journal, JournalError
from lib.store.records import Pick, Score
from lib.store.schema import SCHEMA_VERSION, TABLES

APP = Path(__file__).parents[3] / "apps" / "loco"
NOW = 1_700_000_000.0


@pytest.fixture
def journal(tmp_path):
    with_path = Journal(tmp_path / "journal.sqlite")
    yield with_path
    with_path.close()


def submit(journal, image, *, group="p1", labels=None, now=NOW):
    return journal.add_submission(image, group, f"{image}.png", "0" * 64, labels or {}, "ann", None, now)


def add_version(journal, model="polyp", *, live=True, dice=0.8):
    return journal.add_version(model, "/models/x.pt", "f" * 64, 1, dice, 5, {"note": "a"}, live, NOW)


# --- the file


def test_everything_is_there_after_reopening(tmp_path):
    path = tmp_path / "new folder" / "journal.sqlite"
    first = Journal(path)
    submit(first, "a", labels={"polyp": 1})
    first.put_scores("polyp", 1, [Score("b", {"polyp/present/margin": 0.5}, b"\x00\x01")], NOW)
    first.lease(["b"], "ann", 60, NOW)
    first.set("policy", {"labels": 5})
    first.close()

    second = Journal(path)
    assert second.labelled_images() == {"a"}
    assert second.scores("polyp", 1) == [Score("b", {"polyp/present/margin": 0.5}, b"\x00\x01")]
    assert second.open_leases(NOW) == {"b": "ann"}
    assert second.get("policy") == {"labels": 5}


def test_the_object_can_be_used_after_close(journal):
    submit(journal, "a")
    journal.close()
    assert journal.labelled_images() == {"a"}


def test_the_file_is_in_wal_mode_and_commits_reach_the_disk(journal):
    assert journal.read("PRAGMA journal_mode")[0][0] == "wal"
    assert journal.read("PRAGMA synchronous")[0][0] == 2  # FULL


def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(JournalError, match=rf"version {SCHEMA_VERSION} or older, but got version {SCHEMA_VERSION + 1}"):
        Journal(path)


@pytest.mark.parametrize("content", [b"this is no database at all, " * 100, b"\x89PNG\r\n\x1a\n" + bytes(4096)])
def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(tmp_path, content):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"holiday\.jpg to be a journal .* but got: file is not a database"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "orthanc.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE Resources (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="database of another program with the tables Resources"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(JournalError, match="unable to open database file"):
        Journal(tmp_path)  # a folder


def test_a_writer_that_holds_the_file_too_long_is_reported(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite", busy_s=0.05)
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match=r"journal\.sqlite to take a read or write, but got: database is locked"):
        journal.set("a", 1)
    other.close()
    journal.set("a", 1)
    assert journal.get("a") == 1


def test_a_transaction_that_raises_leaves_nothing(journal):
    def fail_in_mid_write():
        with journal.write() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', '1')")
            raise KeyError("a reason of its own")

    with pytest.raises(KeyError, match="a reason of its own"):
        fail_in_mid_write()
    assert journal.get("a") is None
    journal.set("a", 2)
    assert journal.get("a") == 2


# --- several threads and processes


def _lease_fifty(path, client, answers):
    journal = Journal(path)
    order = [f"img{i:03d}" for i in range(220)]
    answers.put([journal.lease(order, "", 3600, NOW) for _ in range(50)])
    submit(journal, client)


def test_four_processes_never_get_the_same_image(tmp_path):
    path = tmp_path / "journal.sqlite"  # not there yet: they race to create it too
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    workers = [spawn.Process(target=_lease_fifty, args=(path, f"ann{i}", answers)) for i in range(4)]
    for worker in workers:
        worker.start()
    images = [image for _ in workers for image in answers.get(timeout=120)]
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len(images) == 200
    assert set(images) == {f"img{i:03d}" for i in range(200)}
    assert Journal(path).labelled_images() == {"ann0", "ann1", "ann2", "ann3"}


def test_threads_of_one_object_never_get_the_same_image(journal):
    images = []
    order = [f"img{i:02d}" for i in range(40)]

    def take_ten():
        images.extend(journal.lease(order, None, 3600, NOW) for _ in range(10))

    threads = [threading.Thread(target=take_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(images) == order


def test_connections_of_ended_threads_are_closed(journal):
    for _ in range(20):
        thread = threading.Thread(target=journal.last_run)
        thread.start()
        thread.join()
    assert len(journal._slots) <= 2  # this thread's, and the last one's


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_parent_and_child_both_write_after_a_fork(journal):
    submit(journal, "before")
    child = os.fork()
    if child == 0:  # only os._exit below: pytest must not go on twice
        try:
            submit(journal, "child")
            os._exit(0 if "before" in journal.labelled_images() else 2)
        finally:
            os._exit(1)
    submit(journal, "parent")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert journal.labelled_images() == {"before", "child", "parent"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_journal_travels_as_its_path_and_is_opened_when_it_is_used(journal):
    submit(journal, "a")
    travelled = copy.copy(journal)  # as pickle makes it, but in this process
    assert not travelled._slots
    submit(travelled, "b")
    assert journal.labelled_images() == travelled.labelled_images() == {"a", "b"}
    travelled.close()


def test_a_fork_waits_for_the_transactions_of_other_threads(journal):
    inside, go_on = threading.Event(), threading.Event()

    def slow_write():
        with journal.write() as connection:
            inside.set()
            go_on.wait(10)
            connection.execute("INSERT INTO meta VALUES ('slow', '1')")

    thread = threading.Thread(target=slow_write)
    thread.start()
    inside.wait(10)
    threading.Timer(0.2, go_on.set).start()
    child = os.fork()
    if child == 0:
        try:
            journal.set("child", 1)
            os._exit(0 if journal.get("slow") == 1 else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    assert (journal.get("slow"), journal.get("child")) == (1, 1)


KILLED = """
import sys
from lib.store.journal import Journal
journal = Journal(sys.argv[1])
for i in range(100_000):
    journal.add_submission(f"img{i}", "p", "l", "0", {}, "ann", None, float(i))
    print(i, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_in_mid_write_loses_nothing_that_was_committed(tmp_path):
    path = tmp_path / "journal.sqlite"
    process = subprocess.Popen([sys.executable, "-c", KILLED, path], cwd=APP, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 30:
            break
    time.sleep(0.0137)  # anywhere within a write
    process.kill()
    told = [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    last = max([30, *told])

    journal = Journal(path)
    ids = [row.id for row in journal.submissions()]
    assert journal.read("PRAGMA integrity_check")[0][0] == "ok"
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) in (last + 1, last + 2)  # the last may have been committed and not yet told
    assert submit(journal, "after") == len(ids) + 1


# --- submissions and splits


def test_submissions_are_appended_and_read_in_order(journal):
    first = submit(journal, "a", labels={"polyp": 1})
    second = submit(journal, "b")
    third = submit(journal, "a", labels={"polyp": 1})
    assert [row.id for row in journal.submissions()] == [first, second, third]
    assert [row.image for row in journal.submissions(after_id=first)] == ["b", "a"]
    assert journal.last_submission_id() == third
    row = journal.submissions()[0]
    assert (row.group, row.labels, row.client, row.model_version, row.ts) == ("p1", {"polyp": 1}, "ann", None, NOW)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field"):
        row.image = "c"


def test_an_empty_journal_has_no_submissions(journal):
    assert journal.submissions() == []
    assert journal.last_submission_id() == 0
    assert journal.labelled_images() == set()
    assert journal.label_names() == {}


def test_a_removed_label_no_longer_counts_until_it_is_submitted_again(journal):
    submit(journal, "a", labels={"polyp": 1})
    submit(journal, "a", labels={"polyp": 1})
    submit(journal, "b")
    assert journal.mark_removed("a", NOW + 1) == 2
    assert journal.mark_removed("a", NOW + 2) == 0
    assert journal.labelled_images() == {"b"}
    assert journal.label_names() == {}
    assert [row.image for row in journal.submissions()] == ["b"]
    assert [row.removed for row in journal.submissions(active_only=False)] == [NOW + 1, NOW + 1, None]
    assert journal.last_submission_id() == 3

    submit(journal, "a")
    assert journal.labelled_images() == {"a", "b"}


def test_label_names_come_in_the_order_of_their_first_appearance(journal):
    submit(journal, "a", labels={"liver": 2, "tumour": 1})
    submit(journal, "b", labels={"artery": 3, "liver": 7})
    assert list(journal.label_names().items()) == [("liver", 2), ("tumour", 1), ("artery", 3)]


def test_splits_have_the_wanted_size_rounded_down(journal):
    sides = journal.assign_splits([f"p{i}" for i in range(11)], 0.2, seed=3)
    assert sum(side == "validation" for side in sides.values()) == 2
    assert journal.splits() == sides


@pytest.mark.parametrize("seed", range(5))
def test_a_group_keeps_its_side_and_validation_only_grows(journal, seed):
    before = {}
    for known in (1, 2, 3, 5, 8, 13, 40):
        sides = journal.assign_splits([f"p{i}" for i in range(known)], 0.25, seed)
        assert before.items() <= sides.items()
        assert sum(side == "validation" for side in sides.values()) == known // 4
        before = sides


def test_a_smaller_fraction_takes_nobody_out_of_validation(journal):
    before = journal.assign_splits(["a", "b", "c", "d"], 0.5, seed=0)
    after = journal.assign_splits(["a", "e"], 0.1, seed=0)
    assert before.items() <= after.items()
    assert after["e"] == "train"


@pytest.mark.parametrize("groups", [["only"], ["a", "b"], ["a", "a", "a"]])
def test_at_least_one_group_trains(journal, groups):
    assert "train" in journal.assign_splits(groups, 0.99, seed=1).values()


def test_splits_do_not_depend_on_the_order_of_the_groups(tmp_path):
    groups = [f"p{i}" for i in range(30)]
    forward = Journal(tmp_path / "a.sqlite").assign_splits(groups, 0.3, seed=7)
    backward = Journal(tmp_path / "b.sqlite").assign_splits(groups[::-1] * 2, 0.3, seed=7)
    other_seed = Journal(tmp_path / "c.sqlite").assign_splits(groups, 0.3, seed=8)
    assert forward == backward
    assert forward != other_seed


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_that_leaves_nobody_to_train_is_refused(journal, fraction):
    with pytest.raises(JournalError, match=r"validation fraction to be in \[0, 1\), but got"):
        journal.assign_splits(["a"], fraction, seed=0)


# --- runs and versions


def test_life_of_a_run(journal):
    assert journal.last_run() is None
    run_id = journal.start_run("polyp", "5 new labels", 12, 4321, NOW)
    assert [run.id for run in journal.running_runs()] == [run_id]
    assert journal.update_run(run_id, {"epoch": 2, "loss": float("nan")}, NOW + 5)
    run = journal.last_run()
    assert (run.model, run.reason, run.last_submission, run.pid) == ("polyp", "5 new labels", 12, 4321)
    assert (run.status, run.started, run.updated, run.ended) == ("running", NOW, NOW + 5, None)
    assert run.progress == {"epoch": 2, "loss": None}

    assert journal.finish_run(run_id, "done", "Dice 0.81", NOW + 9)
    run = journal.last_run()
    assert (run.status, run.detail, run.ended) == ("done", "Dice 0.81", NOW + 9)
    assert journal.running_runs() == []


def test_the_first_ending_of_a_run_stays(journal):
    run_id = journal.start_run("polyp", "r", 0, 1, NOW)
    journal.finish_run(run_id, "stopped", "by the user", NOW + 1)
    assert not journal.finish_run(run_id, "done", "", NOW + 2)
    assert not journal.update_run(run_id, {"epoch": 9}, NOW + 3)
    run = journal.last_run()
    assert (run.status, run.detail, run.ended, run.progress) == ("stopped", "by the user", NOW + 1, {})


def test_runs_come_newest_first(journal):
    ids = [journal.start_run(model, "r", 0, 1, NOW) for model in ("polyp", "liver", "polyp")]
    assert [run.id for run in journal.runs(limit=2)] == [ids[2], ids[1]]
    assert journal.last_run("liver").id == ids[1]


def test_wrong_endings_and_unknown_runs_are_refused(journal):
    run_id = journal.start_run("polyp", "r", 0, 1, NOW)
    with pytest.raises(JournalError, match="one of done, failed, stopped, interrupted, but got 'running'"):
        journal.finish_run(run_id, "running", "", NOW)
    with pytest.raises(JournalError, match=r"expected run_id to be a run .* but got 99"):
        journal.finish_run(99, "done", "", NOW)
    with pytest.raises(JournalError, match=r"expected run_id to be a run .* but got 99"):
        journal.update_run(99, {}, NOW)


def test_versions_are_numbered_per_model_and_one_is_live(journal):
    assert journal.live_version("polyp") is None
    assert [add_version(journal), add_version(journal), add_version(journal, "liver")] == [1, 2, 1]
    assert add_version(journal, live=False, dice=None) == 3
    assert [row.live for row in journal.versions("polyp")] == [False, True, False]
    live = journal.live_version("polyp")
    assert (live.version, live.dice, live.cases, live.details, live.run_id) == (2, 0.8, 5, {"note": "a"}, 1)

    journal.set_live("polyp", 1)
    assert [row.live for row in journal.versions("polyp")] == [True, False, False]
    assert journal.live_version("liver").version == 1


def test_the_file_itself_refuses_a_second_live_version(journal):
    add_version(journal)
    add_version(journal)
    with pytest.raises(JournalError, match="UNIQUE constraint failed"), journal.write() as connection:
        connection.execute("UPDATE versions SET live = 1")


def test_an_unknown_version_cannot_go_live_and_the_old_one_stays(journal):
    add_version(journal)
    with pytest.raises(JournalError, match=r"one of polyp's \(1\), but got 4"):
        journal.set_live("polyp", 4)
    with pytest.raises(JournalError, match=r"one of liver's \(none yet\), but got 1"):
        journal.set_live("liver", 1)
    assert journal.live_version("polyp").version == 1


# --- scores


def test_scores_are_kept_per_version_and_image(journal):
    rows = [
        Score("b", {"polyp/absent/peak": 0.25}, None),
        Score("a", {"polyp/present/margin": 0.5, "tool/present/margin": 0.125}, b"xy"),
    ]
    marks = [journal.score_mark()]
    journal.put_scores("m", 2, iter(rows), NOW)
    marks.append(journal.score_mark())
    journal.put_scores("m", 1, rows[:1], NOW)
    assert journal.scores("m", 2) == [rows[1], rows[0]]
    assert journal.scored_images("m", 2) == {"a", "b"}
    assert journal.scored_images("m", 0) == set()
    assert journal.scored_images("m", 2, "epistemic") == set()
    again = [Score("b", {"margin": 0.5, "epistemic": 0.1}, None)]
    journal.put_scores("m", 2, again, NOW)
    assert journal.scored_images("m", 2, "epistemic") == {"b"}

    again = Score("b", {"polyp/present/margin": 0.75}, b"zw")
    journal.put_scores("m", 2, [again], NOW + 1)
    assert journal.scores("m", 2) == [rows[1], again]
    marks.append(journal.score_mark())
    assert marks[0] < marks[1] < marks[2]

    journal.put_scores("m", 0, rows[:1], NOW)
    journal.drop_scores_before("m", 2)
    assert journal.scored_images("m", 1) == set()
    assert journal.scored_images("m", 0) == {rows[0].image}, "a weak model leaves choosing to the look before it"
    assert journal.scored_images("m", 2) == {"a", "b"}


def test_thousands_of_scores_come_back_as_they_were(journal):
    rows = [Score(f"i{i:05d}", {"margin": i / 4096} if i % 3 else {"peak": i / 4096}, bytes(4)) for i in range(2500)]
    journal.put_scores("m", 1, reversed(rows), NOW)
    assert journal.scores("m", 1) == rows
    blocks = journal.score_blocks("m", 1)
    assert [len(block.images) for block in blocks] == [1000, 1000, 500]
    assert {block.names for block in blocks} == {("margin", "peak")}


def test_a_journal_of_the_first_version_is_brought_up_to_date(tmp_path):
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    for statement in TABLES:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO picks (image, client, model, version, reason, ts) VALUES ('a', 'ann', 'm', 1, 'low contrast', 5)"
    )
    connection.execute("INSERT INTO skips (image, client, reason, ts) VALUES ('a', 'ann', 'blurred', 5)")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    journal = Journal(tmp_path / "old.sqlite")
    assert (journal.last_pick("a").reason, journal.last_pick("a").details) == ("low contrast", {})
    assert (journal.skips(), journal.skipped_for("bob")) == ({"a": 1}, [])
    assert journal.scores("m", 1) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_with_the_whole_batch(journal, value):
    rows = [Score("a", {"margin": 0.5}, None), Score("b", {"margin": value}, None)]
    with pytest.raises(JournalError, match="expected the terms of b to be finite numbers"):
        journal.put_scores("m", 1, rows, NOW)
    assert journal.scores("m", 1) == []


# --- leases, skips, picks


def test_others_never_get_a_held_image_and_asking_again_gives_ones_own(journal):
    order = ["a", "b"]
    assert journal.lease(order, "ann", 60, NOW) == "a"
    assert journal.lease(order, "bob", 60, NOW) == "b"
    assert journal.lease(order, "eve", 60, NOW) is None
    assert journal.own_lease("ann", NOW + 50) == "a"
    assert journal.renew("a", "ann", 60, NOW + 50)
    assert journal.open_leases(NOW + 61) == {"a": "ann"}  # ann's was renewed by asking, bob's expired


def test_ones_own_lease_is_the_oldest_that_is_open_and_unlabelled(journal):
    assert journal.own_lease("ann", NOW) is None
    journal.lease(["a"], "ann", 60, NOW)
    journal.lease(["b"], "ann", 60, NOW + 1)
    assert journal.own_lease("ann", NOW + 2) == "a"
    assert journal.own_lease("", NOW) is None
    journal.add_submission("a", "a", "a.png", "0", {}, "bob", None, NOW + 3)
    assert journal.own_lease("ann", NOW + 4) == "b"
    assert journal.own_lease("ann", NOW + 61) is None


def test_a_labelled_image_is_never_leased_until_its_label_is_removed(journal):
    journal.add_submission("a", "a", "a.png", "0", {}, "bob", None, NOW)
    assert journal.lease(["a", "b"], "ann", 60, NOW) == "b"
    journal.mark_removed("a", NOW)
    assert journal.lease(["a"], "bob", 60, NOW) == "a"


def test_a_clock_that_is_set_back_does_not_block_for_longer_than_a_lease(journal):
    journal.lease(["a"], "ann", 60, NOW + 10_000)
    assert journal.lease(["a"], "bob", 60, NOW) is None, "ann may still be at it"
    assert journal.lease(["a"], "bob", 60, NOW + 60) == "a"


def test_the_pick_is_logged_with_the_lease_or_not_at_all(journal):
    def pick(image):
        return Pick(0, image, "ann", "polyp", 1, "low contrast", NOW, "low_contrast", 7, {"kind": "low contrast"})

    assert journal.lease(["a"], "ann", 60, NOW, pick) == "a"
    assert journal.lease(["a"], "bob", 60, NOW, pick) is None
    (logged,) = journal.picks()
    assert (logged.image, logged.seed, logged.details) == ("a", 7, {"kind": "low contrast"})
    assert (journal.last_pick("a"), journal.last_pick_id(), journal.last_pick("b")) == (logged, logged.id, None)


def test_expired_leases_do_not_block(journal):
    journal.lease(["a"], "ann", 60, NOW)
    assert journal.lease(["a"], "bob", 60, NOW + 59) is None
    assert journal.lease(["a"], "bob", 60, NOW + 60) == "a"
    assert not journal.renew("a", "ann", 60, NOW + 61)
    assert journal.open_leases(NOW + 61) == {"a": "bob"}


@pytest.mark.parametrize("client", [None, ""])
def test_anonymous_requests_never_share(journal, client):
    order = ["a", "b"]
    assert [journal.lease(order, client, 60, NOW) for _ in range(3)] == ["a", "b", None]
    assert journal.open_leases(NOW) == {"a": "", "b": ""}
    assert journal.lease(order, client, 60, NOW + 60) == "a"


def test_renewing_extends_also_an_expired_lease_that_nobody_took(journal):
    journal.lease(["a"], "ann", 60, NOW)
    assert journal.renew("a", "ann", 60, NOW + 100)
    assert journal.open_leases(NOW + 159) == {"a": "ann"}
    assert not journal.renew("a", "bob", 60, NOW + 100)
    assert not journal.renew("never", "ann", 60, NOW)


def test_a_released_image_is_free(journal):
    journal.lease(["a"], "ann", 60, NOW)
    journal.release("a")
    assert journal.open_leases(NOW) == {}


def test_a_lease_can_be_given_back_by_its_holder_alone(journal):
    journal.lease(["a"], "ann", 60, NOW)
    assert not journal.release("a", "bob")
    assert journal.release("a", "ann")
    assert not journal.release("a", "ann")


def labelled_by(journal, client, now):
    return journal.add_submission("a", "a", f"{client}.png", client, {"polyp": 1}, client, None, now)


def test_who_was_overtaken_hands_in_a_second_reading_and_then_may_correct(journal):
    journal.add_pick(Pick(0, "a", "ann", "polyp", 1, "coverage", NOW))
    assert not journal.is_overtaken("a", "ann"), "nobody else labelled it"
    journal.add_pick(Pick(0, "a", "bob", "polyp", 1, "coverage", NOW + 10))
    labelled_by(journal, "bob", NOW + 20)
    assert journal.is_overtaken("a", "ann")
    assert not journal.is_overtaken("a", "bob"), "his own label"
    assert not journal.is_overtaken("a", "eve"), "it was never served to her: she corrects what she sees"
    assert not journal.is_overtaken("a", "")
    journal.lease(["a"], "ann", 60, NOW)
    number = journal.add_reading("a", "ann", "00", {"polyp": 1}, 1, NOW + 30, "00/00.png")
    assert [s.client for s in journal.submissions()] == ["bob"]
    assert [(r.id, r.client, r.labels) for r in journal.readings("a")] == [(number, "ann", {"polyp": 1})]
    assert journal.reading(number) == journal.readings("a")[0]
    assert journal.reading(number + 1) is None
    assert journal.open_leases(NOW) == {}
    assert not journal.is_overtaken("a", "ann"), "she was told: what she submits now is a correction"


def test_a_label_that_nobody_was_asked_for_is_corrected(journal):
    """One that came under another name, as from a viewer's own export or a PACS: the same person may have drawn it."""
    journal.add_pick(Pick(0, "a", "ann", "polyp", 1, "coverage", NOW))
    labelled_by(journal, "ohif", NOW + 20)
    assert not journal.is_overtaken("a", "ann")


def test_a_label_that_was_removed_overtakes_nobody(journal):
    for client in ("ann", "bob"):
        journal.add_pick(Pick(0, "a", client, "polyp", 1, "coverage", NOW))
    labelled_by(journal, "bob", NOW + 20)
    journal.mark_removed("a", NOW + 30)
    assert not journal.is_overtaken("a", "ann")


def test_who_is_served_the_image_again_after_the_other_label_corrects_it(journal):
    labelled_by(journal, "bob", NOW)
    journal.add_pick(Pick(0, "a", "ann", "polyp", 1, "pinned", NOW + 10))
    assert not journal.is_overtaken("a", "ann")


def test_skips_are_for_oneself_for_all_or_by_two_who_are_unsure(journal):
    journal.add_skip("later", "ann", "later", NOW)
    journal.add_skip("broken", "ann", "unreadable", NOW + 1, for_all=True)
    assert (journal.skipped_for("ann"), journal.skipped_for("bob")) == (["later", "broken"], ["broken"])
    assert journal.skipped_for("") == ["broken"]
    journal.add_skip("later", "eve", "later", NOW + 2)
    assert journal.skipped_for("bob") == ["broken"], "not now is not for others"
    for number, client in enumerate(("ann", "ann", "eve")):
        assert journal.skipped_for("bob") == ["broken"]
        journal.add_skip("faint", client, "unsure", NOW + 3 + number)
    assert journal.skipped_for("bob") == ["broken", "faint"]


def test_who_has_no_name_can_pass_an_image_by_too(journal):
    journal.add_skip("later", "", "later", NOW)
    assert (journal.skipped_for(""), journal.skipped_for("ann")) == (["later"], [])
    journal.add_skip("faint", "", "unsure", NOW + 1)
    assert journal.skipped_for("ann") == []
    journal.add_skip("faint", None, "unsure", NOW + 2)
    assert journal.skipped_for("ann") == ["faint"], "offered last to whoever was unsure: it was another one"


def test_who_asks_twice_at_once_gets_one_image(journal):
    """Both requests saw no lease; the second finds the one that the first took meanwhile."""
    assert journal.lease(["a", "b"], "ann", 60, NOW, keeps=lambda image: True) == "a"
    assert journal.lease(["b", "a"], "ann", 60, NOW, keeps=lambda image: True) == "a"
    assert journal.open_leases(NOW) == {"a": "ann"}
    assert journal.lease(["b"], "ann", 60, NOW, keeps=lambda image: image != "a") == "b", "it may not be served again"
    assert journal.lease(["c"], "ann", 60, NOW + 61, keeps=lambda image: True) == "c", "expired"


def test_an_image_that_was_passed_by_while_the_order_was_made_is_not_taken(journal):
    known = journal.last_skip_id()
    journal.lease(["a"], "ann", 60, NOW)
    journal.add_skip("a", "ann", "unreadable", NOW, for_all=True)
    assert journal.lease(["a", "b"], "bob", 60, NOW, skips_known=known) == "b"
    # an order that was made after the skip has the image for a reason
    assert journal.lease(["a"], "eve", 60, NOW, skips_known=journal.last_skip_id()) == "a"


def test_a_skip_is_counted_and_ends_only_ones_own_lease(journal):
    journal.lease(["a"], "ann", 60, NOW)
    journal.add_skip("a", "bob", "blurred", NOW)
    assert journal.open_leases(NOW) == {"a": "ann"}
    journal.add_skip("a", "ann", "cannot be decided", NOW)
    assert journal.open_leases(NOW) == {}
    assert journal.skips() == {"a": 2}


def test_picks_are_logged_newest_first(journal):
    journal.add_pick(Pick(0, "a", "ann", "polyp", 0, "coverage", NOW))
    journal.add_pick(Pick(0, "b", "", "polyp", 3, "low contrast", NOW + 1))
    (pick,) = journal.picks(limit=1)
    assert (pick.image, pick.client, pick.model, pick.version) == ("b", "", "polyp", 3)
    assert [row.reason for row in journal.picks()] == ["low contrast", "coverage"]


# --- settings


def test_settings_keep_json_values_and_defaults(journal):
    assert journal.get("seed") is None
    assert journal.get("seed", 5) == 5
    journal.set("seed", [1, {"a": "ü"}])
    journal.set("seed", [2, {"a": "ü"}])
    assert journal.get("seed", 5) == [2, {"a": "ü"}]
