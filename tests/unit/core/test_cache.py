import logging
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from unit.helpers import FRAME, VOLUME, nifti, noise, png

from lib.core import cache as module
from lib.core.cache import CaseCache, CaseStore, key_of
from lib.core.cases import Record
from lib.core.images import CaseError
from lib.core.spec import DataSpec

KB = 1000


def item(value, size=KB):
    return {"image": torch.full((size // 4,), float(value))}


def used(folder):
    return sum(p.stat().st_size for p in folder.iterdir())


def kept(folder):
    return {p.stem for p in folder.glob("*.npz")}


def aged(cache, **ages):
    """Last use of the named entries, so many seconds ago."""
    for name, age in ages.items():
        path = cache.folder / f"{name}.npz"
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))


def test_what_is_put_comes_back_in_another_process_too(tmp_path):
    tensors = {"image": torch.rand(3, 4, 5), "label": torch.ones(1, 4, 5, dtype=torch.uint8)}
    CaseCache(tmp_path / "cache", 10**6).put("a", tensors)
    again = CaseCache(tmp_path / "cache", 10**6)
    found = again.get("a")
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors.items())
    assert again.get("b") is None


def test_the_least_recently_used_go_first_and_the_limit_holds(tmp_path):
    cache = CaseCache(tmp_path, 10 * KB)
    for name in "abcde":
        cache.put(name, item(0))
    aged(cache, a=500, b=400, c=300, d=200, e=100)
    assert cache.get("a") is not None  # used just now
    for name in "fghijk":
        cache.put(name, item(0))
    assert used(tmp_path) <= 10 * KB
    assert "a" in kept(tmp_path)
    assert not kept(tmp_path) & {"b", "c"}
    assert "k" in kept(tmp_path)


def test_the_limit_holds_over_many_writes_of_two_processes(tmp_path):
    """Each counts only what it writes itself and looks at the folder now and then."""
    caches = [CaseCache(tmp_path, 40 * KB) for _ in range(2)]
    for number in range(120):
        caches[number % 2].put(f"x{number}", item(number))
        assert used(tmp_path) <= 40 * KB * (1 + 2 / 16) + KB
    assert used(tmp_path) > 20 * KB


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path):
    cache = CaseCache(tmp_path, 2 * KB)
    cache.put("large", item(0, 5 * KB))
    assert kept(tmp_path) == set()


def test_at_most_half_of_the_free_disk_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20 * KB - used(folder)))
    cache = CaseCache(tmp_path, 10**9)
    for number in range(40):
        cache.put(f"x{number}", item(0))
    assert 5 * KB < used(tmp_path) <= 11 * KB


@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped", "text", "empty"])
def test_a_damaged_file_is_read_anew(tmp_path, caplog, damage):
    cache = CaseCache(tmp_path, 10**6)
    cache.put("a", item(7))
    path = tmp_path / "a.npz"
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "cut": content[:middle],
            "zeros": bytes(len(content)),
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "text": b"not an archive",
            "empty": b"",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert cache.get("a") is None
    assert "damaged" in caplog.text
    cache.put("a", item(7))
    assert torch.equal(cache.get("a")["image"], item(7)["image"])


def test_nothing_that_could_run_is_ever_loaded(tmp_path):
    cache = CaseCache(tmp_path, 10**6)
    np.savez(tmp_path / "a.npz", image=np.array([print], dtype=object))
    assert cache.get("a") is None


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path, caplog, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    cache = CaseCache(tmp_path, 10**6)
    cache.put("a", item(1))
    monkeypatch.setattr(module.np, "savez", full)
    with caplog.at_level(logging.WARNING):
        for name in "bcd":
            cache.put(name, item(0))
    assert [r.getMessage() for r in caplog.records] == [
        f"Cases are no longer cached: {tmp_path} cannot be written (No space left on device)"
    ]
    assert cache.get("a") is not None
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"], "nothing half-written stays"


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = CaseCache(tmp_path / "file" / "cache", 10**6)
    with caplog.at_level(logging.WARNING):
        cache.put("a", item(0))
    assert cache.get("a") is None
    assert "no longer cached" in caplog.text


