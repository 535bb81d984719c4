import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from unit.helpers import FRAME, SLICE, VOLUME, nifti, noise, png

from lib.core.batch import Batch, Origin, StepDataset, Views, train_loader
from lib.core.cache import CaseCache, CaseStore
from lib.core.cases import Record
from lib.core.images import CaseError
from lib.core.spec import TrainSpec

TRAINING = TrainSpec(4, 5, 2, 3, 1e-2, 0.9, seed=7)


@pytest.fixture
def pictures(tmp_path):
    """Three labelled and four unlabelled pictures."""
    records = []
    for i in range(7):
        blocks = np.kron(noise(5, 6, 3, seed=i, low=20), np.ones((8, 8, 1), np.uint8))
        image = png(tmp_path / f"s{i}.png", blocks)
        label = png(tmp_path / f"l{i}.png", noise(40, 48, seed=i, high=2)) if i < 3 else None
        records.append(Record(f"s{i}", image, label, f"s{i}"))
    return records[:3], records[3:]


def dataset(pictures, tmp_path, training=TRAINING):
    labelled, unlabelled = pictures
    store = CaseStore(FRAME, 2, CaseCache(tmp_path / "cache", 10**8))
    return StepDataset(labelled, unlabelled, store, FRAME, training)


def equal(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("image_l", "label_l", *UNLABELLED))


UNLABELLED = ("image_u_weak", "image_u_strong", "ignore_u")


def test_shapes_and_types(pictures, tmp_path):
    steps = dataset(pictures, tmp_path)
    batch = steps[0]
    assert len(steps) == 20
    assert tuple(batch.image_l.shape) == (2, 3, 32, 32)
    assert tuple(batch.label_l.shape) == (2, 32, 32)
    assert tuple(batch.image_u_weak.shape) == tuple(batch.image_u_strong.shape) == (3, 3, 32, 32)
    assert tuple(batch.ignore_u.shape) == (3, 32, 32)
    assert batch.label_l.dtype == batch.ignore_u.dtype == torch.uint8
    assert batch.image_l.dtype == batch.image_u_weak.dtype == batch.image_u_strong.dtype == torch.float32
    assert type(batch.image_l) is type(batch.image_u_strong) is torch.Tensor
    assert set(batch.label_l.unique().tolist()) <= {0, 1, 255}
    assert set(batch.ignore_u.unique().tolist()) <= {0, 255}


def test_padded_pixels_are_black_and_ignored(pictures, tmp_path):
    steps = dataset(pictures, tmp_path)
    padded = 0
    for step in range(4):
        batch = steps[step]
        for image, label in ((batch.image_l, batch.label_l), (batch.image_u_weak, batch.ignore_u)):
            outside = (label == 255).unsqueeze(1).expand_as(image)
            assert not bool(image[outside].any())
            assert float(image[~outside].min()) > 0
            padded += int(outside.sum())
    assert padded > 0


def test_a_step_is_always_the_same_batch_and_no_other_steps(pictures, tmp_path):
    first, second = dataset(pictures, tmp_path), dataset(pictures, tmp_path)
    second[5]  # whatever was drawn before
    assert equal(first[3], second[3])
    assert not equal(first[3], first[4])
    other = dataset(pictures, tmp_path, replace(TRAINING, seed=8))
    assert not equal(first[3], other[3])


