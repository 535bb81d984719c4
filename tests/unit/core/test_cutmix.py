import numpy as np
import pytest
import torch

from lib.core.cutmix import cutmix_masks


def rng(seed=0):
    return np.random.default_rng(seed)


def sides_of(mask):
    """Side lengths of the box; fails unless the mask is one full box."""
    places = torch.nonzero(mask)
    low, high = places.min(0).values, places.max(0).values
    sides = (high - low + 1).tolist()
    assert int(mask.sum()) == int(np.prod(sides))
    return sides


def test_probability_0_and_1():
    assert not bool(cutmix_masks(20, (16, 16), 0.0, rng()).any())
    assert bool(cutmix_masks(20, (16, 16), 1.0, rng()).flatten(1).any(1).all())


def test_probability_one_half():
    boxes = cutmix_masks(400, (16, 16), 0.5, rng()).flatten(1).any(1)
    assert 0.42 < float(boxes.float().mean()) < 0.58


@pytest.mark.parametrize("shape", [(64, 64), (96, 48), (32, 32, 32), (48, 32, 24)])
def test_boxes_are_inside_and_have_the_published_area_and_aspect(shape):
    masks = cutmix_masks(200, shape, 1.0, rng())
    assert masks.dtype == torch.bool
    assert tuple(masks.shape) == (200, *shape)
    shares = []
    for mask in masks:
        sides = sides_of(mask)
        shares.append(float(mask.float().mean()))
        # lengths are rounded down: allow one pixel each
        assert min(sides[1] / (sides[0] + 1), 1) < 1 / 0.3
        assert (sides[1] + 1) / sides[0] > 0.3
        upper = np.prod([(s + 1) / n for s, n in zip(sides, shape, strict=True)])
        assert upper > 0.02
    assert max(shares) <= 0.4 + 1e-6
    assert max(shares) > 0.3
    assert min(shares) < 0.06
    corners = {tuple(torch.nonzero(m)[0].tolist()) for m in masks}
    assert len(corners) > 100


def test_the_same_generator_state_gives_the_same_boxes():
    assert torch.equal(cutmix_masks(4, (16, 16), 0.5, rng(3)), cutmix_masks(4, (16, 16), 0.5, rng(3)))
    assert not torch.equal(cutmix_masks(4, (16, 16), 0.9, rng(3)), cutmix_masks(4, (16, 16), 0.9, rng(4)))


def test_a_given_area():
    masks = cutmix_masks(50, (64, 64), 1.0, rng(), area=(0.25, 0.25))
    shares = masks.float().mean((1, 2))
    assert float(shares.max()) <= 0.25
    assert float(shares.min()) > 0.2
