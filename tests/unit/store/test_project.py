import os
import shutil

import pytest

from lib.store.journal import Journal, JournalError
from lib.store.project import JOURNAL, ModelFolder, open_project


def studies(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    return str(tmp_path / name)


def test_the_journal_lies_beside_the_studies_and_the_models_in_the_app(tmp_path):
    folder = studies(tmp_path, "data/My studies")
    project = open_project(tmp_path / "app", folder)
    assert project.journal.path == tmp_path / "data" / "My studies" / JOURNAL
    assert project.folder.parent == tmp_path / "app" / "model"
    assert project.folder.name.startswith("My-studies-")


def test_opening_again_finds_the_same_folder(tmp_path):
    folder = studies(tmp_path, "a")
    assert open_project(tmp_path / "app", folder).folder == open_project(tmp_path / "app", folder + "/").folder


def test_two_folders_of_the_same_name_share_no_model(tmp_path):
    one, two = studies(tmp_path, "x/data"), studies(tmp_path, "y/data")
    assert open_project(tmp_path / "app", one).folder != open_project(tmp_path / "app", two).folder


def test_studies_that_are_moved_keep_their_models(tmp_path):
    before = studies(tmp_path, "before")
    project = open_project(tmp_path / "app", before)
    project.model("frame").live.write_bytes(b"model")
    project.journal.close()
    os.rename(before, tmp_path / "after")
    moved = open_project(tmp_path / "app", str(tmp_path / "after"))
    assert moved.folder == project.folder
    assert moved.model("frame").live.read_bytes() == b"model"


def test_another_folder_in_the_place_of_moved_studies_starts_anew(tmp_path):
    first = open_project(tmp_path / "app", studies(tmp_path, "data"))
    first.journal.close()
    os.rename(tmp_path / "data", tmp_path / "old")
    assert open_project(tmp_path / "app", studies(tmp_path, "data")).folder != first.folder


def test_read_only_studies_are_refused(tmp_path, monkeypatch):
    folder = studies(tmp_path, "data")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    with pytest.raises(
        PermissionError, match=r"expected to write the journal loco\.sqlite .*data, but it is read-only"
    ):
        open_project(tmp_path / "app", folder)
    assert os.listdir(folder) == []


def test_a_pacs_has_its_journal_in_the_model_folder(tmp_path):
    project = open_project(tmp_path / "app", "http://127.0.0.1:8042/dicom-web")
    assert project.journal.path == project.folder / JOURNAL
    assert project.folder.parent == tmp_path / "app" / "model"
    assert open_project(tmp_path / "app", "http://127.0.0.1:8042/dicom-web/").folder.name.endswith(
        project.folder.name[-8:]
    )
    assert open_project(tmp_path / "app", "http://127.0.0.1:8043/dicom-web").folder != project.folder


def test_a_pacs_address_with_a_slash_at_the_end_is_the_same_project(tmp_path):
    address = "https://pacs.example/dicom-web"
    assert open_project(tmp_path / "app", address).folder == open_project(tmp_path / "app", address + "/").folder


def test_files_of_a_model(tmp_path):
    folder = open_project(tmp_path / "app", studies(tmp_path, "data")).model("slice")
    assert folder.root.is_dir()
    assert folder.root.name == "slice"
    files = [folder.live, folder.run, folder.best, folder.lock, folder.stats, folder.version(3)]
    assert len(set(files)) == 6
    assert all(folder.root in f.parents for f in files)
    assert folder.version(3).name == "0003.pt"
    assert ModelFolder(folder.root) == folder


def test_a_copy_of_studies_begins_with_a_copy_of_the_models_and_goes_its_own_way(tmp_path):
    original = open_project(tmp_path / "app", studies(tmp_path, "a"))
    original.model("frame").live.write_bytes(b"model")
    original.journal.add_submission("x", "x", str(tmp_path / "a/labels/final/x.png"), "0", {}, "ann", None, 1.0)
    original.journal.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = open_project(tmp_path / "app", str(tmp_path / "b"))
    assert copy.folder != original.folder
    assert copy.model("frame").live.read_bytes() == b"model"
    assert [copy.journal.label_file(s) for s in copy.journal.latest()] == [tmp_path / "b/labels/final/x.png"]
    assert open_project(tmp_path / "app", str(tmp_path / "b")).folder == copy.folder
    assert open_project(tmp_path / "app", str(tmp_path / "a")).folder == original.folder


def test_models_that_cannot_be_copied_are_a_sentence_and_leave_nothing(tmp_path, monkeypatch):
    original = open_project(tmp_path / "app", studies(tmp_path, "a"))
    original.model("frame").live.write_bytes(b"model")
    original.journal.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def full(source, target, **_):
        os.makedirs(target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(JournalError, match="No space left on device; make room and start again"):
        open_project(tmp_path / "app", str(tmp_path / "b"))
    assert os.listdir(tmp_path / "app/model") == [original.folder.name]


def test_labels_of_an_earlier_release_move_with_their_studies(tmp_path):
    folder = studies(tmp_path, "a")
    journal = Journal(tmp_path / "a" / JOURNAL)
    journal.set("project", "a-1")
    with journal.write() as connection:  # as it stored them
        connection.execute(
            "INSERT INTO submissions (image, patient, label, sha256, labels, client, ts) VALUES "
            f"('x', 'x', '{tmp_path}/a/labels/final/x.png', '0', '{{}}', '', 1)"
        )
    journal.close()
    open_project(tmp_path / "app", folder).journal.close()
    os.rename(folder, tmp_path / "b")
    moved = open_project(tmp_path / "app", str(tmp_path / "b")).journal
    assert [moved.label_file(s) for s in moved.latest()] == [tmp_path / "b/labels/final/x.png"]
