import torch

from lib.core.regions import as_vectors, far_apart, near_border, some_of


def test_pixels_near_a_border_on_both_sides_and_none_without_one():
    mask = torch.zeros(1, 1, 8, dtype=torch.bool)
    mask[..., 4:] = True
    assert near_border(mask, 2)[0, 0].tolist() == [False, False, True, True, True, True, False, False]
    assert not near_border(torch.ones(1, 4, 4, 4, dtype=torch.bool), 2).any()


def test_there_is_no_border_with_what_is_not_known():
    mask = torch.tensor([[[True, True, False, False, False, False]]])
    known = torch.tensor([[[True, True, False, False, True, True]]])
    assert near_border(mask, 1).any()
    assert not near_border(mask, 1, known).any()
    assert near_border(mask, 3, known)[0, 0].tolist() == [False, True, True, True, True, False]


def test_cells_of_a_map_that_are_far_apart():
    far = far_apart((2, 5), 3, torch.device("cpu"))
    assert far[0].nonzero()[:, 0].tolist() == [4, 8, 9]
    assert torch.equal(far, far.T)
    assert not far_apart((2, 2, 2), 3, torch.device("cpu")).any()


def test_some_positions_in_the_order_of_the_vectors():
    mask = torch.tensor([[[True, False], [True, True]]])
    chosen = some_of(mask, 2, torch.Generator().manual_seed(0))
    assert len(chosen) == 2
    assert set(chosen.tolist()) <= {0, 2, 3}
    assert sorted(some_of(mask, 9, torch.Generator().manual_seed(0)).tolist()) == [0, 2, 3]
    feature = torch.arange(8.0).view(1, 2, 2, 2)
    assert as_vectors(feature)[2].tolist() == feature[0, :, 1, 0].tolist()
