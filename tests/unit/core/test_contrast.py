from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from unit.core.reference_contrast import (
    TieError,
    boundary_pixels,
    nearest_offsets,
    reference_loss,
    smallest_neighbour_similarity,
)

from lib.core import sampling
from lib.core.contrast import anchored_contrast, confident_labels, contrast_loss, quota
from lib.core.interpolate import products, sampler, spread, squared_length, upsample
from lib.core.sampling import SLAB, foreground_boundary, least_similarity, lowest_per_class, neighbours
from lib.core.spec import ContrastSpec

SPEC = ContrastSpec(ice_rate=0.3, bce_rate=0.3)
SIZES = {2: (26, 21), 3: (11, 9, 10)}
SMALL = {2: (7, 6), 3: (6, 9, 4)}


def blobs(generator, batch, classes, size):
    mode = "bilinear" if len(size) == 2 else "trilinear"
    coarse = torch.randn((batch, classes, *(4,) * len(size)), generator=generator)
    return F.interpolate(coarse, size, mode=mode, align_corners=True)


def inputs(dims=2, classes=3, small=False, batch=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    size = SIZES[dims]
    projection = SMALL[dims] if small else size
    label = blobs(g, batch, classes, size).argmax(1).to(torch.uint8)
    logits = 4 * blobs(g, batch, classes, size)
    label[0, 0], label[-1, :, -1] = 255, 255
    ignore = torch.zeros_like(label)
    ignore[0, -4:] = 255
    z_l, z_u = (torch.randn((batch, 6, *projection), generator=g).requires_grad_() for _ in range(2))
    return [z_l, label, z_u, logits, ignore, torch.linspace(0.7, 0.6, classes)]


def value_and_gradients(function, args, spec):
    loss = function(*args, spec)
    return [loss.detach(), *torch.autograd.grad(loss, (args[0], args[2]), allow_unused=True, materialize_grads=True)]


def untied(spec, **kind):
    """Inputs of the first seed for which no cut falls between equal scores."""
    for seed in range(50):
        args = inputs(seed=seed, **kind)
        try:
            reference_loss(*args, spec, refuse_ties=True)
        except TieError:
            continue
        return args
    raise AssertionError("all seeds have ties")


def assert_same(args, spec):
    strict = partial(reference_loss, refuse_ties=True)
    got, expected = (value_and_gradients(f, args, spec) for f in (contrast_loss, strict))
    assert got[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-9)
    return got


OPTIONS = [
    {},
    {"ice": False},
    {"bce": False},
    {"fixed_threshold": 0.8},
    {"bce_keep": "most_similar"},
    {"border": "replicate"},
    {"ignored_is_boundary": False},
    {"bce_respects_padding": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_the_literal_specification(dims, options):
    spec = replace(SPEC, **options)
    loss, grad_l, grad_u = assert_same(untied(spec, dims=dims), spec)
    assert loss > 0
    assert grad_l.abs().max() > 0
    assert grad_u.abs().max() > 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("classes", [2, 4])
def test_small_projection_means_its_upsampling(dims, classes):
    assert_same(untied(SPEC, dims=dims, classes=classes, small=True), SPEC)


@pytest.mark.parametrize("name", ["contrast_binary", "contrast_ignored_pixels"])
def test_published_values(name):
    case = np.load(f"tests/data/golden/{name}.npz")
    spec = ContrastSpec(ice_rate=float(case["ice_rate"]), bce_rate=float(case["bce_rate"]), bce_respects_padding=False)
    keys = ("proj_l", "label_l", "proj_u", "logit_u", "ignore_u", "threshold")
    args = [torch.from_numpy(case[k]) for k in keys]
    args[0].requires_grad_()
    args[2].requires_grad_()
    loss, *gradients = value_and_gradients(contrast_loss, args, spec)
    assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-4)
    for got, key in zip(gradients, ("grad_proj_l", "grad_proj_u"), strict=True):
        recorded = torch.from_numpy(case[key]).float()
        assert torch.allclose(got, recorded, atol=1e-2 * float(recorded.abs().max()))


def test_one_class_only_gives_exactly_zero():
    args = inputs()
    args[1] = torch.zeros_like(args[1])
    args[3] = torch.zeros_like(args[3]).index_fill(1, torch.tensor([0]), 9.0)
    loss, *gradients = value_and_gradients(contrast_loss, args, SPEC)
    assert loss.item() == 0.0
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


@pytest.mark.parametrize("options", [{}, {"ice": False}])
def test_nothing_labelled_gives_zero_with_gradients(options):
    args = inputs()
    args[1] = torch.full_like(args[1], 255)
    loss, *gradients = value_and_gradients(contrast_loss, args, replace(SPEC, **options))
    assert loss.item() == 0.0
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_neither_part_gives_zero():
    assert contrast_loss(*inputs(), replace(SPEC, ice=False, bce=False)).item() == 0.0


def test_unsure_teacher_leaves_the_labelled_pixels():
    args = inputs()
    args[5] = torch.ones(3)
    _, grad_l, grad_u = assert_same(args, SPEC)
    assert grad_l.abs().max() > 0
    assert grad_u.abs().max() == 0


def test_class_without_labelled_pixel_has_no_prototype_but_its_pixels_are_negatives():
    args = inputs()
    args[1][args[1] == 2] = 255
    assert_same(args, SPEC)
    without = list(args)
    without[5] = torch.tensor([0.7, 0.65, 1.0])
    assert contrast_loss(*args, SPEC) != contrast_loss(*without, SPEC)


def test_batch_of_one_and_unequal_batches():
    args = inputs(batch=1)
    assert_same(args, SPEC)
    other = inputs(batch=2, seed=3)
    assert_same([*args[:2], *other[2:]], SPEC)


def test_no_ignore_map_is_a_map_without_padding():
    args = inputs()
    zeros = [*args[:4], torch.zeros_like(args[4]), args[5]]
    assert torch.equal(contrast_loss(*[*args[:4], None, args[5]], SPEC), contrast_loss(*zeros, SPEC))


def test_no_gradient_to_the_teacher():
    args = inputs()
    args[3].requires_grad_()
    contrast_loss(*args, SPEC).backward()
    assert args[3].grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_in_float32(dtype):
    args = inputs()
    half = [a.detach().to(dtype).requires_grad_() if i in (0, 2) else a for i, a in enumerate(args)]
    rounded = [a.detach().float().requires_grad_() if i in (0, 2) else a for i, a in enumerate(half)]
    with torch.autocast("cpu", dtype=dtype):
        loss = contrast_loss(*half, SPEC)
        loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, contrast_loss(*rounded, SPEC))
    assert half[0].grad.isfinite().all()
    assert half[2].grad.isfinite().all()


def test_zero_vectors_do_not_give_nan():
    args = inputs()
    args[0] = torch.zeros_like(args[0]).requires_grad_()
    loss, *gradients = value_and_gradients(contrast_loss, args, SPEC)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients)


