"""Images that can hardly be judged: what is measured of them, and which of a pool they are."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from lib.core.pool import make_pool
from lib.core.quality import quality_terms, unfit


def picture(seed=0, size=96, channels=3):
    """Blobs of several sizes on a slope of light."""
    random = torch.Generator().manual_seed(seed)
    layers = [torch.nn.functional.interpolate(torch.rand(1, 1, n, n, generator=random), size) for n in (6, 24, 96)]
    light = torch.linspace(0.1, 0.5, size)[:, None]
    return (light + sum(layers)[0, 0] / 8).expand(channels, size, size).clamp(0, 1)


def terms(image, field=None):
    found = quality_terms(image, torch.ones(image.shape[1:], dtype=torch.bool) if field is None else field)
    return {name.removeprefix("quality/"): value for name, value in found.items()}


def test_sharpness_by_hand():
    # waves of one frequency along one axis: the Laplacian is (2 - 2 cos w) f, the forward difference squared as much on average
    w = 2 * np.pi / 16
    wave = torch.from_numpy(0.5 + 0.3 * np.cos(w * np.arange(160, dtype=np.float64))).float()
    assert terms(wave.expand(1, 160, 160))["sharpness"] == pytest.approx(2 - 2 * np.cos(w), rel=0.02)


def test_contrast_does_not_change_sharpness_and_blur_does():
    image = picture()
    sharp = terms(image)["sharpness"]
    assert terms(0.5 + 0.1 * image)["sharpness"] == pytest.approx(sharp, rel=1e-3)
    blurred = [terms(gaussian_blur(image, [25, 25], [s]))["sharpness"] for s in (1.0, 2.0, 4.0)]
    assert sharp > 2 * blurred[0] > 4 * blurred[1] > 8 * blurred[2] > 0


def test_black_corners_are_no_edges():
    image, field = torch.zeros(3, 160, 160), torch.zeros(160, 160, dtype=torch.bool)
    image[:, 32:128, 32:128], field[32:128, 32:128] = picture(), True
    found = terms(image, field)
    assert found["sharpness"] == pytest.approx(terms(picture())["sharpness"], rel=1e-4)
    assert found["lit"] == pytest.approx((96 / 160) ** 2)


def test_of_a_volume_the_slices_count_however_thick_they_are():
    slices = torch.stack([picture(s, channels=1) for s in range(4)], dim=-1)
    one = np.mean([terms(picture(s, channels=1))["sharpness"] for s in range(4)])
    assert terms(slices)["sharpness"] == pytest.approx(one, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (3, 3, 40), (1, 5, 5, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_and_tiny_images_have_no_sharpness(shape, value):
    found = terms(torch.full(shape, value))
    assert found == {"sharpness": 0.0, "saturated": value, "lit": value}


def pool_of(images):
    return make_pool([str(i) for i in range(len(images))], images)


def rows(count, **changes):
    """Ordinary images; `changes` by term: place to value."""
    random = np.random.default_rng(0)
    made = [{"sharpness": float(np.exp(0.13 * random.normal())), "saturated": 0.01, "lit": 0.8} for _ in range(count)]
    for name, values in changes.items():
        for place, value in values.items():
            made[place][name] = value
    return [{f"quality/{name}": value for name, value in row.items()} for row in made]


def test_what_is_wrong_with_an_image():
    changes = {"sharpness": {3: 0.1, 4: 0.6, 6: 0.0, 7: 0.1}, "saturated": {5: 0.6, 7: 0.9}, "lit": {6: 0.0}}
    assert unfit(pool_of(rows(40, **changes))) == {
        3: "blurred",
        5: "over-exposed",
        6: "next to nothing to see",
        7: "over-exposed",
    }


def test_what_many_images_have_is_no_defect():
    """White backgrounds of slides, say."""
    assert unfit(pool_of(rows(40, saturated=dict.fromkeys(range(9), 0.7)))) == {}
    assert len(unfit(pool_of(rows(40, saturated=dict.fromkeys(range(8), 0.7))))) == 8


def test_a_pool_whose_sharpness_varies_has_no_outlier():
    spread = {i: float(np.exp(-i / 10)) for i in range(40)}
    assert unfit(pool_of(rows(40, sharpness=spread))) == {}


@pytest.mark.parametrize("images", [[], rows(19, sharpness={0: 0.01}), [{}] * 30, [{"image/contrast": 0.5}] * 30])
def test_few_images_or_none_measured(images):
    assert unfit(pool_of(images)) == {}


def test_faint_pictures_are_kept_and_blurred_ones_are_not():
    """The images that the app is there for look nothing like a defect."""
    field = torch.ones(96, 96, dtype=torch.bool)
    images = [picture(s) for s in range(24)]
    images[3], images[7] = 0.4 + 0.05 * images[3], gaussian_blur(images[7], [25, 25], [4.0])
    images[9] = 0.04 * torch.rand(3, 96, 96)  # a camera that sees nothing but its own noise
    found = unfit(pool_of([quality_terms(image, field) for image in images]))
    assert found == {7: "blurred", 9: "next to nothing to see"}
