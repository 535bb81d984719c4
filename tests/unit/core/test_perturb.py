import numpy as np
import pytest
import torch
from torch import nn

from lib.core.networks import NETWORKS, NETWORKS_2D, build_network
from lib.core.perturb import changed_intensity, drop_channels, noisy, seeded_dropout, spread
from lib.core.spec import NetworkSpec


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_noise_is_cut_and_seeded():
    image = torch.full((2, 1, 32, 32), 0.5)
    noise = noisy(image, 0.1, generator()) - image
    assert 0.08 < float(noise.std()) < 0.1
    assert float(noise.abs().max()) <= 0.2 + 1e-6
    assert torch.equal(noisy(image, 0.1, generator()), image + noise)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 16, 16, 16)])
def test_noise_in_units_of_each_image_is_the_same_on_images_of_another_range(shape):
    image = torch.randn(shape, generator=generator(1))
    image[1] *= 0.2
    found = spread(image)
    assert found.shape == (2, *[1] * (len(shape) - 1))
    assert found.flatten().tolist() == pytest.approx([1.0, 0.2], rel=0.05)
    noise = noisy(image, 0.1 * found, generator()) - image
    assert float(noise[0].std() / noise[1].std()) == pytest.approx(5, rel=0.1)
    assert float(noise[1].abs().max()) <= 0.2 * float(found[1].max()) + 1e-6


def test_whole_channels_are_dropped_and_the_mean_kept():
    feature = torch.ones(4, 64, 2, 2, 2)
    dropped = drop_channels(feature, 0.25, generator())
    assert set(dropped.unique().tolist()) == {0.0, 4 / 3} or dropped.unique().numel() == 2
    assert bool((dropped.flatten(2).std(-1) == 0).all())
    assert 0.85 < float(dropped.mean()) < 1.15


def test_dropout_is_on_inside_the_block_only_and_seeded():
    network = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)).eval()
    x = torch.ones(2, 8)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    with seeded_dropout(network, generator()):
        assert [m.training for m in network] == [False, True]
        first = network(x)
    with seeded_dropout(network, generator()):
        assert torch.equal(network(x), first)
    assert bool((first == 0).any())
    assert not network[1].training
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_passes_of_every_network_differ_and_come_again_with_the_seed(name):
    dims = 2 if name in NETWORKS_2D else 3
    network = build_network(NetworkSpec(name, 2, 8, pretrained=False), dims).eval()
    image = torch.rand(1, 1, *[32] * dims, generator=generator())
    with torch.no_grad():
        plain = network(image).logits
        runs = []
        for _ in range(2):
            with seeded_dropout(network, generator()):
                runs.append([network(image).logits for _ in range(2)])
        assert torch.equal(network(image).logits, plain)
    assert not torch.equal(runs[0][0], runs[0][1])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert not any(m.training for m in network.modules())


class Chosen:
    """Random numbers that let only one of the four changes happen, and always draw the upper end."""

    def __init__(self, change):
        self.draws = iter([0.1 if i == change else 0.9 for i in range(4)])

    def random(self):
        return next(self.draws)

    def uniform(self, low, high):
        return high

    def standard_normal(self, shape):
        return np.ones(shape)


def test_each_change_of_intensity_by_hand():
    image = torch.tensor([0.0, 0.25, 0.95]).view(1, 1, 3).expand(2, 7, 3)
    seen = [changed_intensity(image, Chosen(change))[0, 3].tolist() for change in range(5)]
    assert seen[0] == pytest.approx([0.05, 0.3, 1.0])
    assert seen[1] == pytest.approx([0.0, 0.25**1.8, 0.95**1.8])
    assert seen[2] == pytest.approx([0.1, 0.35, 1.0])
    assert 0.0 < seen[3][0] < seen[3][1] < seen[3][2] < 0.95
    assert seen[4] == pytest.approx([0.0, 0.25, 0.95])


def test_changes_of_intensity_come_once_in_five_images():
    image = torch.full((1, 8, 8), 0.5)
    same = sum(torch.equal(changed_intensity(image, np.random.default_rng(s)), image) for s in range(300)) / 300
    assert same == pytest.approx(0.8**3, abs=0.08)  # blur does not show in an even image