def test_a_limit_of_nothing_writes_nothing(tmp_path):
    cache = CaseCache(tmp_path / "cache", 0)
    cache.put("a", item(0))
    assert not (tmp_path / "cache").exists()


def test_what_a_dead_writer_left_is_removed(tmp_path):
    old, new = tmp_path / ".a.npz.x.tmp", tmp_path / ".b.npz.y.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    CaseCache(tmp_path, 10**6).put("a", item(0))
    assert (old.exists(), new.exists()) == (False, True)


# --- cases


def frame(tmp_path, label=True):
    image = png(tmp_path / "image.png", noise(20, 24, 3))
    return Record("a", image, png(tmp_path / "label.png", noise(20, 24, high=2)) if label else None, "a")


@pytest.fixture
def loads(monkeypatch):
    """Names of the images that were really read."""
    names = []
    real = module.load_case

    def load(image, *rest):
        names.append(os.path.basename(image))
        return real(image, *rest)

    monkeypatch.setattr(module, "load_case", load)
    return names


@pytest.mark.parametrize("kind", ["frame", "volume"])
def test_a_case_is_read_once_for_all_runs(tmp_path, loads, kind):
    data = FRAME if kind == "frame" else VOLUME
    record = frame(tmp_path)
    if kind == "volume":
        label = noise(9, 8, 7, high=2)
        paths = nifti(tmp_path / "v.nii.gz", noise(9, 8, 7).astype(np.float32)), nifti(tmp_path / "l.nii.gz", label)
        record = Record("v", *paths, "v")
    direct = CaseStore(data, 2, None)(record)
    loads.clear()
    items = [CaseStore(data, 2, CaseCache(tmp_path / "cache", 10**7))(record) for _ in range(3)]
    assert len(loads) == 1
    for got in items:
        assert got.keys() == direct.keys()
        assert all(torch.equal(got[k], direct[k]) and got[k].dtype == direct[k].dtype for k in direct)


def test_a_resubmitted_label_is_read_anew(tmp_path, loads):
    record = frame(tmp_path)
    store = CaseStore(FRAME, 2, CaseCache(tmp_path / "cache", 10**7))
    before = store(record)
    png(tmp_path / "label.png", np.ones((20, 24), np.uint8))
    os.utime(tmp_path / "label.png", (1, 1))
    assert bool((store(record)["label"] == 1).all())
    assert not bool((before["label"] == 1).all())
    assert len(loads) == 2


def test_every_thing_that_decides_the_content_is_in_the_name(tmp_path, monkeypatch):
    record = frame(tmp_path)
    names = {key_of(record, FRAME, 2), key_of(record, FRAME, 3), key_of(Record("a", record.image, None, "a"), FRAME, 2)}
    names.add(key_of(record, DataSpec("frame", (32, 32), 48), 2))
    os.utime(record.image, (1, 1))
    names.add(key_of(record, FRAME, 2))
    monkeypatch.setattr(module, "_code", lambda: "other code")
    names.add(key_of(record, FRAME, 2))
    assert len(names) == 6
    assert key_of(record, FRAME, 2) == key_of(Record("b", record.image, record.label, "c"), FRAME, 2)


@pytest.mark.parametrize("name", ["zero.png", "zero.nii.gz", "missing.png"])
def test_the_store_names_a_file_that_cannot_be_read(tmp_path, name):
    if name.startswith("zero"):
        (tmp_path / name).touch()
    data = FRAME if name.endswith("png") else VOLUME
    store = CaseStore(data, 2, CaseCache(tmp_path / "cache", 10**6))
    with pytest.raises(CaseError, match=rf"^{name}: expected an? "):
        store(Record("a", str(tmp_path / name), None, "a"))
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True
