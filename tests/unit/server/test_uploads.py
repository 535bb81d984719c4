import errno
import io
import shutil
import tempfile

import pytest
from fastapi import BackgroundTasks, UploadFile
from monailabel.endpoints import datastore as stock
from monailabel.endpoints.user.auth import DEFAULT_USER

from lib.server import uploads


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
