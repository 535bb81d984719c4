import math

import pytest
import torch

from lib.core.memory import Queue, info_nce, ranked_list_loss, similarities


def test_a_queue_keeps_the_latest_in_order():
    queue = Queue(3, 1)
    assert queue.vectors.shape == (0, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    assert queue.vectors.flatten().tolist() == [1, 2]
    queue.push(torch.tensor([[3.0], [4.0]]).requires_grad_())
    assert queue.vectors.flatten().tolist() == [2, 3, 4]
    assert not queue.vectors.requires_grad
    again = Queue(3, 1)
    again.load_state_dict(queue.state_dict())
    assert again.vectors.flatten().tolist() == [2, 3, 4]


def test_a_queue_of_no_size_stays_empty():
    queue = Queue(0, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    assert queue.vectors.shape == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_similarities_and_their_losses_in_float32(dtype):
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(12, 32), dim=1)
    vectors[3:6] = vectors[:3]  # equal vectors: half precision makes of their distance 0, whose root has no gradient
    labels, everyone = torch.arange(12) % 3, torch.ones(12, dtype=torch.bool)
    found = []
    for on in (False, True):
        own = vectors.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=on):
            assert similarities(own.to(dtype), own).dtype == torch.float32
            loss = ranked_list_loss(own, labels, everyone, alpha=1.2, margin=0.4, sharpness=10.0)
            same = labels[:, None] == labels[None]
            loss = loss + info_nce(similarities(own, own) / 0.1, same, ~same)
        loss.backward()
        found.append((loss.detach(), own.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert bool(torch.isfinite(found[1][1]).all())


def test_info_nce_by_hand_and_rows_without_a_partner():
    similarity = torch.tensor([[1.0, 0.0, 2.0], [5.0, 5.0, 5.0], [0.0, 1.0, 0.0]]).requires_grad_()
    positive = torch.tensor([[True, True, False], [False, False, False], [False, True, False]])
    negative = torch.tensor([[False, False, True], [True, True, True], [False, False, False]])
    first = (math.log(math.e + math.e**2) - 1 + math.log(1 + math.e**2)) / 2
    loss = info_nce(similarity, positive, negative)
    assert float(loss.detach()) == pytest.approx(first / 2)  # the third row has no negative and costs nothing
    loss.backward()
    assert bool(torch.isfinite(similarity.grad).all())
    assert float(info_nce(similarity, ~negative & False, negative).detach()) == 0


def test_ranked_list_loss_by_hand():
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.cos(0.5), math.sin(0.5)]])
    labels = torch.tensor([0, 0, 1])
    near = 2 * math.sin(0.25)
    loss = ranked_list_loss(unit, labels, torch.tensor([True, False, False]), alpha=1.2, margin=0.4, sharpness=10.0)
    assert float(loss) == pytest.approx(math.sqrt(2) - 0.8 + 1.2 - near, abs=1e-5)


def test_ranked_lists_that_are_right_or_of_one_kind_cost_nothing():
    unit = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]).requires_grad_()
    numbers = {"alpha": 1.2, "margin": 0.4, "sharpness": 10.0}
    everyone = torch.ones(3, dtype=torch.bool)
    assert float(ranked_list_loss(unit, torch.tensor([0, 0, 1]), everyone, **numbers).detach()) == pytest.approx(0)
    loss = ranked_list_loss(unit, torch.zeros(3), everyone, **numbers)
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool(torch.isfinite(unit.grad).all())


def test_every_negative_within_the_margin_is_pushed_away_near_ones_most():
    """Distances 0.2, 0.6 and 0.9 of the anchor: dL/dd = -w / sum w, w = e^(10 (1.2 - d))."""
    angles = torch.tensor([0.0, *(2 * math.asin(d / 2) for d in (0.0, 0.2, 0.6, 0.9))]).requires_grad_()
    unit = torch.stack([angles.cos(), angles.sin()], dim=1)
    anchor, labels = torch.arange(5) == 0, torch.tensor([0, 0, 1, 1, 1])
    ranked_list_loss(unit, labels, anchor, alpha=1.2, margin=0.4, sharpness=10.0).backward()
    slope = [math.cos(math.asin(d / 2)) for d in (0.2, 0.6, 0.9)]  # of the distance with the angle
    weights = [math.exp(10 * (1.2 - d)) for d in (0.2, 0.6, 0.9)]
    expected = [-w / sum(weights) * s for w, s in zip(weights, slope, strict=True)]
    assert angles.grad[2:].tolist() == pytest.approx(expected, rel=1e-3)


def test_a_sharpness_beyond_the_largest_number_looks_at_the_nearest_alone():
    unit = torch.tensor([[1.0, 0.0], [1.0, 0.0], [math.cos(0.5), math.sin(0.5)], [0.0, 1.0]])
    labels, anchor = torch.tensor([0, 0, 1, 1]), torch.arange(4) == 0
    loss = ranked_list_loss(unit, labels, anchor, alpha=1.5, margin=0.4, sharpness=1000.0)
    assert float(loss) == pytest.approx(1.5 - 2 * math.sin(0.25), abs=1e-5)
