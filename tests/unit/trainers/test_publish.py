import logging
from dataclasses import replace

import pytest
import torch
from unit.helpers import spec_of

from lib.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from lib.core.validate import Validation
from lib.store.journal import Journal
from lib.store.project import ModelFolder
from lib.trainers import publish as module
from lib.trainers.publish import KEEP, adopt_live, import_model, live_checkpoint, publish, roll_back


@pytest.fixture
def folder(tmp_path):
    return ModelFolder(tmp_path / "frame")


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "loco.sqlite")
    yield opened
    opened.close()


def model(value):
    weights = {"w": torch.full((2,), float(value))}
    return Checkpoint(spec_of(), weights, weights)


def measured(dice, cases=3):
    return Validation({f"c{i}": {"polyp": dice} for i in range(cases)})


def sent(folder, journal, value, dice, live=None, cases=3):
    return publish("frame", folder, journal, model(value), measured(dice, cases), live and measured(live, cases), 1)


def serving(folder):
    checkpoint = live_checkpoint(folder)
    return float(checkpoint.teacher["w"][0]), checkpoint.version


def test_the_first_model_goes_live(folder, journal):
    assert live_checkpoint(folder) is None
    assert sent(folder, journal, 1, 0.4) == (True, "first model of its kind")
    assert serving(folder) == (1, 1)
    (version,) = journal.versions("frame")
    assert (version.version, version.live, version.cases, version.run_id) == (1, True, 3, 1)
    assert version.dice == pytest.approx(0.4)
    assert version.details["per_class"] == {"polyp": pytest.approx(0.4)}
    assert load_checkpoint(folder.version(1)).metrics == {"dice": pytest.approx(0.4), "cases": 3}


def test_a_better_model_replaces_it(folder, journal):
    sent(folder, journal, 1, 0.4)
    assert sent(folder, journal, 2, 0.6, live=0.4)[0]
    assert serving(folder) == (2, 2)
    assert [(v.version, v.live) for v in journal.versions("frame")] == [(1, False), (2, True)]


def test_a_worse_model_is_kept_but_does_not_serve(folder, journal):
    sent(folder, journal, 1, 0.6)
    won, reason = sent(folder, journal, 2, 0.5, live=0.6)
    assert (won, reason) == (False, "kept the live model: Dice 0.500 against its 0.600 on the same 3 cases")
    assert serving(folder) == (1, 1)
    assert [(v.version, v.live) for v in journal.versions("frame")] == [(1, True), (2, False)]
    assert float(load_checkpoint(folder.version(2)).teacher["w"][0]) == 2
    assert journal.versions("frame")[1].details["reason"] == reason


def test_with_few_cases_the_newest_goes_live_and_says_so(folder, journal):
    sent(folder, journal, 1, 0.9, cases=2)
    won, reason = sent(folder, journal, 2, 0.1, live=0.9, cases=2)
    assert won
    assert reason.startswith("newest model goes live: 2 validation cases")


def test_roll_back(folder, journal):
    sent(folder, journal, 1, 0.4)
    sent(folder, journal, 2, 0.6, live=0.4)
    roll_back("frame", folder, journal, 1)
    assert serving(folder) == (1, 1)
    assert journal.live_version("frame").version == 1
    sent(folder, journal, 3, 0.9, live=0.4)  # the next one is numbered after the newest, not after the live one
    assert serving(folder) == (3, 3)


def test_roll_back_to_a_version_whose_file_is_gone(folder, journal):
    sent(folder, journal, 1, 0.4)
    sent(folder, journal, 2, 0.6, live=0.4)
    folder.version(1).unlink()
    with pytest.raises(CheckpointError, match=r"expected a model at .*0001\.pt, but there is none"):
        roll_back("frame", folder, journal, 1)
    folder.version(1).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"0001\.pt cannot be read"):
        roll_back("frame", folder, journal, 1)
    assert serving(folder) == (2, 2)
    assert journal.live_version("frame").version == 2


def test_files_of_old_versions_are_pruned_but_never_the_live_one(folder, journal):
    sent(folder, journal, 1, 0.9)
    for value in range(2, KEEP + 4):
        sent(folder, journal, value, 0.5, live=0.9)
    left = sorted(int(p.stem) for p in folder.version(1).parent.iterdir())
    assert left == [1, *range(4, KEEP + 4)]
    assert len(journal.versions("frame")) == KEEP + 3
    assert serving(folder) == (1, 1)


def test_a_crash_between_the_file_and_its_entry(folder, journal, monkeypatch):
    sent(folder, journal, 1, 0.4)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "add_version", killed)
    with pytest.raises(KeyboardInterrupt):
        sent(folder, journal, 2, 0.6, live=0.4)
    monkeypatch.undo()
    assert serving(folder) == (2, 2)
    assert journal.live_version("frame").version == 1

    adopt_live("frame", folder, journal)
    assert [(v.version, v.live) for v in journal.versions("frame")] == [(1, False), (2, True)]
    adopted = journal.live_version("frame")
    assert adopted.dice == pytest.approx(0.6)
    assert adopted.cases == 3
    assert adopted.details["reason"] == "found in the model folder"
    adopt_live("frame", folder, journal)
    assert len(journal.versions("frame")) == 2


