import math

import pytest
import torch

from lib.core.memory import Queue, info_nce, ranked_list_loss


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
