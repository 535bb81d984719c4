from math import log
from typing import get_args

import pytest
import torch

from lib.core.losses import (
    LABELLED_LOSSES,
    confident_cross_entropy,
    cross_entropy,
    dice_loss,
    image_dice,
    image_dice_loss,
    masked_mse,
    one_hot,
    supervised_loss,
)
from lib.core.spec import LabelledLoss

LN2 = log(2)


def logits_of(*confidence):
    """Two classes, one row of pixels: probability of class 1 -> `1 2 1 N`."""
    p = torch.tensor(confidence)
    return torch.stack([1 - p, p]).log()[None, :, None]


def labels(*values):
    return torch.tensor(values, dtype=torch.uint8)[None, None]


def test_cross_entropy_by_hand():
    got = cross_entropy(logits_of(0.5, 0.9, 0.25), labels(1, 1, 0))
    assert float(got) == pytest.approx(-(log(0.5) + log(0.9) + log(0.75)) / 3)


def test_an_ignored_pixel_neither_adds_nor_counts():
    got = cross_entropy(logits_of(0.5, 0.9), labels(255, 1))
    assert float(got) == pytest.approx(-log(0.9))


def test_dice_by_hand():
    # class 1: p = (.8, .4), g = (1, 0); class 0: p = (.2, .6), g = (0, 1)
    one, zero = 2 * 0.8 / (0.64 + 0.16 + 1), 2 * 0.6 / (0.04 + 0.36 + 1)
    assert float(dice_loss(logits_of(0.8, 0.4), labels(1, 0))) == pytest.approx(1 - (one + zero) / 2, abs=1e-4)


def test_dice_of_a_class_that_is_nowhere_is_no_loss():
    got = dice_loss(torch.tensor([[30.0, -30.0, -30.0]])[..., None, None], labels(0)[..., :1])
    assert float(got) == pytest.approx(0, abs=1e-4)


def test_dice_skips_ignored_pixels():
    whole = dice_loss(logits_of(0.8, 0.4), labels(1, 0))
    with_ignored = dice_loss(logits_of(0.8, 0.4, 0.99), labels(1, 0, 255))
    assert float(with_ignored) == pytest.approx(float(whole))


def test_supervised_is_the_mean_of_both():
    logits, label = logits_of(0.8, 0.4), labels(1, 0)
    expected = 0.5 * float(cross_entropy(logits, label)) + 0.5 * float(dice_loss(logits, label))
    assert float(supervised_loss(logits, label)) == pytest.approx(expected)


def test_confident_cross_entropy_divides_by_all_valid_pixels():
    confident = torch.tensor([[[True, False, True, True]]])
    got = confident_cross_entropy(logits_of(0.5, 0.5, 0.25, 0.1), labels(1, 1, 1, 1), confident, labels(0, 0, 0, 255))
    assert float(got) == pytest.approx((LN2 - log(0.25)) / 3)


def test_confident_cross_entropy_skips_a_pasted_ignored_label():
    every = torch.ones(1, 1, 2, dtype=torch.bool)
    got = confident_cross_entropy(logits_of(0.5, 0.5), labels(1, 255), every, labels(0, 0))
    assert float(got) == pytest.approx(LN2)


def test_masked_mse_by_hand():
    a, b = logits_of(0.5, 0.9).exp(), logits_of(0.7, 0.1).exp()
    assert float(masked_mse(a, b, labels(0, 0))) == pytest.approx((2 * 0.04 + 2 * 0.64) / 4)
    assert float(masked_mse(a, b, labels(0, 255))) == pytest.approx(0.04)


@pytest.mark.parametrize("size", [(3, 4), (3, 4, 2)])
def test_all_ignored_gives_zero_with_a_graph_and_no_nan(size):
    logits = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ignored = torch.full((2, *size), 255, dtype=torch.uint8)
    confident = torch.ones((2, *size), dtype=torch.bool)
    zeros = torch.zeros_like(ignored)
    losses = {
        "ce": cross_entropy(logits, ignored),
        "dice": dice_loss(logits, ignored),
        "supervised": supervised_loss(logits, ignored),
        "ignored": confident_cross_entropy(logits, zeros, confident, ignored),
        "unsure": confident_cross_entropy(logits, zeros, ~confident, zeros),
        "mse": masked_mse(logits, torch.zeros_like(logits), ignored),
    }
    for name, loss in losses.items():
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6), name
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert float(gradient.abs().max()) == 0, name


def test_3d_equals_2d_of_the_same_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 6, generator=generator)
    label = torch.randint(0, 3, (2, 4, 6), generator=generator).to(torch.uint8)
    label[0, 0] = 255
    flat = supervised_loss(logits, label)
    assert float(supervised_loss(logits.view(2, 3, 4, 3, 2), label.view(2, 4, 3, 2))) == pytest.approx(float(flat))


def test_half_precision_logits_do_not_overflow():
    logits = (torch.tensor([[-3e4, 3e4]]).half())[..., None, None].expand(1, 2, 1, 2)
    assert float(cross_entropy(logits, labels(1, 1))) == 0
    assert float(cross_entropy(logits, labels(0, 1))) == pytest.approx(3e4, rel=1e-3)


def test_one_hot():
    encoded = one_hot(labels(0, 2, 255), 3)
    assert tuple(encoded.shape) == (1, 3, 1, 3)
    assert encoded[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_every_loss_that_a_specification_may_name_is_there():
    assert set(get_args(LabelledLoss)) == {"own", *LABELLED_LOSSES}


def test_dice_per_image_by_hand():
    # image 1, class 1: p = (.8, .4), g = (1, 0); class 0: p = (.2, .6), g = (0, 1); image 2 has no class 1
    logits = torch.cat([logits_of(0.8, 0.4), logits_of(0.5, 0.5)])
    label = torch.cat([labels(1, 0), labels(0, 0)])
    first = (2 * 0.8 / 2.2 + 2 * 0.6 / 1.8) / 2
    second = (0 + 2 * 1 / 3) / 2
    assert float(image_dice(logits, label)) == pytest.approx(1 - (first + second) / 2)
    assert float(image_dice_loss(logits, label)) == pytest.approx(
        0.2 * float(cross_entropy(logits, label)) + 0.8 * float(image_dice(logits, label))
    )


def test_dice_per_image_weighs_a_small_object_like_a_big_one():
    small, big = labels(1, *[0] * 19), labels(*[1] * 10, *[0] * 10)
    confidence = torch.full((20,), 0.5)
    logits = torch.cat([logits_of(*confidence), logits_of(*confidence)]).requires_grad_()
    image_dice(logits, torch.cat([small, big])).backward()
    pull = -logits.grad[:, 1, 0]  # towards the object, of one of its pixels
    assert float(pull[0, 0]) > 1.5 * float(pull[1, 0])
