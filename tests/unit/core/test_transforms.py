import numpy as np
import pytest
import torch
from unit.helpers import FRAME, SLICE, VOLUME

from lib.core.transforms import crop_slice, strong_view, weak_view

KINDS = {"frame": (FRAME, (3, 40, 26)), "slice": (SLICE, (1, 40, 26)), "volume": (VOLUME, (1, 20, 18, 24))}


def state(seed=0):
    return np.random.RandomState(seed)


def item_of(shape, value=2):
    """An image that is bright exactly where its label is set."""
    label = torch.zeros((1, *shape[1:]), dtype=torch.uint8)
    label[(0, *(slice(n // 4, 3 * n // 4) for n in shape[1:]))] = value
    image = 0.2 + 0.7 * (label > 0).float().expand(shape)
    return {"image": image.clone(), "label": label}


@pytest.mark.parametrize("kind", KINDS)
def test_the_weak_view_has_the_size_of_the_crop_and_marks_its_padding(kind):
    data, shape = KINDS[kind]
    small = (shape[0], *(n // 2 for n in shape[1:]))
    for seed in range(6):
        out = weak_view(item_of(small), data, state(seed))
        assert tuple(out["image"].shape) == (shape[0], *data.patch)
        assert tuple(out["label"].shape) == (1, *data.patch)
        padded = out["label"][0] == 255
        assert bool(padded.any())
        assert not bool(out["image"][:, padded].any())
        assert float(out["image"][:, ~padded].min()) > 0.1
        assert 0 <= float(out["image"].min()) <= float(out["image"].max()) <= 1 + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_label_values_survive_and_follow_the_image(kind):
    data, shape = KINDS[kind]
    seen = set()
    for seed in range(8):
        out = weak_view(item_of(shape), data, state(seed))
        label = out["label"][0]
        seen |= set(label.unique().tolist())
        valid = label != 255
        wrong = ((out["image"][0] > 0.55) != (label == 2)) & valid
        assert float(wrong.sum() / valid.sum().clamp(min=1)) < 0.08
    assert seen <= {0, 2, 255}
    assert {0, 2} <= seen


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_views_and_another_one_others(kind):
    data, shape = KINDS[kind]
    item = item_of(shape)
    item["image"] = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    first, again, other = (weak_view(item, data, state(s)) for s in (1, 1, 2))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"], other["image"])
    strong = [strong_view(first["image"], data, state(s)) for s in (1, 1, 2)]
    assert torch.equal(strong[0], strong[1])
    assert not torch.equal(strong[0], strong[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_views_leave_their_input_alone(kind):
    data, shape = KINDS[kind]
    item = item_of(shape)
    image, label = item["image"].clone(), item["label"].clone()
    out = weak_view(item, data, state())
    weak = out["image"].clone()
    strong_view(out["image"], data, state())
    assert torch.equal(item["image"], image)
    assert torch.equal(item["label"], label)
    assert torch.equal(out["image"], weak)


@pytest.mark.parametrize("kind", KINDS)
def test_the_strong_view_moves_no_pixel(kind):
    data, _ = KINDS[kind]
    centre = tuple(n // 3 for n in data.patch)
    image = torch.full((data.channels, *data.patch), 0.3)
    image[(slice(None), *(slice(c - 1, c + 2) for c in centre))] = 0.9
    changed = 0
    for seed in range(12):
        out = strong_view(image, data, state(seed))
        assert out.shape == image.shape
        assert out.dtype == torch.float32
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
        changed += int(not torch.allclose(out, image, atol=1e-3))
        distance = (out - out.flatten(1).median(1).values.view(-1, *(1,) * len(centre))).abs().sum(0)
        if float(distance.max()) < 0.2:
            continue  # the colours nearly vanished
        weight = torch.where(distance > 0.5 * distance.max(), distance, 0)
        for axis, expected in enumerate(centre):
            along = weight.movedim(axis, 0).flatten(1).sum(1)
            place = float((along * torch.arange(len(along))).sum() / along.sum())
            assert place == pytest.approx(expected, abs=1.5)
    assert changed >= 8


def test_frames_are_zoomed_flipped_and_moved():
    ramp = torch.linspace(0.1, 1, 60).view(1, 60, 1).expand(3, 60, 60).contiguous()
    item = {"image": ramp, "label": torch.zeros(1, 60, 60, dtype=torch.uint8)}
    slopes = []
    for seed in range(24):
        out = weak_view(item, FRAME, state(seed))
        row = out["image"][0, :, 0][out["label"][0, :, 0] != 255]
        slopes.append(float(row[5:-5].diff().mean()) / float(ramp[0, :, 0].diff().mean()))
    assert min(slopes) < 0 < max(slopes)  # flipped along the columns, not always
    assert 0.4 < min(map(abs, slopes)) < 0.8
    assert 1.3 < max(map(abs, slopes)) < 2.2


@pytest.mark.parametrize("kind", ["slice", "volume"])
def test_known_orientations_are_not_flipped(kind):
    data, shape = KINDS[kind]
    ramp = torch.linspace(0.1, 1, shape[1]).view(1, -1, *(1,) * (len(shape) - 2)).expand(shape).contiguous()
    for seed in range(8):
        out = weak_view({"image": ramp, "label": torch.zeros_like(ramp, dtype=torch.uint8)}, data, state(seed))
        means = out["image"][0].flatten(1).mean(1)
        assert float(means[data.patch[0] // 2]) > float(means[0])


def test_volume_crops_of_a_labelled_study_look_for_its_object():
    shape = (1, 48, 48, 48)
    item = {"image": torch.full(shape, 0.3), "label": torch.zeros(shape, dtype=torch.uint8)}
    item["label"][0, 3:7, 3:7, 40:44] = 1
    hits = sum(bool((weak_view(item, VOLUME, state(s))["label"] == 1).any()) for s in range(12))
    assert hits >= 6  # a plain random crop would meet it about once in ten


def test_slices_with_foreground_are_drawn_two_times_in_three():
    item = {"image": torch.zeros(1, 4, 4, 12), "label": torch.zeros(1, 4, 4, 12, dtype=torch.uint8)}
    item["label"][..., 5] = 1
    item["image"][..., 5] = 1
    rng = state()
    pairs = [crop_slice(item, rng) for _ in range(300)]
    assert all(torch.equal(d["image"], item["image"][..., index]) for d, index in pairs)
    drawn = [d for d, _ in pairs]
    assert tuple(drawn[0]["image"].shape) == tuple(drawn[0]["label"].shape) == (1, 4, 4)
    assert all(bool(d["label"].any()) == bool(d["image"].any()) for d in drawn)
    share = sum(bool(d["label"].any()) for d in drawn) / 300
    assert share == pytest.approx(2 / 3 + 1 / 36, abs=0.07)


def test_slices_without_foreground_are_drawn_alike():
    item = {"image": torch.arange(6.0).expand(1, 2, 2, 6), "label": torch.zeros(1, 2, 2, 6, dtype=torch.uint8)}
    rng = state()
    assert {float(crop_slice(item, rng)[0]["image"][0, 0, 0]) for _ in range(80)} == set(range(6))
