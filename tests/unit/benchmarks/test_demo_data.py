"""Demo studies: repeatable, with a truth that fits the pictures and a contrast that is what it says."""

import json

import numpy as np
import pytest
from benchmarks.demo_data import HIGHEST, LOWEST, contact_sheet, make_frame, make_studies, noise
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

SIZE = 128


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return make_studies(tmp_path_factory.mktemp("demo"), pool=6, held_out=3, size=SIZE, seed=3)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_files_and_another_one_others(studies, tmp_path):
    again = make_studies(tmp_path / "again", pool=6, held_out=3, size=SIZE, seed=3)
    other = make_studies(tmp_path / "other", pool=6, held_out=3, size=SIZE, seed=4)
    for part in ("images", "truth"):
        assert files(getattr(again, part)) == files(getattr(studies, part))
    assert files(again.held_out / "images") == files(studies.held_out / "images")
    assert files(other.images) != files(studies.images)


def test_every_frame_has_a_truth_of_its_size_with_values_0_and_1(studies):
    pairs = [(studies.images, studies.truth), (studies.held_out / "images", studies.held_out / "labels")]
    for images, masks in pairs:
        assert {p.stem for p in images.iterdir()} == {p.stem for p in masks.iterdir()}
        for path in images.iterdir():
            image, mask = Image.open(path), np.asarray(Image.open(masks / f"{path.stem}.png"))
            assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
            assert mask.shape == (SIZE, SIZE)
            assert np.unique(mask).tolist() == [0, 1]
            assert 0.01 < mask.mean() < 0.4


def test_no_held_out_frame_is_in_the_pool(studies):
    pool = {bytes(np.asarray(Image.open(p))) for p in studies.images.iterdir()}
    held_out = {bytes(np.asarray(Image.open(p))) for p in (studies.held_out / "images").iterdir()}
    assert not pool & held_out


def test_contrast_goes_from_faint_to_clear(studies):
    pool = [c for name, c in studies.contrast.items() if name.startswith("frame")]
    assert (min(pool), max(pool)) == (LOWEST, HIGHEST)
    assert json.loads((studies.images.parent / "contrast.json").read_text()) == studies.contrast


def difference_inside(contrast, seed):
    """Mean absolute change of the pixels of the lesion (two pixels off its border) against the frame without it."""
    with_lesion = make_frame(np.random.default_rng(seed), SIZE, contrast)
    without = make_frame(np.random.default_rng(seed), SIZE, 0.0)
    changed = np.abs(with_lesion.image.astype(float) - without.image.astype(float)).mean(axis=-1)
    inside = binary_erosion(with_lesion.mask, iterations=2)
    outside = ~binary_dilation(with_lesion.mask, iterations=SIZE // 5)
    return changed[inside].mean(), changed[outside].mean()


@pytest.mark.parametrize("seed", range(4))
def test_a_lesion_changes_the_picture_where_the_truth_says_and_more_so_with_contrast(seed):
    faint, clear = difference_inside(LOWEST, seed), difference_inside(HIGHEST, seed)
    assert clear[0] > 2 * faint[0] > 0
    assert clear[0] > 5 * clear[1]


def test_contrast_leaves_the_truth_alone():
    masks = [make_frame(np.random.default_rng(5), SIZE, contrast).mask for contrast in (0.2, 1.0)]
    np.testing.assert_array_equal(*masks)


def test_noise_has_mean_0_and_deviation_1():
    field = noise(np.random.default_rng(0), 64, 16, 3)
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)


def test_contact_sheet_holds_every_frame_twice(studies):
    sheet = contact_sheet(studies.images, studies.truth, columns=4, tile=32)
    assert sheet.size == (4 * 32, 2 * 2 * 32)
