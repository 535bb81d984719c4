import torch
from torch import nn

from lib.core.perturb import drop_channels, dropout_active, noisy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_noise_is_cut_and_seeded():
    image = torch.full((2, 1, 32, 32), 0.5)
    noise = noisy(image, 0.1, generator()) - image
    assert 0.08 < float(noise.std()) < 0.1
    assert float(noise.abs().max()) <= 0.2 + 1e-6
    assert torch.equal(noisy(image, 0.1, generator()), image + noise)


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
    with dropout_active(network, generator()):
        assert [m.training for m in network] == [False, True]
        first = network(x)
    with dropout_active(network, generator()):
        assert torch.equal(network(x), first)
    assert bool((first == 0).any())
    assert not network[1].training
    assert torch.equal(torch.random.get_rng_state(), state)
