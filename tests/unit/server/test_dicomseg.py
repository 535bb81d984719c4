"""No voxel moves: masks written as DICOM SEG come back where they were, whoever wrote them."""

from datetime import datetime
from io import BytesIO

import numpy as np
import pytest
from dicom import AXIAL, CORONAL, OBLIQUE, SAGITTAL, film, picture_series, volume_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite

from lib.core.images import CaseError
from lib.server.dicomseg import Author, read_seg, seg_header, write_seg
from lib.server.series import Grid, cases_of

LABELS = {"rv": 1, "myo": 2, "lv": 4}
NOW = datetime(2024, 5, 6, 7, 8, 9)
AUTHOR = Author("ann", 3)
SHAPE = (9, 7, 5)


def grid_of(headers) -> Grid:
    cases, why = cases_of(str(headers[0].SeriesInstanceUID), headers)
    assert len(cases) == 1, why
    return cases[0].grid


def through_a_file(seg):
    """The dataset as another program would read it."""
    out = BytesIO()
    dcmwrite(out, seg, write_like_original=False)
    out.seek(0)
    return dcmread(out)


def mask(shape=SHAPE, seed=0, share=0.3):
    """Random classes with an empty first and fourth slice."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0, 1, 2, 4], shape, p=[1 - share, share / 3, share / 3, share / 3]).astype(np.uint8)
    values[:, :, ::3] = 0
    return values


@settings(max_examples=12, deadline=None)
@given(
    axes=st.sampled_from([AXIAL, SAGITTAL, CORONAL, OBLIQUE]),
    slices=st.integers(1, 5),
    reverse=st.booleans(),
    gap=st.sampled_from([0.7, 4.0, 11.0]),
    seed=st.integers(0, 99),
)
def test_round_trip_over_orientations_orders_and_gaps(axes, slices, reverse, gap, seed):
    headers = volume_series(np.zeros((9, 7, slices)), axes, (1.5, 1.25, gap), reverse=reverse)
    values = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 4], (9, 7, slices)).astype(np.uint8)
    values[:, :, seed % slices] = 0
    grid = grid_of(headers)
    seg = through_a_file(write_seg(values, grid, headers[0], LABELS, AUTHOR, NOW))
    read = read_seg(seg, grid, LABELS)
    np.testing.assert_array_equal(read.classes, values)
    assert read.found == {n: i for n, i in LABELS.items() if (values == i).any()}
    assert read.addressed


def test_slices_are_in_the_order_of_the_normal_and_empty_ones_are_left_out():
    headers = volume_series(np.zeros(SHAPE), reverse=True)
    grid = grid_of(headers)
    assert [p.sop for p in grid.planes] == [str(h.SOPInstanceUID) for h in headers[::-1]]
    seg = write_seg(mask(), grid, headers[0], LABELS, AUTHOR, NOW)
    assert int(seg.NumberOfFrames) == 9, "three drawn slices, three classes"
    np.testing.assert_allclose(grid.affine() @ [1, 2, 3, 1], [30 - 1.5, -12.5 - 2.5, 7 + 12, 1])


def test_a_seg_says_who_drew_it_and_on_which_series():
    headers = volume_series(np.zeros(SHAPE))
    seg = through_a_file(write_seg(mask(), grid_of(headers), headers[0], LABELS, AUTHOR, NOW))
    header = seg_header(seg)
    assert (header.image_series, header.creator) == (str(headers[0].SeriesInstanceUID), "ann")
    assert header.written.startswith("20240506070809")
    assert seg.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    assert [s.SegmentLabel for s in seg.SegmentSequence] == list(LABELS)
    sources = {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert sources == {h.SOPInstanceUID for h in headers}
    assert seg.SourceImageSequence[0].ReferencedSOPClassUID == headers[0].SOPClassUID


def test_an_all_background_mask_is_kept_as_such():
    headers = volume_series(np.zeros(SHAPE))
    grid = grid_of(headers)
    seg = through_a_file(write_seg(np.zeros(SHAPE, np.uint8), grid, headers[0], LABELS, Author(), NOW))
    read = read_seg(seg, grid, LABELS)
    assert (read.found, read.addressed, read.classes.any()) == ({}, True, np.False_)
    assert int(seg.NumberOfFrames) == 1


@pytest.mark.parametrize("modality", ["OT", "ES", "CR"])
def test_pictures_of_one_series_are_told_apart(modality):
    arrays = [np.zeros((7, 9) if modality == "CR" else (7, 9, 3), np.uint8)] * 2
    headers = picture_series(modality, arrays)
    cases, _ = cases_of(str(headers[0].SeriesInstanceUID), headers)
    assert [c.id for c in cases] == [str(h.SOPInstanceUID) for h in headers]
    values = mask((9, 7, 1), share=0.9) + 0
    values[2:5, 1:3] = 2
    seg = through_a_file(write_seg(values, cases[1].grid, headers[1], LABELS, AUTHOR, NOW))
    np.testing.assert_array_equal(read_seg(seg, cases[1].grid, LABELS).classes, values)
    other = read_seg(seg, cases[0].grid, LABELS)
    assert (other.addressed, other.classes.any()) == (False, np.False_)
    assert seg.SourceImageSequence[0].ReferencedSOPClassUID == headers[0].SOPClassUID


def test_frames_of_a_film_are_told_apart():
    ds = film(np.zeros((3, 7, 9), np.uint8))
    cases, _ = cases_of(str(ds.SeriesInstanceUID), [ds])
    assert [c.id for c in cases] == [f"{ds.SOPInstanceUID}_{n}" for n in (1, 2, 3)]
    values = np.zeros((9, 7, 1), np.uint8)
    values[1:4, 2:6] = 1
    seg = through_a_file(write_seg(values, cases[1].grid, ds, LABELS, AUTHOR, NOW))
    assert [read_seg(seg, c.grid, LABELS).addressed for c in cases] == [False, True, False]
    np.testing.assert_array_equal(read_seg(seg, cases[1].grid, LABELS).classes, values)
    empty = through_a_file(write_seg(values * 0, cases[2].grid, ds, LABELS, AUTHOR, NOW))
    assert [read_seg(empty, c.grid, LABELS).addressed for c in cases] == [False, False, True]


def test_names_are_mapped_without_case_and_unknown_ones_are_refused():
    headers = volume_series(np.zeros(SHAPE))
    grid = grid_of(headers)
    seg = write_seg(mask(), grid, headers[0], {"LV": 1, "Myo ": 2, "rv": 4}, AUTHOR, NOW)
    expected = np.select([mask() == 1, mask() == 2, mask() == 4], [4, 2, 1])
    np.testing.assert_array_equal(read_seg(seg, grid, LABELS).classes, expected)
    with pytest.raises(CaseError, match=r"expected segments named lv, but got Myo, rv; rename them and store it again"):
        read_seg(seg, grid, {"lv": 1})
    only_lv = write_seg(np.where(mask() == 1, 1, 0).astype(np.uint8), grid, headers[0], {"lv": 1, "x": 2}, AUTHOR, NOW)
    assert read_seg(only_lv, grid, {"lv": 7}).found == {"lv": 7}


def test_overlapping_segments_are_refused_with_the_reason():
    headers = volume_series(np.zeros(SHAPE))
    grid = grid_of(headers)
    seg = write_seg(mask(), grid, headers[0], LABELS, AUTHOR, NOW)
    one = [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in seg.PerFrameFunctionalGroupsSequence]
    first = one.index(1)
    seg.PerFrameFunctionalGroupsSequence[first].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    z = next(z for z in range(5) if (mask()[:, :, z] == 1).any())
    pixels = seg.pixel_array.copy()
    second = next(
        i
        for i, f in enumerate(seg.PerFrameFunctionalGroupsSequence)
        if one[i] == 3
        and f.PlanePositionSequence[0].ImagePositionPatient
        == seg.PerFrameFunctionalGroupsSequence[first].PlanePositionSequence[0].ImagePositionPatient
    )
    pixels[second] |= pixels[first]
    seg.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    seg._pixel_array = None
    assert z >= 0
    with pytest.raises(CaseError, match=r"myo and lv overlap in \d+ voxels; decide for one of them there"):
        read_seg(through_a_file(seg), grid, LABELS)


def test_a_seg_on_a_finer_grid_of_the_same_space_is_sampled():
    coarse = volume_series(np.zeros((10, 8, 4)), spacing=(2.0, 2.0, 4.0), origin=(0.5, 0.5, 1.0))
    fine = volume_series(np.zeros((20, 16, 8)), spacing=(1.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0))
    for ds in fine:
        ds.FrameOfReferenceUID = coarse[0].FrameOfReferenceUID
    values = np.zeros((20, 16, 8), np.uint8)
    values[4:12, 6:14, 2:6] = 1
    seg = write_seg(values, grid_of(fine), fine[0], LABELS, AUTHOR, NOW)
    expected = np.zeros((10, 8, 4), np.uint8)
    expected[2:6, 3:7, 1:3] = 1
    np.testing.assert_array_equal(read_seg(seg, grid_of(coarse), LABELS).classes, expected)


def test_a_turned_seg_is_brought_back():
    """Same space, written with its rows along the other axis."""
    axial = volume_series(np.zeros((6, 6, 6)), spacing=(2.0, 2.0, 2.0), origin=(0, 0, 0))
    turned = volume_series(np.zeros((6, 6, 6)), SAGITTAL, (2.0, 2.0, 2.0), origin=(10, 0, 10))
    values = np.zeros((6, 6, 6), np.uint8)
    values[1:3, 0:2, 4:6] = 2
    seg = write_seg(values, grid_of(turned), turned[0], LABELS, AUTHOR, NOW)
    expected = np.zeros((6, 6, 6), np.uint8)
    for x, y, z in np.argwhere(values):
        ras = grid_of(turned).affine() @ [x, y, z, 1]
        i, j, k = np.rint(np.linalg.inv(grid_of(axial).affine()) @ ras).astype(int)[:3]
        if min(i, j, k) >= 0 and max(i, j, k) < 6:
            expected[i, j, k] = 2
    np.testing.assert_array_equal(read_seg(seg, grid_of(axial), LABELS).classes, expected)
    assert expected.any()


def test_probabilities_count_from_one_half():
    headers = volume_series(np.zeros(SHAPE))
    grid = grid_of(headers)
    seg = write_seg((mask() == 1).astype(np.uint8), grid, headers[0], {"rv": 1}, AUTHOR, NOW)
    pixels = seg.pixel_array.astype(np.uint8) * 200
    pixels[pixels == 0] = 90
    seg.SegmentationType, seg.MaximumFractionalValue = "FRACTIONAL", 255
    seg.BitsAllocated = seg.BitsStored = 8
    seg.HighBit = 7
    seg.PixelData = pixels.tobytes()
    seg._pixel_array = None
    np.testing.assert_array_equal(read_seg(seg, grid, LABELS).classes, mask() == 1)
