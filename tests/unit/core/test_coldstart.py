import numpy as np
import pytest
import torch

from lib.core.coldstart import appearance


def texture(contrast, seed=0, shape=(3, 64, 64), mean=0.5):
    waves = torch.rand(shape[1:], generator=torch.Generator().manual_seed(seed)) - 0.5
    return (mean + contrast * waves).clamp(0, 1).expand(shape)


def test_contrast_follows_the_contrast():
    values = [appearance(texture(c)).contrast for c in (0.0, 0.1, 0.4, 0.9)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-3)
    assert values[-1] > 0.3
    assert all(0 <= v <= 1 for v in values)


def test_contrast_by_hand():
    stripes = torch.tensor([0.25, 0.75]).repeat(32).expand(1, 64, 64)
    assert appearance(stripes).contrast == pytest.approx(0.25 / 0.5, abs=1e-4)


def test_black_corners_do_not_count():
    image = texture(0.4).clone()
    framed = torch.zeros(3, 128, 128)
    framed[:, 32:96, 32:96] = image
    assert appearance(framed).contrast == pytest.approx(appearance(image).contrast, abs=0.1)


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 20, 20), torch.ones(1, 5, 5), torch.rand(1, 1, 1), torch.zeros(1, 4, 4, 3)]
)
def test_flat_and_tiny_images_are_finite(image):
    found = appearance(image)
    assert np.isfinite(found.embedding).all()
    assert 0 <= found.contrast <= 1


def test_the_embedding_has_unit_length_and_tells_pictures_apart():
    a, b, c = (appearance(texture(0.8, s)).embedding for s in (0, 0, 1))
    assert a.dtype == np.float32
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(a, b)
    assert float(a @ c) < 0.99
    assert len(appearance(texture(0.8, shape=(3, 99, 40))).embedding) == len(a)


def test_of_a_volume_the_middle_slice_counts():
    middle = texture(0.5, shape=(1, 32, 32))
    volume = torch.zeros(1, 32, 32, 5)
    volume[..., 2] = middle
    np.testing.assert_array_equal(appearance(volume).embedding, appearance(middle).embedding)


def test_the_gradient_by_hand():
    steps = torch.arange(64).div(64).expand(1, 64, 64)  # 1/64 per pixel, of which the first three columns are dark
    assert appearance(steps).gradient == pytest.approx(1 / 64, rel=1e-4)
    assert appearance(0.25 + steps / 2).gradient == pytest.approx(1 / 128, rel=1e-4)
    edge = torch.cat([torch.full((1, 64, 32), 0.2), torch.full((1, 64, 32), 0.8)], dim=2)
    assert appearance(edge).gradient == pytest.approx(0.0, abs=1e-6), "one edge is less than a tenth of the image"