def test_same_input_gives_same_bits():
    first, second = (value_and_gradients(contrast_loss, inputs(small=True), SPEC) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_neighbours():
    assert len(neighbours(2)) == len(neighbours(3)) == 64
    assert sum(i * i + j * j <= 18 for i, j in neighbours(2)) == 60
    assert neighbours(2)[60:] == ((-4, -2), (-4, 2), (-2, -4), (-2, 4))
    assert sum(sum(i * i for i in o) <= 5 for o in neighbours(3)) == 56
    assert neighbours(3)[56:58] == ((-2, -1, -1), (-2, -1, 1))
    assert all(list(neighbours(d)) == nearest_offsets(d) for d in (2, 3))


def test_quota():
    assert quota(1000, 0.1, 3) == 33
    assert quota(10, 0.3, 1) == 3
    assert quota(5, 0.1, 2) == 0
    assert quota(5, 0.1, 0) == 0


def test_anchored_contrast_by_hand():
    cosine = torch.tensor([[0.5, -0.5, 1.0], [-0.5, 0.5, 0.0]])
    label = torch.tensor([0, 1, 0])  # the third equals its prototype: no positive
    first = np.log(1 + np.exp((-0.5 - 0.5) / 0.5))
    second = np.log(1 + (np.exp(-0.5 / 0.5) + np.exp(0.0)) / np.exp(0.5 / 0.5))
    got = anchored_contrast(cosine, label, [0, 1], temperature=0.5)
    assert got.item() == pytest.approx((first + second) / 2, rel=1e-5)


def square(value=1):
    label = torch.zeros(1, 20, 20, dtype=torch.uint8)
    label[0, 4:16, 4:16] = value
    return label


def test_boundary_of_a_square():
    found = foreground_boundary(square(), SPEC)[0]
    assert found[4:16, 4:8].all()
    assert not found[8:12, 8:12].any()
    assert not found[:4].any()


def test_border_switch():
    full = torch.ones(1, 20, 20, dtype=torch.uint8)
    assert foreground_boundary(full, SPEC).sum() == 400 - 12 * 12
    assert not foreground_boundary(full, replace(SPEC, border="replicate")).any()


def test_ignored_neighbours_switch():
    label = torch.ones(1, 20, 20, dtype=torch.uint8)
    label[0, 10, 10] = 255
    clean = replace(SPEC, border="replicate", ignored_is_boundary=False)
    assert foreground_boundary(label, replace(clean, ignored_is_boundary=True)).sum() == 64
    assert not foreground_boundary(label, clean).any()


def test_padding_switch_decides_which_pixels_bce_may_take():
    logits = torch.tensor([0.0, 5.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    ignore = torch.zeros(1, 4, 4, dtype=torch.uint8)
    ignore[:, 2:] = 255
    threshold = torch.full((2,), 0.9)
    for respects, padded in ((True, 255), (False, 1)):
        spec = replace(SPEC, bce_respects_padding=respects)
        for_ice, for_bce = confident_labels(logits, ignore, threshold, spec)
        assert (for_ice[:, 2:] == 255).all()
        assert (for_bce[:, 2:] == padded).all()
        assert (for_bce[:, :2] == 1).all()


def test_confidence_must_exceed_the_threshold():
    logits = torch.zeros(1, 2, 1, 1)
    for bar, label in ((0.5, 255), (0.49, 0)):
        got, _ = confident_labels(logits, None, torch.full((2,), bar), SPEC)
        assert got.item() == label
    got, _ = confident_labels(logits, None, torch.zeros(2), replace(SPEC, fixed_threshold=0.9))
    assert got.item() == 255


def test_keep_switch_changes_the_loss():
    args = inputs()
    assert contrast_loss(*args, SPEC) != contrast_loss(*args, replace(SPEC, bce_keep="most_similar"))


@pytest.mark.parametrize("size", [(26, 21), (2 * SLAB[2] + 5, 7), (11, 9, 10), (2 * SLAB[3] + 1, 5, 4)], ids=str)
@pytest.mark.parametrize("wanted", [0.2, 0.002])
def test_least_similarity_equals_the_loop_over_offsets(size, wanted):
    z = torch.randn((2, 5, *size), generator=torch.Generator().manual_seed(0))
    pixels = torch.rand((2, *size), generator=torch.Generator().manual_seed(1)) < wanted
    got = least_similarity(z, pixels)
    assert torch.allclose(got[pixels], smallest_neighbour_similarity(z)[pixels], atol=1e-5)
    assert got[~pixels].isinf().all()


def test_more_pixels_than_one_sparse_product_takes(monkeypatch):
    z = torch.randn((1, 5, 12, 11), generator=torch.Generator().manual_seed(0))
    pixels = torch.ones((1, 12, 11), dtype=torch.bool)
    whole = least_similarity(z, pixels)
    monkeypatch.setattr(sampling, "CHUNK", 10)
    assert torch.equal(least_similarity(z, pixels), whole)


@pytest.mark.parametrize("border", ["zero", "replicate"])
@pytest.mark.parametrize("ignored", [True, False])
def test_boundary_equals_the_loop_over_offsets(border, ignored):
    spec = replace(SPEC, border=border, ignored_is_boundary=ignored)
    label = inputs(dims=3)[1]
    foreground = (label != 0) & (label != 255)
    assert torch.equal(foreground_boundary(label, spec), boundary_pixels(label, spec) & foreground)


def test_lowest_per_class():
    score = torch.tensor([0.1, 0.5, 0.2, 0.4])
    label = torch.tensor([1, 2, 1, 2])
    assert lowest_per_class({1: score, 2: score}, label, {1: 1, 2: 1}).tolist() == [0, 3]
    assert lowest_per_class({1: score}, label, {1: 0}).tolist() == []


SHAPES = [((4, 5), (9, 11)), ((3, 5), (3, 8)), ((1, 4), (5, 4)), ((3, 1, 4), (5, 6, 4)), ((3, 4, 2), (6, 9, 5))]


@pytest.mark.parametrize(("source", "target"), SHAPES, ids=str)
def test_interpolation_without_the_upsampled_projection(source, target):
    g = torch.Generator().manual_seed(0)
    z, mask = torch.randn((2, 3, *source), generator=g), torch.randn((2, 3, *target), generator=g)
    large = upsample(z, target)
    assert torch.allclose((large * mask).sum(), (z * spread(mask, source)).sum(), rtol=1e-4)
    means = torch.randn((2, 3), generator=g)
    _, dots, grams = products(z, torch.zeros(2, 0, z[0, 0].numel()), means, target)
    assert torch.allclose(squared_length(grams, target), large.square().sum(1), atol=1e-5)
    assert torch.allclose(upsample(dots, target), torch.einsum("kp,bp...->bk...", means, large), atol=1e-5)
    places = torch.stack([torch.randint(0, n, (7,), generator=g) for n in target], 1)
    assert torch.allclose(sampler(z[0], target)(places), large[0][(slice(None), *places.T)].T, atol=1e-5)


def replaced(**new):
    args = inputs()
    names = ("projection_l", "label_l", "projection_u", "logits_u", "ignore_u", "threshold")
    return [new.get(name, a) for name, a in zip(names, args, strict=True)]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"label_l": torch.zeros(2, 1, 26, 21, 3, 1)}, r"expected `label_l` to be of shape B H W \[D\], but got"),
        ({"projection_l": torch.zeros(2, 6, 27, 21)}, r"expected `projection_l` to be of shape 2 P h w \[d\], at most"),
        ({"projection_u": torch.zeros(2, 5, 26, 21)}, r"expected `projection_u` to be of shape 2 P h w \[d\], at most"),
        ({"logits_u": torch.zeros(2, 3, 13, 21)}, r"expected `logits_u` to be of shape \(2, 3, 26, 21\), but got"),
        (
            {"ignore_u": torch.zeros(2, 3, 21)},
            r"expected `ignore_u` to be of shape \(2, 26, 21\), but got \(2, 3, 21\)",
        ),
        ({"threshold": torch.zeros(2)}, r"expected `threshold` to be of shape \(3,\), but got \(2,\)"),
        ({"label_l": torch.full((2, 26, 21), 7)}, r"expected `label_l` to hold 0 to 2 and 255, but got other values"),
    ],
)
def test_errors_name_what_was_expected(new, message):
    with pytest.raises(ValueError, match=message):
        contrast_loss(*replaced(**new), SPEC)
