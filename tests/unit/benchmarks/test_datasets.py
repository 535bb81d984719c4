"""Data sets of the experiments: reading, choosing labelled patients, hiding labels, frames at working size."""

import numpy as np
import pytest
from benchmarks.datasets import (
    DataSetError,
    Studies,
    at_working_size,
    choose_groups,
    read_data_set,
    set_aside,
    studies_with,
)
from PIL import Image
from unit.helpers import FRAME

from lib.core.cases import Record, load_case


def write_frames(folder, names):
    for part, mode in (("images", (40, 80, 3)), ("labels", (40, 80))):
        (folder / part).mkdir(parents=True)
        for i, name in enumerate(names):
            array = np.zeros(mode, dtype=np.uint8)
            array[10:20, 10 + i : 30] = 200 if part == "images" else 255
            Image.fromarray(array).save(folder / part / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    write_frames(tmp_path / "set" / "pool", ["patient1_a", "patient1_b", "patient2_a", "x"])
    write_frames(tmp_path / "set" / "val", ["patient3_a"])
    return tmp_path / "set"


POOL = tuple(Record(f"i{n}", f"i{n}.png", f"l{n}.png", f"g{n // 2}") for n in range(40))


def test_a_folder_becomes_records_with_their_patients(folder):
    data = read_data_set(folder)
    assert data.kind == "frame"
    assert [r.group for r in data.pool] == ["patient1", "patient1", "patient2", "x"]
    assert len(data.val) == 1
    assert data.labels == {"class 1": 1}


def test_what_is_missing_is_said(folder):
    (folder / "pool" / "labels" / "x.png").unlink()
    with pytest.raises(DataSetError, match=r"expected a label for each image of .*pool, but x has none"):
        read_data_set(folder)
    with pytest.raises(DataSetError, match="expected files in"):
        read_data_set(folder / "nothing")


def test_the_choice_of_labels_depends_on_the_seed_alone_and_grows_with_the_number():
    few, more = choose_groups(POOL, 3, 0), choose_groups(POOL, 6, 0)
    assert len(few) == 3
    assert few < more
    assert choose_groups(tuple(reversed(POOL)), 3, 0) == few
    assert choose_groups(POOL, 3, 1) != few
    with pytest.raises(DataSetError, match="expected 1 to 20 labelled patients, but got 21"):
        choose_groups(POOL, 21, 0)


def test_only_labels_of_the_chosen_patients_can_be_seen():
    studies = studies_with(POOL, {"g0", "g3"})
    assert studies.get_labeled_images() == ["i0", "i1", "i6", "i7"]
    assert len(studies.get_unlabeled_images()) == 36
    assert studies.get_label_uri("i2", "final") == ""
    assert studies.get_image_uri("i2") == "i2.png"
    assert isinstance(studies, Studies)


def test_the_development_part_shares_no_patient_with_the_rest():
    rest, part = set_aside(POOL, 0.1)
    assert len(part) == 4
    assert len(rest) == 36
    assert not {r.group for r in rest} & {r.group for r in part}


def test_frames_are_brought_to_working_size_once(folder, tmp_path, monkeypatch):
    pool = read_data_set(folder).pool
    small = at_working_size(pool, FRAME, 2, tmp_path / "cache")
    before = load_case(pool[1].image, pool[1].label, FRAME, 2)
    after = load_case(small[1].image, small[1].label, FRAME, 2)
    assert after.image.shape == (3, 64, 32)  # MONAI reads pictures as columns, rows
    assert float((after.image - before.image).abs().max()) <= 0.5 / 255 + 1e-6
    assert bool((after.label == before.label).all())
    monkeypatch.setattr("benchmarks.datasets.load_case", None)
    assert at_working_size(pool, FRAME, 2, tmp_path / "cache") == small
