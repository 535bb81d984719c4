import numpy as np
import pytest
import torch
from unit.core.methods.base import batch_of

from lib.core.copypaste import cycled, halves, hole_mask, paste, region_loss, region_losses
from lib.core.losses import supervised_loss


@pytest.mark.parametrize(("shape", "sides"), [((9, 12), (6, 8)), ((6, 9, 12), (4, 6, 8))])
def test_one_hole_of_two_thirds_anywhere(shape, sides):
    rng = np.random.default_rng(0)
    holes = [~hole_mask(shape, 2 / 3, rng) for _ in range(20)]
    assert all(int(h.sum()) == np.prod(sides) for h in holes)
    corners = [h.nonzero().amin(0).tolist() for h in holes]
    assert all((h.nonzero().amax(0) - torch.tensor(c) + 1).tolist() == list(sides)
               for h, c in zip(holes, corners, strict=True))  # fmt: skip
    assert len({tuple(c) for c in corners}) > 3


def test_halves_of_any_batch():
    assert [h.tolist() for h in halves(4)] == [[0, 1], [2, 3]]
    assert [h.tolist() for h in halves(3)] == [[0, 1], [1, 2]]
    assert [h.tolist() for h in halves(1)] == [[0], [0]]
    assert cycled(torch.tensor([4, 5]), 5).tolist() == [4, 5, 4, 5, 4]


def test_each_region_has_its_own_loss():
    batch = batch_of()
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :3] = True
    other = batch.label_l.flip(0)
    inside, outside = region_losses(logits, batch.label_l, other, mask)
    assert float(inside) == pytest.approx(float(supervised_loss(logits[..., :3], batch.label_l[..., :3])), rel=1e-5)
    assert float(outside) == pytest.approx(float(supervised_loss(logits[..., 3:], other[..., 3:])), rel=1e-5)
    assert float(region_losses(logits, batch.label_l, other, mask | True)[1]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("shape", "absent"), [((1, 2, 64, 64), 1.0), ((1, 2, 8, 8, 8), 0.0)])
def test_a_class_that_a_region_lacks_should_not_appear_in_it(shape, absent):
    """Its Dice loss counts whole in 2D, however little of it is predicted, and hardly in 3D."""
    logits = torch.zeros(shape)
    logits[:, 0] = 12.0
    label = torch.zeros(shape[:1] + shape[2:], dtype=torch.uint8)
    assert float(region_loss(logits, label)) == pytest.approx(0.5 * absent / 2, abs=1e-2)


def test_paste_with_a_mask_for_all_or_for_each():
    one, zero = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    mask = torch.tensor([[True, False], [False, False]])
    assert paste(one, zero, mask).sum() == 2
    assert paste(one, zero, torch.stack([mask, ~mask])).sum() == 4
