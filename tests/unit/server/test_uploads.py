import errno
import io
import shutil
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import BackgroundTasks, FastAPI, UploadFile
from fastapi.testclient import TestClient
from monailabel.endpoints import datastore as stock
from monailabel.endpoints.user.auth import DEFAULT_USER
from PIL import Image

from lib.server import uploads
from lib.server.folder import FolderStudies
from lib.server.sessions import GuardedSessions
from lib.store.journal import Journal


class Full:
    """A disk that is full after the first bytes of a file."""

    def __call__(self, source, target, *rest):
        target.write(source.read(3))
        target.flush()
        raise OSError(errno.ENOSPC, "full")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def file(name, content=b"content"):
    return UploadFile(io.BytesIO(content), filename=name)


def test_a_full_disk_is_not_made_fuller(folder, monkeypatch):
    monkeypatch.setattr(shutil, "copyfileobj", Full())
    with pytest.raises(OSError, match="full"):
        stock.save_label(BackgroundTasks(), "a", "{}", "final", file("label.png"))
    assert len(list(folder.iterdir())) == 1, "as it comes"
    shutil.rmtree(folder)
    folder.mkdir()
    monkeypatch.setattr(uploads, "app_instance", lambda: None)
    with pytest.raises(OSError, match="full"):
        uploads.save_label(BackgroundTasks(), "a", "{}", "final", file("label.png"), DEFAULT_USER)
    with pytest.raises(OSError, match="full"):
        uploads.add_image(BackgroundTasks(), "a", "{}", file("a.png"), DEFAULT_USER)
    assert list(folder.iterdir()) == []


def test_equal_names_at_once_are_different_files(folder):
    with uploads.received([file("label.png", b"1")]) as one, uploads.received([file("label.png", b"2")]) as other:
        assert [(f / "label.png").read_bytes() for f in (one, other)] == [b"1", b"2"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2])
def test_files_of_a_session_are_kept_and_nothing_else(folder, tmp_path_factory, monkeypatch, count):
    sessions = GuardedSessions(tmp_path_factory.mktemp("sessions"), 3600)
    monkeypatch.setattr(uploads, "app_instance", lambda: SimpleNamespace(sessions=lambda: sessions))
    files = [file(f"image{n:04d}.png", f"{n}".encode()) for n in range(count)]
    reply = uploads.create_session(BackgroundTasks(), False, 0, files, DEFAULT_USER)
    image = Path(sessions.get_session(reply["session_id"]).image)
    kept = [image] if image.is_file() else sorted(image.iterdir())
    assert [(f.name, f.read_bytes()) for f in kept] == [(f"image{n:04d}.png", f"{n}".encode()) for n in range(count)]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("ends", ["well", "full disk"])
def test_an_archive_of_the_studies_does_not_stay(folder, tmp_path_factory, monkeypatch, ends):
    root = tmp_path_factory.mktemp("studies")
    for name in ("a.png", "labels/final/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(root / name)
    studies = FolderStudies(root, Journal(root / "loco.sqlite"))
    monkeypatch.setattr(uploads, "app_instance", lambda: SimpleNamespace(datastore=lambda: studies))
    if ends == "full disk":
        monkeypatch.setattr(shutil, "copyfileobj", Full())
    app = FastAPI()
    app.get("/dataset")(lambda: uploads.download_dataset(None, DEFAULT_USER))
    answer = TestClient(app, raise_server_exceptions=False).get("/dataset")
    if ends == "well":
        assert sorted(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == ["image/a.png", "label/a.png"]
    else:
        assert answer.status_code == 500
    assert list(folder.iterdir()) == []
