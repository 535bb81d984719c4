import numpy as np
import pytest
import torch
from unit.helpers import FRAME, SLICE, VOLUME, Threshold, affine_of, nifti, png

from lib.core.cases import load_case
from lib.core.networks import build_network
from lib.core.predict import likeliest, predict
from lib.core.spec import DataSpec, NetworkSpec

CPU = torch.device("cpu")
SHAPE = (21, 34, 13)
CODES = ["RAS", "LPS", "LAS", "PIR", "ASL", "SRP", "IPL"]


def blobs(shape):
    """0 or 100 with an off-centre box and a bar, nothing symmetric."""
    array = np.zeros(shape, np.float32)
    array[2:9, 5:20, 1:6] = 100
    array[12:15, 8:30, 4:12] = 100
    return array


def segment(path, data, network=None):
    case = load_case(path, None, data, 2)
    return predict((network or Threshold()).eval(), case, data, CPU)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize(
    ("data", "spacing"), [(VOLUME, (1.0, 1.0, 1.0)), (SLICE, (1.0, 1.0, 5.0)), (SLICE, (5.0, 1.0, 1.0))]
)
def test_the_mask_lies_on_the_voxels_of_the_file(tmp_path, codes, data, spacing):
    array = blobs(SHAPE)
    path = nifti(tmp_path / "v.nii.gz", array, affine_of(codes, SHAPE, spacing))
    got = segment(path, data).native_label()
    assert got.dtype == torch.uint8
    assert tuple(got.shape) == SHAPE
    np.testing.assert_array_equal(got.numpy(), array > 50)


@pytest.mark.parametrize("codes", CODES)
def test_the_mask_is_aligned_after_resampling(tmp_path, codes):
    array = blobs(SHAPE)
    path = nifti(tmp_path / "v.nii.gz", array, affine_of(codes, SHAPE, (1.0, 1.0, 3.0)))
    data = DataSpec("volume", (16, 16, 16), 0, (0.5, 0.5, 0.5))
    got = segment(path, data).native_label().numpy()
    np.testing.assert_array_equal(got, array > 50)


@pytest.mark.parametrize("size", [(53, 37), (37, 53), (16, 16), (1, 9)])
def test_a_colour_picture_of_odd_size(tmp_path, size):
    rows = np.zeros((*size, 3), np.uint8)
    rows[: size[0] // 3 + 1, size[1] // 2 :] = (255, 255, 255)
    path = png(tmp_path / "a.png", rows)
    got = segment(path, FRAME).native_label().numpy()
    np.testing.assert_array_equal(got, rows[..., 0].T > 127)


def test_a_picture_that_was_scaled_down_comes_back_in_its_size(tmp_path):
    rows = np.zeros((150, 101, 3), np.uint8)
    rows[30:110, 25:80] = 255
    got = segment(png(tmp_path / "a.png", rows), FRAME).native_label().numpy()
    assert got.shape == (101, 150)
    wrong = got != (rows[..., 0].T > 127)
    assert wrong.mean() < 0.01


def test_padding_to_the_divisor_never_reaches_the_result(tmp_path):
    rows = np.full((17, 33, 3), 255, np.uint8)
    prediction = segment(png(tmp_path / "a.png", rows), FRAME)
    assert tuple(prediction.probs.shape) == (2, 33, 17)
    assert float(prediction.probs[1].min()) > 0.99


@pytest.mark.parametrize("data", [FRAME, SLICE, VOLUME], ids=lambda d: d.kind)
def test_the_padding_repeats_the_edge(tmp_path, data):
    path = nifti(tmp_path / "a.nii.gz", np.full((17, 9, 1) if data.kind == "frame" else (17, 9, 3), 5, np.float32))
    case, seen = load_case(path, None, data, 2), []
    case.image.fill_(0.7)
    network = Threshold().eval()
    network.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    predict(network, case, data, CPU)
    assert all(n % 16 == 0 for x in seen for n in x.shape[2:])
    if data.kind != "volume":  # larger than the crop: windows, which are padded by MONAI
        assert all(bool((x == 0.7).all()) for x in seen)


def test_probabilities_sum_to_one_and_the_windows_agree_with_one_pass(tmp_path):
    array = blobs((40, 34, 20))
    path = nifti(tmp_path / "v.nii.gz", array)
    small = segment(path, VOLUME).native_probs()
    whole = segment(path, DataSpec("volume", (48, 48, 32), 0, (1.0, 1.0, 1.0))).native_probs()
    assert torch.allclose(small.sum(0), torch.ones(40, 34, 20), atol=1e-4)
    assert torch.allclose(small, whole, atol=1e-4)


@pytest.mark.parametrize("data", [VOLUME, SLICE], ids=["volume", "slice"])
def test_the_projection_comes_in_working_resolution(tmp_path, data):
    path = nifti(tmp_path / "v.nii.gz", blobs(SHAPE), affine_of("RAS", SHAPE, (1.0, 1.0, 1.0)))
    case = load_case(path, None, data, 2)
    with_projection = predict(Threshold().eval(), case, data, CPU, with_projection=True)
    assert with_projection.projection.dtype == torch.float16
    assert tuple(with_projection.projection.shape) == (2, *case.grid.working_shape)
    assert torch.allclose(with_projection.projection[0].float(), case.image[0], atol=2e-2)
    assert predict(Threshold().eval(), case, data, CPU).projection is None


def test_the_projection_of_a_picture(tmp_path):
    case = load_case(png(tmp_path / "a.png", np.full((17, 33, 3), 51, np.uint8)), None, FRAME, 2)
    got = predict(Threshold().eval(), case, FRAME, CPU, with_projection=True).projection
    assert tuple(got.shape) == (4, 33, 17)
    assert torch.allclose(got[0].float(), torch.tensor(0.2), atol=1e-3)


@pytest.mark.parametrize(("data", "name"), [(FRAME, "deeplabv3plus_efficientnet_lite0"), (VOLUME, "unet3d_small")])
def test_a_study_smaller_than_the_network_can_take_is_padded(tmp_path, data, name):
    network = build_network(NetworkSpec(name, 2, 8, pretrained=False), data.spatial_dims)
    shape = (9, 7) if data.kind == "frame" else (9, 7, 5)
    save = png if data.kind == "frame" else nifti
    path = save(
        tmp_path / ("a.png" if data.kind == "frame" else "a.nii.gz"),
        np.arange(np.prod(shape), dtype=np.uint8).reshape(shape),
    )
    got = segment(path, data, network).native_label()
    assert sorted(got.shape) == sorted(shape)


def test_no_graph_is_kept(tmp_path):
    prediction = segment(png(tmp_path / "a.png", np.zeros((16, 16, 3), np.uint8)), FRAME)
    assert not prediction.probs.requires_grad
    assert not bool(prediction.native_label().any())


@pytest.mark.parametrize("shape", [(2, 9, 7), (4, 5, 6, 3), (1, 8, 8)])
def test_the_likeliest_class_is_that_of_argmax(shape):
    probs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).mul(4).round()  # with ties
    assert torch.equal(likeliest(probs), probs.argmax(dim=0).to(torch.uint8))
