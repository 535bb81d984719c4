import math

import pytest
import torch

from lib.core.evidence import Opinion, curriculum, dirichlet, fisher_loss, fuse, opinion, reliability


def opinions(*beliefs):
    """Opinions of single pixels over two classes."""
    b = torch.tensor(beliefs).T.view(1, 2, 1, -1)
    return Opinion(b, 1 - b.sum(1, keepdim=True))


def test_no_evidence_is_full_uncertainty_and_masses_sum_to_one():
    alpha = dirichlet(torch.tensor([-40.0, -40.0, 3.0, 1.0]).view(1, 2, 1, 2))
    found = opinion(alpha)
    total = found.belief.sum(1) + found.uncertainty[:, 0]
    torch.testing.assert_close(total, torch.ones_like(total))
    assert float(opinion(torch.ones(1, 3, 1, 1)).uncertainty) == 1


def test_fusing_two_vacuous_opinions_stays_vacuous_and_two_sure_ones_are_surer():
    vacuous = opinions((0.0, 0.0))
    assert float(fuse(vacuous, vacuous).uncertainty) == 1
    sure = fuse(opinions((0.9, 0.0)), opinions((0.9, 0.0)))
    # m_0 = 0.81 + (0.09 + 0.09) / 3 = 0.87, m_u = 0.01
    assert float(sure.belief[0, 0]) == pytest.approx(0.87 / 0.88)
    assert float(sure.uncertainty) == pytest.approx(0.01 / 0.88)


def test_reliability_is_one_without_belief_and_smallest_where_classes_tie_in_doubt():
    values = reliability(opinions((0.0, 0.0), (0.25, 0.25), (1.0, 0.0)))[0, 0].tolist()
    assert values == pytest.approx([1.0, math.exp(0.5 * -1.0), 1.0])


def test_the_curriculum_favours_certain_pixels_first_and_doubtful_ones_last():
    doubt = torch.tensor([[[0.1, 0.9, 0.5]]])
    everywhere = torch.ones(1, 1, 3, dtype=torch.bool)
    early, late = (curriculum(doubt, everywhere, progress, 0.5)[0, 0] for progress in (0.0, 1.0))
    assert early[0] > early[2] > early[1]
    assert late[1] > late[2] > late[0]
    assert curriculum(doubt, everywhere, 0.5, 0.5).eq(1).all()
    # rank 3 of 3 at the end: 1 + 0.5 tanh((2 * 3/3 - 1) * 1)
    assert float(late[1]) == pytest.approx(1 + 0.5 * math.tanh(1))


def test_padded_pixels_take_no_part_in_the_curriculum():
    doubt = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, 4:], doubt[0, 4:] = False, 0.0  # half of the first image is padded, and certain
    valid[1] = False
    weight = curriculum(doubt, valid, 0.0, 0.5)
    assert float(weight[0, :4].mean()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(weight[:1, :4], curriculum(doubt[:1, :4], valid[:1, :4], 0.0, 0.5))
    assert float(weight[~valid].abs().sum()) == 0


def test_fisher_loss_is_smaller_for_evidence_of_the_right_class_and_finite_at_the_ends():
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    right, wrong = (torch.tensor(a).view(1, 2, 1, 1) for a in ([9.0, 1.0], [1.0, 9.0]))
    assert float(fisher_loss(right, target, 0.005)) < float(fisher_loss(wrong, target, 0.005))
    extreme = dirichlet(torch.tensor([1e6, -1e6]).view(1, 2, 1, 1)).requires_grad_()
    loss = fisher_loss(extreme, target, 0.005).sum()
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(extreme.grad).all())


def test_fisher_information_by_hand():
    alpha = torch.ones(1, 2, 1, 1)
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    trigamma_1, trigamma_2 = math.pi**2 / 6, math.pi**2 / 6 - 1
    fit = 2 * (0.25 + 1 / 12) * trigamma_1  # (y - 1/2)^2 and 1 * 1 / (4 * 3)
    information = 2 * math.log(trigamma_1) + math.log(1 - 2 * trigamma_2 / trigamma_1 + 1e-30)
    assert float(fisher_loss(alpha, target, 0.1)) == pytest.approx(fit - 0.1 * information, rel=1e-4)
