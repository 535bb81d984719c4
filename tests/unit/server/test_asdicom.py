from pathlib import Path

import numpy as np
import pytest
import torch
from studies import affine_of

from lib.core.images import ImageHeader, LoadedImage
from lib.server.asdicom import Identity, as_int16, datasets_of, header_of

IDENTITY = Identity.of("project", "case", "patient")
OBLIQUE = np.array([[0.8, 0.6, 0, 0], [-0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
AFFINES = {
    **{axes: affine_of(axes, (1.5, 0.7, 4.0)) for axes in ("RAS", "LPS", "PIR", "SLA")},
    "thick first": affine_of("RAS", (5.0, 0.7, 1.0)),
    "oblique": OBLIQUE @ affine_of("LPS", (1.5, 0.7, 4.0)),
}


def world_of(ds, column, row):
    """LPS position of a pixel, by the equation of DICOM PS3.3 C.7.6.2.1.1."""
    along, down = np.array(ds.ImageOrientationPatient[:3], float), np.array(ds.ImageOrientationPatient[3:], float)
    spacing = [float(v) for v in ds.PixelSpacing]
    return np.array(ds.ImagePositionPatient, float) + along * spacing[1] * column + down * spacing[0] * row


@pytest.mark.parametrize("name", AFFINES)
def test_every_voxel_of_a_volume_keeps_its_place_and_value(name):
    values = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    affine = AFFINES[name]
    slices = datasets_of(IDENTITY, "case.nii.gz", LoadedImage(torch.from_numpy(values)[None], affine))
    back = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ affine)
    seen = set()
    for ds in slices:
        pixels = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        for row in range(ds.Rows):
            for column in range(ds.Columns):
                voxel = (back @ [*world_of(ds, column, row), 1])[:3]
                nearest = tuple(int(v) for v in np.round(voxel))
                np.testing.assert_allclose(voxel, nearest, atol=1e-5)
                assert pixels[row, column] == values[nearest]
                seen.add(nearest)
    assert len(seen) == values.size
    assert len({ds.SOPInstanceUID for ds in slices}) == len(slices)


def test_a_picture_becomes_one_secondary_capture_with_its_colours():
    picture = torch.arange(3 * 7 * 5).reshape(3, 7, 5).float()
    (ds,) = datasets_of(IDENTITY, "case.png", LoadedImage(picture, None))
    assert (ds.Modality, ds.SOPClassUID.name) == ("OT", "Secondary Capture Image Storage")
    np.testing.assert_array_equal(ds.pixel_array, picture.numpy().transpose(2, 1, 0))


def test_a_grey_picture_stays_grey():
    picture = torch.tensor([[[0.0, 255.0], [7.0, 9.0], [1.0, 2.0]]])
    (ds,) = datasets_of(IDENTITY, "case.png", LoadedImage(picture, None))
    assert ds.PhotometricInterpretation == "MONOCHROME2"
    np.testing.assert_array_equal(ds.pixel_array, [[0, 7, 1], [255, 9, 2]])


@pytest.mark.parametrize("values", [[-1000, 0, 3000], [0.0, 0.25, 1.0], [1e-4, 2e-4], [-7e5, 8e5], [5.5, 5.5]])
def test_intensities_survive_as_16_bit_to_the_last_step(values):
    array = np.array(values, np.float64)
    stored, slope, intercept = as_int16(array)
    assert stored.dtype == np.int16
    assert max(len(slope), len(intercept)) <= 16
    step = max(array.max() - array.min(), 1e-9) / 65535
    tolerance = 0 if float(slope) == 1 else step
    np.testing.assert_allclose(stored * float(slope) + float(intercept), array, atol=tolerance, rtol=1e-9)


def test_air_makes_a_ct():
    array = torch.tensor([-1000.0, 40.0]).reshape(1, 1, 1, 2)
    assert {ds.Modality for ds in datasets_of(IDENTITY, "a.nii", LoadedImage(array, np.eye(4)))} == {"CT"}
    assert {ds.Modality for ds in datasets_of(IDENTITY, "a.nii", LoadedImage(array.abs(), np.eye(4)))} == {"MR"}


def test_identifiers_are_valid_the_same_each_time_and_differ_between_projects_and_images():
    again = Identity.of("project", "case", "patient")
    assert again == IDENTITY
    others = {Identity.of("other", "case", "p").study, Identity.of("project", "case2", "p").study, IDENTITY.series}
    assert len({*others, IDENTITY.study}) == 4
    assert all(len(uid) <= 64 and uid.startswith("2.25.") for uid in others)


def test_a_list_needs_no_pixels():
    row = header_of(IDENTITY, Path("missing.nii.gz"), ImageHeader((40, 30, 12), (1.0, 1.0, 4.0), False))
    assert (row.Modality, row.NumberOfSeriesRelatedInstances, str(row.PatientName)) == ("MR", 12, "case")
    row = header_of(IDENTITY, Path("missing.png"), ImageHeader((40, 30), (1.0, 1.0), True))
    assert (row.Modality, row.NumberOfSeriesRelatedInstances) == ("OT", 1)
