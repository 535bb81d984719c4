import nibabel as nib
import numpy as np
import pytest
import torch
from unit.helpers import FRAME, ORIENTATIONS, SLICE, VOLUME, affine_of, noise

from lib.core.grid import to_native, to_working, working_grid
from lib.core.spec import DataSpec

SHAPE = (5, 8, 11)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_becomes_closest_canonical(codes):
    array = noise(*SHAPE).astype(np.float32)
    affine = affine_of(codes, SHAPE, (1.0, 1.0, 1.0))
    grid = working_grid(SHAPE, affine, VOLUME)
    working = to_working(torch.from_numpy(array)[None], grid, nearest=False)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    np.testing.assert_array_equal(working[0].numpy(), canonical.get_fdata(dtype=np.float32))
    assert grid.spacing == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "data", [VOLUME, SLICE, DataSpec("slice", (16, 16), 8, (1.0, 1.0))], ids=["volume", "slice", "size"]
)
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_way_there_and_back_ends_on_the_same_voxels(codes, data):
    spacing = (1.0, 1.0, 4.0)
    affine = affine_of(codes, SHAPE, spacing)
    values = torch.from_numpy(noise(1, *SHAPE, high=4))
    if data.size == 8:  # working pixels are coarser: use blocks that survive the way there and back
        values = torch.zeros_like(values)
        values[:, 3:, 4:, 6:] = 2
    grid = working_grid(SHAPE, affine, data)
    back = to_native(to_working(values, grid, nearest=True), grid, nearest=True)
    assert back.dtype == values.dtype
    assert tuple(back.shape) == tuple(values.shape)
    if data.size == 8:
        assert float((back == values).float().mean()) > 0.9
        assert set(back.unique().tolist()) == {0, 2}
    elif data.kind == "volume":
        assert torch.equal(back, values)  # 4 mm slices are repeated four times, never blended
    else:
        assert torch.equal(back, values)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_slices_keep_the_thick_axis_last_and_the_axes_pointing_to_ras(codes):
    spacing = (4.0, 1.0, 1.0)
    grid = working_grid(SHAPE, affine_of(codes, SHAPE, spacing), SLICE)
    assert grid.axes[2] == 0
    assert grid.working_shape[2] == SHAPE[0]
    directions = [codes[a] for a in grid.axes]
    assert [c not in "RAS" for c in directions] == list(grid.flips)
    plane = ["RL" if c in "RL" else "AP" if c in "AP" else "SI" for c in directions[:2]]
    assert plane == sorted(plane, key=["RL", "AP", "SI"].index)


def test_with_like_spacings_the_shortest_axis_is_the_thick_one():
    grid = working_grid((9, 3, 10), affine_of("RAS", (9, 3, 10), (1.0, 1.2, 1.0)), SLICE)
    assert grid.axes == (0, 2, 1)


def test_spacing_numbers():
    grid = working_grid((10, 20, 6), affine_of("RAS", (10, 20, 6), (0.5, 0.5, 3.0)), VOLUME)
    assert grid.working_shape == (5, 10, 18)
    assert grid.spacing == pytest.approx((1.0, 1.0, 1.0))
    grid = working_grid((11, 20, 6), affine_of("RAS", (11, 20, 6), (0.5, 0.5, 3.0)), VOLUME)
    assert grid.working_shape[0] == 6  # 5.5 mm: the field of view stays, the spacing gives
    assert grid.spacing[0] == pytest.approx(5.5 / 6)


def test_slice_size_bounds_the_plane_and_keeps_its_proportions():
    data = DataSpec("slice", (16, 16), 32, (1.0, 1.0))
    grid = working_grid((64, 48, 5), affine_of("RAS", (64, 48, 5), (1.0, 1.0, 8.0)), data)
    assert grid.working_shape == (32, 24, 5)
    assert grid.spacing == pytest.approx((2.0, 2.0, 8.0))


def test_resampled_labels_keep_their_values():
    shape = (13, 9, 6)
    values = torch.from_numpy(noise(1, *shape, high=3) * 7)
    for data in (VOLUME, SLICE):
        grid = working_grid(shape, affine_of("PIR", shape, (0.7, 1.3, 2.2)), data)
        working = to_working(values, grid, nearest=True)
        assert tuple(working.shape[1:]) == grid.working_shape
        assert working.dtype == torch.uint8
        assert set(working.unique().tolist()) <= {0, 7, 14}


def test_resampling_keeps_the_field_of_view():
    ramp = torch.linspace(0, 1, 40).view(1, 40, 1, 1).expand(1, 40, 40, 8).contiguous()
    grid = working_grid((40, 40, 8), affine_of("RAS", (40, 40, 8), (0.5, 0.5, 4.0)), SLICE)
    working = to_working(ramp, grid, nearest=False)
    pairs = ramp[0, :, 0, 0].reshape(20, 2).mean(1)
    np.testing.assert_allclose(working[0, 1:-1, 3, 2].numpy(), pairs[1:-1].numpy(), atol=2e-3)


# --- frames


def test_small_frames_stay_as_they_are_and_large_ones_shrink():
    assert working_grid((60, 40), None, FRAME).working_shape == (60, 40)
    assert working_grid((128, 100), None, FRAME).working_shape == (64, 50)
    assert working_grid((128, 1), None, FRAME).working_shape == (64, 1)


@pytest.mark.parametrize(
    ("shape", "axes"), [((9, 7, 1), (0, 1)), ((9, 1, 7), (0, 2)), ((1, 9, 7), (1, 2)), ((9, 7), (0, 1))]
)
def test_a_frame_with_an_axis_of_one(shape, axes):
    values = torch.from_numpy(noise(3, *shape))
    grid = working_grid(shape, np.eye(4), FRAME)
    assert grid.axes == axes
    working = to_working(values, grid, nearest=True)
    assert tuple(working.shape) == (3, 9, 7)
    assert torch.equal(to_native(working, grid, nearest=True), values)


def test_a_frame_that_was_scaled_comes_back_in_its_size():
    values = torch.zeros(1, 130, 77, dtype=torch.uint8)
    values[:, 30:90, 20:60] = 1
    grid = working_grid((130, 77), None, FRAME)
    back = to_native(to_working(values, grid, nearest=True), grid, nearest=True)
    assert tuple(back.shape) == (1, 130, 77)
    assert float((back == values).float().mean()) > 0.98


def test_a_picture_seen_as_a_slice_volume():
    grid = working_grid((20, 10), None, SLICE)
    working = to_working(torch.zeros(1, 20, 10), grid, nearest=False)
    assert tuple(working.shape) == (1, *grid.working_shape)
    assert 1 in grid.working_shape
