import pytest
import torch

from lib.core.symmetry import Mirror, roughness, symmetry_losses


def test_mirroring_at_a_vertical_line_flips_columns():
    image = torch.arange(12.0).view(1, 3, 4)
    mirror = Mirror(3, 4, (1.5, 0.0), 0.0, torch.device("cpu"))
    assert torch.equal(mirror(image), image.flip(2))
    left, right = mirror.halves(image)
    assert left[0, 0].tolist() == [0, 1, 0, 0]
    assert right[0, 0].tolist() == [0, 0, 2, 3]
    assert mirror.completed(image)[0][0, 0].tolist() == [0, 1, 1, 0]


def test_symmetric_predictions_that_equal_the_label_cost_nothing_and_padding_does_not_count():
    mirror = Mirror(2, 4, (1.5, 0.0), 0.0, torch.device("cpu"))
    label = torch.tensor([[0.0, 1, 1, 0], [0, 1, 1, 0]]).view(1, 1, 2, 4)
    valid = torch.ones_like(label)
    assert [float(v) for v in symmetry_losses(label, label, label, label, [mirror], valid)] == [0, 0, 0]
    wrong = label.clone()
    wrong[..., 0] = 1
    seg, aug, mir = symmetry_losses(label, wrong, label, label, [mirror], valid)
    assert float(seg) == 0
    assert float(aug) == pytest.approx(0.5 * 2 / 8)
    assert float(mir) == pytest.approx(0.5 * 2 / 8)
    assert [float(v) for v in symmetry_losses(wrong, wrong, wrong, label, [mirror], 0 * valid)] == [0, 0, 0]


def test_a_ragged_border_is_rougher_than_a_straight_one():
    straight = torch.zeros(1, 1, 8, 8)
    straight[..., 4:] = 1
    ragged = straight.clone()
    ragged[..., ::2, 3] = 1
    (edge_s, bend_s), (edge_r, bend_r) = roughness(straight), roughness(ragged)
    assert float(edge_r) > float(edge_s)
    assert float(bend_r) != float(bend_s)
