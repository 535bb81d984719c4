"""A folder of studies: which files are studies, under which id, noticed when and how."""

import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unit.helpers import nifti, noise, png

from lib.core.spec import SpecError
from lib.server import files
from lib.server.datalist import ListedStudies
from lib.server.files import FileTree
from lib.server.folder import FolderStudies, new_ids, safe_id
from lib.server.history import history_router
from lib.store.journal import Journal
from lib.store.records import Pick

PICTURE = noise(8, 6, 3)


def picture(path, array=PICTURE):
    path.parent.mkdir(parents=True, exist_ok=True)
    return png(path, array)


def studies(root) -> FolderStudies:
    store = FolderStudies(root, Journal(root / "loco.sqlite"))
    store.attach({"polyp": 1}, r"^(patient\d+)")
    return store


def test_every_format_at_any_depth_is_one_case(tmp_path):
    names = ["a.png", "b.JPG", "c.jpeg", "d.tiff", "e.bmp", "sub/f.png", "sub/deeper/g.PNG", "case.1.png", "case.2.png"]
    for name in names:
        picture(tmp_path / name)
    nifti(tmp_path / "v.nii.gz", noise(4, 5, 6))
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    assert studies(tmp_path).list_images() == [
        "a", "b", "c", "case.1", "case.2", "d", "e", "sub__deeper__g", "sub__f", "v",
    ]  # fmt: skip


def test_a_name_that_is_no_text_is_left_out_and_said_once(tmp_path, caplog):
    picture(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/M\xfcller.png")
    picture(tmp_path / "b.png")
    store = studies(tmp_path)
    for _ in range(2):
        store.refresh()
        assert store.list_images() == ["b"]
    assert caplog.text.count(r"expected a name in UTF-8, but got 'M\udcfcller.png'; rename it") == 1


def test_equal_stems_are_cases_of_their_own(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "a.png")
    store = studies(tmp_path)
    first, second = store.list_images()
    assert first == "a"
    assert second.startswith("a-")
    assert {store.image_file(first).name, store.image_file(second).name} == {"a.jpg", "a.png"}


def test_ids_survive_the_adding_of_files_and_restarts(tmp_path):
    picture(tmp_path / "a.tif")
    store = studies(tmp_path)
    assert store.list_images() == ["a"]
    picture(tmp_path / "a.png")  # would come first
    assert store.image_file("a").name == "a.tif"
    again = studies(tmp_path)
    assert again.image_file("a").name == "a.tif"
    assert again.list_images() == store.list_images()
    (tmp_path / "a.tif").unlink()
    assert "a" not in studies(tmp_path).list_images(), "another picture does not inherit the id, and with it the label"


def test_new_files_and_folders_are_noticed_by_themselves(tmp_path):
    picture(tmp_path / "a.png")
    store = studies(tmp_path)
    store.list_images()
    picture(tmp_path / "new/b.png")
    store._tree.files(now=True)
    assert store.list_images() == ["a", "new__b"]
    shutil.rmtree(tmp_path / "new")
    store._tree.files(now=True)
    assert store.list_images() == ["a"]


def test_a_folder_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    picture(tmp_path / "sub/a.png")
    monkeypatch.setattr(files, "_SETTLED_NS", -1)
    tree = FileTree(tmp_path, (".png",))
    assert tree.files() == ("sub/a.png",)
    monkeypatch.setattr(files.os, "scandir", lambda path: pytest.fail(f"read {path} again"))
    assert tree.files(now=True) == ("sub/a.png",)


def test_labels_of_equal_names_go_to_their_own_case(tmp_path):
    picture(tmp_path / "x/1.png")
    picture(tmp_path / "y/1.png", noise(8, 6, 3, seed=1))
    store = studies(tmp_path)
    label = png(tmp_path / "label.tmp.png", np.ones((8, 6), np.uint8))
    (tmp_path / "out").mkdir()
    moved = shutil.move(label, tmp_path / ".label.png")
    store.save_label("x__1", str(moved), "final", {"client_id": "ann", "label_info": [{"name": "Polyp", "idx": 1}]})
    assert store.get_labeled_images() == ["x__1"]
    assert store.get_unlabeled_images() == ["y__1"]
    assert store.status() == {"total": 2, "completed": 1, "label_tags": {"final": 1}}
    objects = store.json()["objects"]
    assert objects["x__1"]["labels"]["final"]["info"]["client_id"] == "ann"
    assert objects["y__1"]["image"]["info"]["name"] == "y__1.png"


def test_a_label_can_be_edited_and_removed(tmp_path):
    picture(tmp_path / "a.png")
    store = studies(tmp_path)
    first = png(tmp_path / ".1.png", np.ones((8, 6), np.uint8))
    second = nifti(tmp_path / ".2.nii.gz", np.zeros((6, 8, 1), np.uint8))
    store.save_label("a", first, "final", {})
    store.save_label("a", second, "final", {})
    assert [p.name for p in (tmp_path / "labels/final").iterdir()] == ["a.nii.gz"]
    assert len(store._journal.submissions()) == 2
    store.save_label("a", first, "original", {"params": {"label_names": {"polyp": 1}}})
    assert store.json()["objects"]["a"]["labels"]["original"]["info"]["params"] == {"label_names": {"polyp": 1}}
    store.remove_label("a", "final")
    assert store.get_labeled_images() == []
    assert store._journal.labelled_images() == set()


def test_unknown_studies_and_labels_are_sentences(tmp_path):
    picture(tmp_path / "a.png")
    store = studies(tmp_path)
    with pytest.raises(HTTPException, match=r"expected the id of a study, but got '\.\./a'"):
        store.image_file("../a")
    assert store.get_image_uri("nothing") == ""
    with pytest.raises(HTTPException, match="expected a label final of a, but there is none"):
        store.update_label_info("a", "final", {})
    with pytest.raises(HTTPException, match="expected at least one submitted label"):
        store.get_dataset_archive(None)
    with pytest.raises(HTTPException, match="expected a new study, but there is one called 'a'"):
        store.add_image("a", str(tmp_path / "a.png"), {})
    assert store.add_image("../b", str(tmp_path / "a.png"), {"from": "viewer"}) == "_b"
    assert store.get_image_info("_b")["from"] == "viewer"


@given(st.lists(st.text(max_size=12).filter(lambda t: "/" not in t and "\\" not in t), max_size=6, unique=True))
def test_ids_are_different_and_can_be_file_names(stems):
    paths = [f"{s}.png" for s in stems] + [f"sub/{s}.png" for s in stems] + [f"{s}.nii.gz" for s in stems]
    ids = new_ids(paths, [])
    assert len(set(ids.values())) == len(paths)
    for value in ids.values():
        assert value == safe_id(value)
        assert not set(value) & set('/\\:*?"<>|\n')
        assert len(value.encode()) <= 200
        assert value[0] not in ".- "


def test_a_datalist_names_images_and_labels(tmp_path):
    picture(tmp_path / "imagesTr/a.png")
    picture(tmp_path / "imagesTr/b.png")
    png(tmp_path / "mask.png", np.ones((8, 6), np.uint8))
    entries = [
        {"image": "./imagesTr/a.png", "label": "mask.png"}, {"image": "imagesTr/b.png"}, {"image": "imagesTr/gone.png"},
    ]  # fmt: skip
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    store = ListedStudies(tmp_path / "list.json", Journal(tmp_path / "state/loco.sqlite"), tmp_path / "state")
    store.attach({"polyp": 1}, "^(x)")
    assert store.list_images() == ["imagesTr__a", "imagesTr__b"]
    assert store.get_labeled_images() == ["imagesTr__a"]
    assert store._journal.labelled_images() == {"imagesTr__a"}
    store.remove_label("imagesTr__a", "final")
    store.sync_journal()
    assert store.get_labeled_images() == [], "a label that was removed does not come back"
    assert (tmp_path / "mask.png").exists()
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SpecError, match=r"expected list\.json to be a datalist"):
        ListedStudies(tmp_path / "list.json", Journal(tmp_path / "state/loco.sqlite"), tmp_path / "state")


