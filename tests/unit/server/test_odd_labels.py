"""Labels and images of odd shapes, types, orientations and values: refused with a sentence, or kept as they were meant."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from studies import affine_of

from lib.core.images import CaseError, read_image, read_label
from lib.server.labels import checked_label, label_info_of

SEARCH = settings(
    max_examples=int(os.environ.get("LOCO_EXAMPLES", "25")), deadline=None, suppress_health_check=list(HealthCheck)
)
TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]
AXES = ["RAS", "LPS", "PIR", "SLA", "IPR"]
SHAPE = (5, 4, 3)


def sentence(error):
    """It has words, and no more of a bad value than one can read."""
    assert 10 < len(str(error)) < 600


VALUES = {
    "u": st.integers(0, 3) | st.integers(0, 255),
    "i": st.integers(-3, 3) | st.integers(-1000, 1000),
    "f": st.sampled_from([0.0, 1.0, 2.0]) | st.floats(width=32),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("odd") / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine_of("LPS", (1.0, 2.0, 3.0))), path)
    return path


@st.composite
def label_files(draw):
    """An array, its axes and its file type."""
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    shape = draw(st.sampled_from([SHAPE, SHAPE, (5, 4), (5, 4, 1), (4, 5, 3), (5, 4, 3, 1), (5, 4, 3, 2), (1, 1, 1)]))
    return draw(npst.arrays(dtype, shape, elements=VALUES[dtype.kind])), draw(st.sampled_from(AXES))


@SEARCH
@given(
    label_files(),
    st.none() | st.lists(st.dictionaries(st.sampled_from(["name", "idx", "x"]), st.integers() | st.text())),
)
def test_a_label_is_kept_or_refused_in_words(study, tmp_path_factory, file, info):
    array, axes = file
    path = tmp_path_factory.getbasetemp() / "label.nii.gz"
    nib.save(nib.Nifti1Image(array, affine_of(axes, (1.0, 2.0, 3.0))), path)
    try:
        kept, found = checked_label(path, study, {"a": 1, "b": 2}, label_info_of({"label_info": info}))
    except CaseError as e:
        sentence(e)
        return
    values = read_label(kept).array
    assert tuple(values.shape[1:]) == SHAPE
    assert set(np.unique(values.numpy())) <= {0, 1, 2}
    assert set(found) == {name for name, index in {"a": 1, "b": 2}.items() if (values == index).any()}
    if kept != str(path):
        os.unlink(kept)


@SEARCH
@given(st.binary(max_size=400), st.sampled_from([".png", ".nii.gz", ".nii", ".nrrd", ".tif", ".jpg", ".bmp"]))
def test_any_bytes_are_read_or_refused_in_words(study, tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"rubbish{suffix}"
    path.write_bytes(content)
    for read in (read_image, read_label):
        try:
            read(path)
        except CaseError as e:
            sentence(e)
    with pytest.raises(CaseError):
        checked_label(path, study, {"a": 1}, None)


@SEARCH
@given(st.integers(0, 400), st.data())
def test_a_damaged_study_is_read_or_refused_in_words(study, tmp_path_factory, place, data):
    """Bytes of a real file changed or cut."""
    content = bytearray(study.read_bytes())
    place = place % len(content)
    content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[:place]
    path = tmp_path_factory.getbasetemp() / "damaged.nii.gz"
    path.write_bytes(bytes(content))
    try:
        read_image(path)
    except CaseError as e:
        sentence(e)


@SEARCH
@given(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "CMYK"]), st.integers(1, 9), st.integers(1, 9))
def test_pictures_of_every_mode_are_read_or_refused_in_words(tmp_path_factory, mode, width, height):
    path = tmp_path_factory.getbasetemp() / f"mode.{'tif' if mode in ('F', 'CMYK') else 'png'}"
    Image.new(mode, (width, height)).save(path)
    for read in (read_image, read_label):
        try:
            assert tuple(read(path).array.shape[1:]) == (width, height)
        except CaseError as e:
            sentence(e)
