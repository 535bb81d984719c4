import pytest
import torch

from lib.core import symmetry
from lib.core.symmetry import Mirror, completed_images, roughness, symmetry_losses


def oval(centre, radii, waves=0.0, side=64):
    """Map `1 1 H W` of an ellipse at (x, y) whose border waves nine times by a share of its radius."""
    y, x = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    radius = 1 + waves * torch.sin(9 * torch.atan2(v, u))
    return torch.sigmoid(20 * (radius - (u**2 + v**2).sqrt()))[None, None]


OVALS = [((32, 32), (20, 14)), ((20, 24), (12, 9)), ((40, 30), (10, 14)), ((26, 26), (9, 9)), ((32, 32), (24, 18))]


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
    assert float(bend_r) > float(bend_s)


@pytest.mark.parametrize(("centre", "radii"), OVALS)
def test_the_more_ragged_an_object_the_worse_its_rank(centre, radii):
    edge, bend = roughness(torch.cat([oval(centre, radii, waves) for waves in (0.2, 0.0, 0.3, 0.08)]))
    for score in (edge, bend, edge + bend):
        assert score.argsort().tolist() == [1, 3, 0, 2]


def test_zeros_beyond_the_border_rank_by_size_and_place_instead():
    smooth, ragged = (torch.cat([oval(*o, waves) for o in OVALS]) for waves in (0.0, 0.3))
    scores = {b: [sum(roughness(m, b)) for m in (smooth, ragged)] for b in ("replicate", "zero")}
    assert float(scores["replicate"][0].max()) < float(scores["replicate"][1].max())
    assert bool((scores["replicate"][0] < scores["replicate"][1]).all())
    assert bool((scores["zero"][0] > scores["zero"][1]).all())


def test_an_object_at_the_border_of_the_image_has_no_edge_there():
    everywhere = torch.ones(1, 1, 6, 6)
    (edge, bend), (edge_zero, _) = roughness(everywhere), roughness(everywhere, "zero")
    assert float(edge) == pytest.approx(1e-3)
    assert float(bend) == 0
    assert float(edge_zero) > 0.1


@pytest.mark.parametrize("compose", ["paste", "add"])
def test_completed_images_of_a_symmetric_object(monkeypatch, compose):
    monkeypatch.setattr(symmetry, "changed_intensity", lambda image, rng: image)
    image = torch.tensor([1.0, 5, 6, 7, 9]).view(1, 1, 5)
    label = torch.tensor([0.0, 1, 1, 0, 0]).view(1, 1, 5)
    mirror = Mirror(1, 5, (1.5, 0.0), 0.0, torch.device("cpu"))
    got = completed_images(image, label, mirror, None, compose)
    assert [side.flatten().tolist() for side in got] == [[1, 5, 5, 7, 9], [1, 6, 6, 7, 9]]


@pytest.mark.parametrize(("compose", "expected"), [("paste", [1, 5, 6, 5, 9]), ("add", [1, 5, 0, 5 + 7, 9])])
def test_a_mirrored_half_replaces_the_background_or_is_added_to_it(monkeypatch, compose, expected):
    monkeypatch.setattr(symmetry, "changed_intensity", lambda image, rng: image)
    image = torch.tensor([1.0, 5, 6, 7, 9]).view(1, 1, 5)
    label = torch.tensor([0.0, 1, 1, 0, 0]).view(1, 1, 5)  # not symmetric: 2 is on the axis and on the right side
    mirror = Mirror(1, 5, (2.0, 0.0), 0.0, torch.device("cpu"))
    assert completed_images(image, label, mirror, None, compose)[0].flatten().tolist() == expected


def test_both_halves_are_perturbed_each_on_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(symmetry, "changed_intensity", lambda image, rng: seen.append(image) or image + 10)
    image, label = torch.ones(3, 2, 4), torch.ones(1, 2, 4)
    completed_images(image, label, Mirror(2, 4, (1.5, 0.0), 0.0, torch.device("cpu")), None, "paste")
    assert [s[0, 0].tolist() for s in seen] == [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]]