def test_no_lock_is_held_when_a_label_is_kept(tmp_path, monkeypatch):
    """A PACS takes another lock first, and its watcher the two in that order: holding this one would end in a deadlock."""
    picture(tmp_path / "a.png")
    store = studies(tmp_path)
    held = []

    def keep_label(*_):
        other = threading.Thread(target=lambda: held.append(not store._submitting.acquire(blocking=False)))
        other.start()
        other.join()

    monkeypatch.setattr(store, "keep_label", keep_label)
    mask = png(tmp_path.parent / "mask.png", np.ones((8, 6), np.uint8))
    store.save_label("a", mask, "final", {"client_id": "ann"})
    assert held == [False]


def test_a_label_that_was_copied_into_the_folder_counts_for_its_classes(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    store = studies(tmp_path)
    (tmp_path / "labels/final").mkdir(parents=True, exist_ok=True)
    png(tmp_path / "labels/final/a.png", 255 * np.eye(8, 6, dtype=np.uint8))
    png(tmp_path / "labels/final/b.png", np.zeros((8, 6), np.uint8))
    (tmp_path / "labels/final/c.png").write_bytes(b"no picture")
    store.refresh()
    assert store.sync_journal() == 3
    assert [s.labels for s in Journal(tmp_path / "loco.sqlite").latest()] == [{"polyp": 1}, {}, {}]


def test_a_label_of_somebody_who_was_overtaken_is_a_second_reading(tmp_path):
    """Ann's hold ran out, bob got the image and labelled it first: neither label is lost, and his counts."""
    picture(tmp_path / "a.png")
    store = studies(tmp_path)
    journal = Journal(tmp_path / "loco.sqlite")
    for client in ("ann", "bob"):
        journal.add_pick(Pick(0, "a", client, "frame", 1, "coverage", time.time()))
    drawn = {"bob": np.ones((8, 6), np.uint8), "ann": np.eye(8, 6, dtype=np.uint8)}
    masks = {c: png(tmp_path.parent / f"{c}.png", mask) for c, mask in drawn.items()}
    for client in ("bob", "ann"):
        assert store.save_label("a", str(masks[client]), "final", {"client_id": client}) == "a"
    label = Path(store.get_label_uri("a", "final"))
    assert np.asarray(Image.open(label)).min() == 1, "bob's"
    assert [(s.client, r.client) for s, r in zip(journal.latest(), journal.readings("a"), strict=True)] == [
        ("bob", "ann")
    ]
    assert store.still_to_do("a").startswith("Somebody else labelled this image")
    app = FastAPI()
    app.include_router(history_router(journal))
    client = TestClient(app)
    (reading,) = client.get("/loco/readings", params={"image": "a"}).json()
    assert (reading["client"], reading["labels"], reading["kept"]) == ("ann", {"polyp": 1}, True)
    file = client.get(f"/loco/readings/{reading['id']}/file")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.content))), np.eye(8, 6))
    assert client.get("/loco/readings/99/file").status_code == 404
    assert client.get("/loco/readings", params={"image": "b"}).json() == []
    store.save_label("a", str(masks["ann"]), "final", {"client_id": "ann"})
    assert np.asarray(Image.open(label)).min() == 0, "she was told and submitted it again"
    assert store.still_to_do("a") == ""
