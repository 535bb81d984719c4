"""The usual size of a class: a share of the field of view."""

import numpy as np
import pytest
from PIL import Image
from unit.helpers import spec_of

from lib.core.areas import median_areas
from lib.core.cases import Record

SPEC = spec_of()


def study(folder, name, side, size, border=0):
    """A frame of noise with an object of `size` x `size` pixels, in a black border."""
    rng = np.random.default_rng(side)
    image = np.zeros((side + 2 * border,) * 2 + (3,), dtype=np.uint8)
    image[border : border + side, border : border + side] = rng.integers(60, 250, (side, side, 3))
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    mask[border + 4 : border + 4 + size, border + 4 : border + 4 + size] = 255
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    return Record(name, str(folder / f"{name}.png"), str(folder / f"{name}_mask.png"), name)


def test_the_median_over_images_that_contain_the_class(tmp_path):
    records = [study(tmp_path, f"s{n}", 32, n) for n in (0, 8, 12, 16)]
    assert median_areas(records, SPEC.data, SPEC.labels) == {"polyp": pytest.approx(144 / 1024, rel=0.05)}


def test_a_black_border_changes_nothing(tmp_path):
    plain, framed = study(tmp_path, "plain", 32, 16), study(tmp_path, "framed", 32, 16, border=16)
    areas = [median_areas([r], SPEC.data, SPEC.labels)["polyp"] for r in (plain, framed)]
    assert areas[1] == pytest.approx(areas[0], rel=0.05)


def test_what_cannot_be_read_is_left_out(tmp_path, caplog):
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = Record("broken", str(tmp_path / "broken.png"), str(tmp_path / "broken.png"), "broken")
    assert median_areas([broken], SPEC.data, SPEC.labels) == {}
    assert "broken.png" in caplog.text