def test_a_crash_in_the_middle_of_the_copy_leaves_the_old_model(folder, journal, monkeypatch):
    sent(folder, journal, 1, 0.4)

    def half(source, target):
        target.write(source.read(50))
        raise OSError("no space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", half)
    with pytest.raises(OSError, match="no space left"):
        sent(folder, journal, 2, 0.6, live=0.4)
    assert serving(folder) == (1, 1)
    assert not [p for p in folder.root.rglob("*") if p.suffix == ".tmp"]


def test_a_crash_during_a_roll_back(folder, journal, monkeypatch):
    sent(folder, journal, 1, 0.4)
    sent(folder, journal, 2, 0.6, live=0.4)
    module.replace_file(folder.version(1), folder.live)  # and then the power went
    adopt_live("frame", folder, journal)
    assert journal.live_version("frame").version == 1
    assert len(journal.versions("frame")) == 2


def test_a_model_folder_with_a_new_journal(folder, journal):
    checkpoint = model(1)
    checkpoint.version, checkpoint.metrics = 7, {"dice": None, "cases": 0}
    save_checkpoint(checkpoint, folder.live)
    adopt_live("frame", folder, journal)
    live = journal.live_version("frame")
    assert serving(folder) == (1, 7)
    assert (live.version, live.dice, live.cases) == (7, None, 0)
    assert load_checkpoint(folder.version(7)).version == 7, "one can roll back to it"


def test_nothing_to_adopt(folder, journal, caplog):
    adopt_live("frame", folder, journal)
    assert journal.versions("frame") == []
    folder.root.mkdir()
    folder.live.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        adopt_live("frame", folder, journal)
    assert journal.versions("frame") == []
    assert "The live model cannot be used: expected a LoCo checkpoint, but live.pt cannot be read" in caplog.text


@pytest.fixture
def fits(monkeypatch):
    """Weights of the tests belong to no network that could be built."""
    monkeypatch.setattr(module, "restore_network", lambda checkpoint: None)


def uploaded(tmp_path, checkpoint):
    save_checkpoint(checkpoint, tmp_path / "upload.pt")
    return tmp_path / "upload.pt"


def test_an_uploaded_model_becomes_the_next_version(tmp_path, folder, journal, fits):
    sent(folder, journal, 1, 0.4)
    number, digest = import_model("frame", folder, journal, uploaded(tmp_path, model(7)), spec_of())
    assert (number, serving(folder)) == (2, (7, 2))
    live = journal.live_version("frame")
    assert (live.version, live.sha256, live.details["reason"]) == (2, digest, "uploaded")
    roll_back("frame", folder, journal, 1)
    assert serving(folder) == (1, 1)


class Exploit:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("this must never be seen",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: b"rubbish", "cannot be read"),
        (lambda: Exploit(), "cannot be read"),
        (lambda: {"weights": 1}, "is something else"),
        (lambda: {"format": "new"}, "its contents are of other types"),
        (lambda: model(float("nan")), "expected finite weights"),
        (
            lambda: Checkpoint(replace(spec_of(), labels={"other": 1}), {}, {}),
            "expected a model of the same specification",
        ),
    ],
    ids=["rubbish", "code", "other dict", "other types", "not finite", "other labels"],
)
def test_an_upload_that_is_no_such_model_changes_nothing(tmp_path, folder, journal, fits, capsys, content, sentence):
    sent(folder, journal, 1, 0.4)
    upload, content = tmp_path / "upload.pt", content()
    if isinstance(content, bytes):
        upload.write_bytes(content)
    elif isinstance(content, Checkpoint):
        save_checkpoint(content, upload)
    else:
        torch.save(content, upload)
    with pytest.raises(CheckpointError, match=sentence):
        import_model("frame", folder, journal, upload, spec_of())
    assert serving(folder) == (1, 1)
    assert len(journal.versions("frame")) == 1
    assert "never be seen" not in capsys.readouterr().out


def test_weights_of_another_network_are_refused(tmp_path, folder, journal):
    with pytest.raises(CheckpointError, match="expected weights of"):
        import_model("frame", folder, journal, uploaded(tmp_path, model(1)), spec_of())
    assert not folder.live.exists()


def test_a_file_that_a_crash_left_is_not_written_over_and_goes_with_the_old_ones(folder, journal):
    save_checkpoint(model(9), folder.version(1))
    sent(folder, journal, 1, 0.4)
    assert serving(folder) == (1, 2)
    assert not folder.version(1).exists(), "nothing lists it"
