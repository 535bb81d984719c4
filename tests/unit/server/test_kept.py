import hashlib

import numpy as np
import pytest
from PIL import Image

from lib.core.files import remove_leftovers, replacing
from lib.server.kept import KeptLabels, restore_labels
from lib.store.journal import Journal


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "loco.sqlite")


def mask(path, value):
    """A small label picture, different for each value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 3), value, np.uint8)).save(path)
    return path


def submit(journal, label, image="a"):
    digest, kept = KeptLabels(journal).keep(label)
    journal.add_submission(image, "p", str(label), digest, {"x": 1}, "ann", 3, 1.0, kept)


def test_every_version_stays_with_who_when_and_from_which_model(tmp_path, journal):
    label = tmp_path / "labels/final/a.png"
    contents = []
    for value in (1, 2, 1):
        contents.append(mask(label, value).read_bytes())
        submit(journal, label)
    journal.mark_removed("a", 2.0)
    label.unlink()
    history = journal.history("a")
    assert [KeptLabels(journal).path(s).read_bytes() for s in history] == contents[::-1]
    assert {(s.client, s.ts, s.model_version, s.removed) for s in history} == {("ann", 1.0, 3, 2.0)}
    assert len(list((tmp_path / ".loco-labels").glob("*/*"))) == 2, "equal labels share a copy"


def test_a_damaged_copy_is_written_again_and_never_handed_out(tmp_path, journal):
    label = mask(tmp_path / "labels/final/a.png", 1)
    submit(journal, label)
    copy = KeptLabels(journal).path(journal.latest()[0])
    copy.write_bytes(b"half")
    assert KeptLabels(journal).path(journal.latest()[0]) is None
    submit(journal, label)
    assert copy.read_bytes() == label.read_bytes()


@pytest.mark.parametrize("harm", ["gone", "empty", "half", "older"])
def test_a_label_that_was_answered_comes_back(tmp_path, journal, harm):
    label = mask(tmp_path / "labels/final/a.png", 1)
    old = label.read_bytes()
    submit(journal, label)
    submit(journal, mask(label, 2))
    new = label.read_bytes()
    if harm == "gone":
        label.unlink()
    else:
        label.write_bytes({"empty": b"", "half": new[:20], "older": old}[harm])
    assert restore_labels(journal, KeptLabels(journal)) == ["a"]
    assert label.read_bytes() == new
    assert restore_labels(journal, KeptLabels(journal)) == [], "once"


def test_what_another_program_drew_or_was_removed_is_left_alone(tmp_path, journal):
    drawn = mask(tmp_path / "labels/final/a.png", 1)
    removed = mask(tmp_path / "labels/final/b.png", 1)
    submit(journal, drawn, "a")
    submit(journal, removed, "b")
    other = mask(drawn, 9).read_bytes()
    journal.mark_removed("b", 2.0)
    removed.unlink()
    assert restore_labels(journal, KeptLabels(journal)) == []
    assert drawn.read_bytes() == other
    assert not removed.exists()


def test_a_folder_that_cannot_be_written_stops_no_start(tmp_path, journal, caplog):
    label = mask(tmp_path / "labels/final/a.png", 1)
    submit(journal, label)
    label.unlink()
    label.parent.rmdir()
    (tmp_path / "labels/final").write_text("a file where the folder was")
    assert restore_labels(journal, KeptLabels(journal)) == []
    assert "could not be brought back" in caplog.text


def test_leftovers_of_a_crash_are_deleted_and_work_in_progress_is_not(tmp_path):
    (tmp_path / ".live.pt.abcdefgh.tmp").write_text("half")
    (tmp_path / "notes.tmp").write_text("of the user")
    assert remove_leftovers(tmp_path, older_than_s=3600) == 0
    assert remove_leftovers(tmp_path, older_than_s=-1) == 1
    with replacing(tmp_path / "x") as file:
        file.write(b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.tmp", "x"]
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() == hashlib.sha256(b"whole").hexdigest()


def test_the_model_that_a_label_started_from_is_remembered_by_annotator(journal):
    journal.note_start("a", "ann", 3, 1.0)
    journal.note_start("a", "ann", 4, 2.0)
    journal.note_start("a", None, 2, 2.0)
    assert [journal.start_of("a", c) for c in ("ann", None, "bob")] == [4, 2, None]
