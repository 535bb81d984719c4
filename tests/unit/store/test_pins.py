"""Pinned images: first for everybody, until a label or a skip for all ends that."""

import sqlite3
import time

import pytest

from lib.store.journal import Journal
from lib.store.records import Pick, Pinned
from lib.store.schema import MIGRATIONS, TABLES

NOW = 1_700_000_000.0


@pytest.fixture
def journal(tmp_path):
    with_path = Journal(tmp_path / "journal.sqlite")
    yield with_path
    with_path.close()


def submit(journal, image, now=NOW, client="ann"):
    return journal.add_submission(image, image, f"{image}.png", "0" * 64, {"polyp": 1}, client, None, now)


def lease(journal, client="ann", order=("a", "b", "c"), pinned=lambda image: True, now=NOW):
    return journal.lease(list(order), client, 60, now, None, pinned)


def test_pinned_images_come_before_the_order_those_pinned_first_first(journal):
    journal.pin("c", "eve", NOW - 2)
    journal.pin("b", None, NOW - 1)
    journal.pin("c", "bob", NOW)
    assert journal.pins() == [Pinned("c", "eve", NOW - 2), Pinned("b", "", NOW - 1)]
    assert [lease(journal, client) for client in ("x", "y", "z")] == ["c", "b", "a"]


def test_pins_can_be_left_alone_or_some_of_them(journal):
    journal.pin("c", "eve", NOW)
    journal.pin("b", "eve", NOW + 1)
    assert lease(journal, "x", pinned=None) == "a"
    assert lease(journal, "y", pinned=lambda image: image != "c") == "b"


def test_a_held_or_labelled_image_is_not_served_to_another_although_it_is_pinned(journal):
    journal.pin("c", "eve", NOW)
    assert lease(journal, "x") == "c"
    assert lease(journal, "y") == "a"
    assert lease(journal, "z", now=NOW + 61) == "c", "the lease has expired and the pin has not"


def test_a_label_ends_a_pin_for_good(journal):
    journal.pin("c", "eve", NOW)
    submit(journal, "c")
    journal.mark_removed("c", NOW + 1)
    assert journal.pins() == []
    assert lease(journal) == "a"


def test_who_passes_a_pinned_image_by_gets_others_and_the_pin_stays_for_them(journal):
    journal.add_skip("c", "ann", "later", NOW - 1)
    journal.pin("c", "eve", NOW)
    assert lease(journal, "ann") == "c", "it was pinned after it had been passed by"
    journal.add_skip("c", "ann", "later", NOW + 1)
    assert lease(journal, "ann", now=NOW + 2) == "a"
    assert lease(journal, "bob", now=NOW + 2) == "c"


def test_a_skip_for_all_ends_a_pin(journal):
    journal.pin("c", "eve", NOW)
    journal.add_skip("c", "ann", "unreadable", NOW + 1, for_all=True)
    assert (journal.pins(), journal.unpin("c")) == ([], False)


def test_a_journal_without_pins_is_brought_up_to_date(tmp_path):
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    for statement in (*TABLES, *(s for step in (2, 3, 4) for s in MIGRATIONS[step])):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('project', '\"kept\"')")
    connection.execute("PRAGMA user_version = 4")
    connection.commit()
    connection.close()
    journal = Journal(tmp_path / "old.sqlite")
    journal.pin("a", "ann", NOW)
    journal.put_comparison(1, {"mean": 0.5}, NOW)
    assert (journal.get("project"), len(journal.pins()), journal.comparisons([1, 2])) == ("kept", 1, {1: {"mean": 0.5}})


# --- what the page asks


def test_days_count_labels_and_images(journal):
    noon = time.mktime((2024, 5, 4, 12, 0, 0, 0, 0, -1))
    for image, when in (("a", noon), ("a", noon + 60), ("b", noon + 90), ("a", noon + 86400)):
        submit(journal, image, when)
    assert journal.labels_per_day(noon - 1) == [("2024-05-04", 3, 2), ("2024-05-05", 1, 1)]
    assert journal.labels_per_day(noon + 100) == [("2024-05-05", 1, 1)]


def test_only_first_labels_by_the_one_who_was_served_are_timed(journal):
    for image, client, when in (("a", "ann", 0), ("a", "ann", 30), ("b", "bob", 0)):
        journal.add_pick(Pick(0, image, client, "m", 0, "", NOW + when))
    submit(journal, "a", NOW + 100)
    submit(journal, "a", NOW + 900)
    submit(journal, "b", NOW + 50, "eve")
    assert journal.label_seconds() == [70.0]


def test_the_latest_skip_of_an_image_counts(journal):
    journal.add_skip("a", "ann", "later", NOW)
    journal.add_skip("b", "ann", "unsure", NOW + 1)
    journal.add_skip("a", "bob", "duplicate", NOW + 2, for_all=True)
    assert [(s.image, s.reason, s.client) for s in journal.last_skips()] == [
        ("a", "duplicate", "bob"),
        ("b", "unsure", "ann"),
    ]


def test_marks_change_when_a_lease_ends_by_itself(journal):
    lease(journal)
    held, later = journal.lease_mark(NOW + 1), journal.lease_mark(NOW + 61)
    assert held != later
    assert journal.renew("a", "ann", 60, NOW + 1)
    assert journal.lease_mark(NOW + 1) != held


def test_validation_labels_are_those_that_count_of_patients_that_are_set_aside(journal):
    journal.assign_splits(["a", "b", "c", "d"], 0.5, 0)
    for image in "abcd":
        submit(journal, image)
    assert journal.validation_labels() == 2
    aside = next(group for group, side in journal.splits().items() if side == "validation")
    journal.mark_removed(aside, NOW)
    assert journal.validation_labels() == 1
