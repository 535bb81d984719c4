import pytest
import torch

from lib.core.pseudo import confident_label, hard_label, largest_components, passed


def test_hard_and_confident_labels_by_hand():
    logits = torch.tensor([[0.0, 3.0, 9.0], [0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]).view(1, 3, 1, 3)
    ignore = torch.tensor([[[0, 0, 255]]], dtype=torch.uint8)
    assert hard_label(logits, ignore).flatten().tolist() == [2, 0, 255]
    assert confident_label(logits, ignore, 0.8).flatten().tolist() == [255, 0, 255]
    assert confident_label(logits, ignore, 0.95).flatten().tolist() == [255, 255, 255]


def test_the_largest_piece_of_each_class_and_image_stays():
    label = torch.tensor([[[1, 1, 0, 2], [0, 0, 0, 2], [1, 0, 255, 0]], [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]])
    kept = largest_components(label.to(torch.uint8), 3)
    assert kept[0].tolist() == [[1, 1, 0, 2], [0, 0, 0, 2], [0, 0, 255, 0]]
    assert kept[1].tolist() == label[1].tolist()  # joined through a corner


def test_of_equal_pieces_the_first_stays_in_3d():
    label = torch.zeros(1, 2, 2, 5, dtype=torch.uint8)
    label[0, 0, 0, 0] = label[0, 1, 1, 4] = 1
    kept = largest_components(label, 2)
    assert kept.nonzero().tolist() == [[0, 0, 0, 0]]


def test_the_share_that_passed():
    ignore = torch.tensor([[0, 0, 0, 255]], dtype=torch.uint8)
    assert float(passed(torch.tensor([[1, 255, 255, 0]]), ignore)) == pytest.approx(1 / 3)
    assert float(passed(torch.tensor([[1, 1, 1, 1]]), torch.full((1, 4), 255))) == 0
