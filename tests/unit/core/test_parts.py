"""Labelled and unlabelled images with batch statistics of their own."""

import pytest
import torch
from unit.helpers import Tiny

from lib.core.networks import NetworkOutput
from lib.core.parts import apart


def test_each_part_has_what_a_pass_of_its_own_gives():
    network, x = Tiny().train(), torch.rand(5, 1, 8, 8)
    first, second, got = network(x[:2]), network(x[2:]), apart(network, x, 2)
    assert isinstance(got, NetworkOutput)
    for name in ("logits", "projection", "feature"):
        assert torch.equal(getattr(got, name), torch.cat([getattr(first, name), getattr(second, name)]))
    assert all(torch.equal(m, torch.cat(pair)) for m, *pair in zip(got.maps, first.maps, second.maps, strict=True))
    assert not torch.allclose(got.logits, network(x).logits)


def test_encoder_and_decoder_take_and_give_maps():
    network, x = Tiny().train(), torch.rand(5, 1, 8, 8)
    maps = apart(network.encode, x, 2)
    assert torch.allclose(apart(network.decode, maps, 2).logits, apart(network, x, 2).logits)


@pytest.mark.parametrize("count", [0, 5])
def test_a_batch_of_one_kind_is_one_pass(count):
    network, x = Tiny().train(), torch.rand(5, 1, 8, 8)
    assert torch.equal(apart(network, x, count).logits, network(x).logits)


def test_the_running_statistics_are_of_both():
    network, x = Tiny().train(), torch.rand(4, 1, 8, 8)
    before = network.body[1].num_batches_tracked.clone()
    apart(network, x, 2)
    assert int(network.body[1].num_batches_tracked - before) == 2