def test_a_resumed_run_goes_on_with_the_same_batches(pictures, tmp_path):
    training = replace(TRAINING, epochs=1)
    whole = list(train_loader(dataset(pictures, tmp_path, training), 0, workers=0, cuda=False))
    rest = list(train_loader(dataset(pictures, tmp_path, training), 3, workers=0, cuda=False))
    assert [len(whole), len(rest)] == [5, 2]
    assert all(equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_the_strong_view_shows_the_weak_crop(pictures, tmp_path):
    batch = dataset(pictures, tmp_path, replace(TRAINING, batch_unlabelled=4))[1]

    def likeness(weak, strong):
        return float(torch.corrcoef(torch.stack([weak.flatten(), strong.flatten()]))[0, 1])

    for weak, strong in zip(batch.image_u_weak.mean(1), batch.image_u_strong.mean(1), strict=True):
        aligned = likeness(weak, strong)
        assert aligned > 0.2
        assert all(likeness(weak, strong.roll(4, axis)) < aligned for axis in (0, 1))
    assert not torch.allclose(batch.image_u_weak, batch.image_u_strong, atol=0.05)


def counting(records):
    drawn = Counter()

    def load(record):
        drawn[record.id] += 1
        item = {"image": torch.full((3, 32, 32), 0.5)}
        return {**item, "label": torch.zeros(1, 32, 32, dtype=torch.uint8)} if record.label else item

    return drawn, load


def test_every_study_appears_equally_often(pictures):
    labelled, unlabelled = pictures
    drawn, load = counting(labelled)
    training = TrainSpec(1, 12, 2, 3, 1e-2, 0.9, seed=1)
    steps = StepDataset(labelled, unlabelled, load, FRAME, training)
    for step in range(12):
        steps[step]
    assert {drawn[r.id] for r in labelled} == {12 * 2 // 3}
    assert {drawn[r.id] for r in unlabelled} == {12 * 3 // 4}


@pytest.mark.parametrize("world", [2, 4])
def test_the_rows_of_several_processes_are_the_batch_of_one(pictures, tmp_path, world):
    """Of 4 processes some have no labelled row."""
    labelled, unlabelled = pictures
    store = CaseStore(FRAME, 2, None)
    parts = [StepDataset(labelled, unlabelled, store, FRAME, TRAINING, rank=r, world=world)[3] for r in range(world)]
    whole = dataset(pictures, tmp_path)[3]
    together = Batch(**{n: torch.cat([getattr(p, n) for p in parts]) for n in ("image_l", "label_l", *UNLABELLED)})
    together.origin_l, together.origin_u = (sum((getattr(p, n) for p in parts), ()) for n in ("origin_l", "origin_u"))
    assert equal(together, whole)
    assert together.label_l.dtype == together.ignore_u.dtype == torch.uint8


def test_each_lap_has_an_order_of_its_own(pictures):
    _, unlabelled = pictures
    order = []
    steps = StepDataset(
        pictures[0],
        unlabelled,
        lambda r: (order.append(r.id), {"image": torch.zeros(3, 32, 32)})[1],
        FRAME,
        TrainSpec(1, 40, 1, 4, 1e-2, 0.9),
    )
    laps = []
    for step in range(6):
        order.clear()
        steps[step]
        laps.append(tuple(order[1:]))
    assert all(sorted(lap) == sorted(r.id for r in unlabelled) for lap in laps)
    assert len(set(laps)) > 1


def test_one_label_is_enough(pictures, tmp_path):
    batch = dataset((pictures[0][:1], pictures[1][:1]), tmp_path)[0]
    assert len(batch.image_l) == 2
    assert len(batch.image_u_weak) == 3


@pytest.mark.parametrize("how", ["none left", "batch of 0"])
def test_without_unlabelled_studies_there_is_no_unlabelled_part(pictures, tmp_path, how):
    labelled, unlabelled = pictures
    unlabelled = [] if how == "none left" else unlabelled
    training = replace(TRAINING, batch_unlabelled=0) if how == "batch of 0" else TRAINING
    batch = dataset((labelled, unlabelled), tmp_path, training)[0]
    assert [getattr(batch, n) for n in UNLABELLED] == [None] * 3
    assert len(batch.image_l) == 2


def test_without_labels_there_is_a_clear_message(pictures, tmp_path):
    with pytest.raises(
        ValueError, match="expected at least one labelled study to train on, but got none; submit a label"
    ):
        dataset(([], pictures[1]), tmp_path)


def test_more_views_for_methods_that_ask_change_nothing_else(pictures, tmp_path):
    labelled, unlabelled = pictures
    store = CaseStore(FRAME, 2, None)
    usual = StepDataset(labelled, unlabelled, store, FRAME, TRAINING)[3]
    more = StepDataset(labelled, unlabelled, store, FRAME, TRAINING, Views(strong_u=2, strong_l=True))[3]
    for name in ("image_l", "label_l", "image_u_weak", "image_u_strong", "ignore_u"):
        assert torch.equal(getattr(usual, name), getattr(more, name))
    assert usual.image_u_strong_2 is usual.image_l_strong is None
    assert more.image_u_strong_2.shape == more.image_u_weak.shape
    assert not torch.equal(more.image_u_strong_2, more.image_u_strong)
    assert not torch.equal(more.image_l_strong, more.image_l)
    none = StepDataset(labelled, unlabelled, store, FRAME, TRAINING, Views(unlabelled=False))[3]
    assert none.image_u_weak is None
    assert torch.equal(none.image_l, usual.image_l)


def test_each_image_says_where_it_comes_from(pictures, tmp_path):
    labelled, unlabelled = pictures
    batch = dataset(pictures, tmp_path)[0]
    assert {o.study for o in batch.origin_l} <= {r.id for r in labelled}
    assert {o.study for o in batch.origin_u} <= {r.id for r in unlabelled}
    assert all((o.slice, o.slices) == (0, 1) for o in (*batch.origin_l, *batch.origin_u))


def broken(tmp_path, name, label=None):
    (tmp_path / name).touch()
    return Record(name, str(tmp_path / name), label, name)


def test_an_unreadable_unlabelled_study_is_replaced_and_named_once(pictures, tmp_path, caplog):
    labelled, unlabelled = pictures
    steps = dataset((labelled, [broken(tmp_path, "zero.png"), unlabelled[0]]), tmp_path)
    with caplog.at_level(logging.WARNING):
        batches = [steps[i] for i in range(4)]
    assert all(len(b.image_u_weak) == 3 for b in batches)
    messages = [r.message for r in caplog.records if "zero.png" in r.message]
    assert len(messages) == 1
    assert messages[0].startswith("Skipped in training: zero.png: expected an image, but the file is empty (0 bytes)")


def test_an_unusable_label_is_skipped_and_never_taken_for_background(pictures, tmp_path, caplog):
    labelled, unlabelled = pictures
    wrong = png(tmp_path / "wrong.png", noise(40, 43, high=2))
    bad = Record("bad", labelled[0].image, wrong, "bad")
    steps = dataset(([bad, labelled[1]], unlabelled), tmp_path)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            batch = steps[step]
            assert all(bool((label == 1).any()) for label in batch.label_l)
    assert "Skipped in training: wrong.png: expected a label of shape" in caplog.text


def test_when_nothing_can_be_read_the_run_ends_with_a_sentence(pictures, tmp_path):
    steps = dataset((pictures[0], [broken(tmp_path, "zero.png"), broken(tmp_path, "zero2.png")]), tmp_path)
    with pytest.raises(CaseError, match="no study of its kind can be read; check the files of the studies"):
        steps[0]


# --- volumes


def volume_records(tmp_path, shape):
    records = []
    for i in range(3):
        array = noise(*shape, seed=i, low=50).astype(np.float32)
        label = np.zeros(shape, np.uint8)
        label[1:3, 2:5, 1:3] = 1
        path = nifti(tmp_path / f"v{i}.nii.gz", array)
        records.append(Record(f"v{i}", path, nifti(tmp_path / f"l{i}.nii.gz", label) if i == 0 else None, f"v{i}"))
    return records


def test_slices_of_volumes(tmp_path):
    records = volume_records(tmp_path, (20, 24, 5))
    store = CaseStore(SLICE, 2, None)
    batch = StepDataset(records[:1], records[1:], store, SLICE, TRAINING)[0]
    depth = store(records[0])["image"].shape[-1]
    assert all(0 <= o.slice < o.slices == depth for o in (*batch.origin_l, *batch.origin_u))
    assert tuple(batch.image_l.shape) == (2, 1, 32, 32)
    assert tuple(batch.image_u_strong.shape) == (3, 1, 32, 32)
    assert bool((batch.ignore_u == 255).any())
    assert not bool(batch.image_u_weak[(batch.ignore_u == 255).unsqueeze(1)].any())


@pytest.mark.parametrize("flipped", [False, True])
def test_the_origin_of_a_slice_is_its_place_from_the_feet_up(tmp_path, flipped):
    label = np.broadcast_to(np.arange(1, 6, dtype=np.uint8), (40, 40, 5)).copy()
    affine = np.diag([1.0, 1.0, -1.0 if flipped else 1.0, 1.0])
    image = nifti(tmp_path / "v.nii.gz", noise(40, 40, 5, low=50).astype(np.float32), affine)
    record = Record("v", image, nifti(tmp_path / "l.nii.gz", label, affine), "v")
    batches = StepDataset([record], [], CaseStore(SLICE, 6, None), SLICE, TRAINING)
    found = {
        (o.slice, int(y[y != 255].unique()))
        for s in range(10)
        for o, y in zip(batches[s].origin_l, batches[s].label_l, strict=True)
    }
    assert len(found) >= 4
    assert found <= {(i, 5 - i if flipped else i + 1) for i in range(5)}


def test_a_volume_smaller_than_the_crop_is_padded(tmp_path):
    records = volume_records(tmp_path, (9, 11, 6))
    store = CaseStore(VOLUME, 2, None)
    batch = StepDataset(records[:1], records[1:], store, VOLUME, TRAINING)[0]
    assert tuple(batch.image_l.shape) == (2, 1, 16, 16, 16)
    assert tuple(batch.image_u_strong.shape) == (3, 1, 16, 16, 16)
    for image, label in ((batch.image_l, batch.label_l), (batch.image_u_weak, batch.ignore_u)):
        assert int((label != 255).sum()) == len(label) * 9 * 11 * 6
        assert not bool(image[(label == 255).unsqueeze(1)].any())
    assert bool((batch.label_l == 1).any())


def test_to_moves_every_tensor_and_keeps_the_gaps():
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), origin_l=(Origin("p", "s"),)).to(torch.device("meta"))
    assert batch.image_l.device.type == batch.label_l.device.type == "meta"
    assert batch.image_u_weak is None
    assert batch.origin_l == (("p", "s", 0, 1),)
