from math import prod

import pytest
from unit.helpers import noise, png

from lib.core.images import ImageHeader, read_header
from lib.core.networks import NETWORKS_2D, NETWORKS_3D
from lib.core.plan import decide_kind, plan_data, plan_task, plan_training
from lib.core.spec import MethodSpec, SpecError


def volume(*shape, spacing=(1.0, 1.0, 1.0)):
    return ImageHeader(shape, spacing, False)


FRAME = ImageHeader((640, 480), (1.0, 1.0), True)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (FRAME, "frame"),
        (ImageHeader((640, 480), (1.0, 1.0), False), "frame"),
        (volume(256, 256, 1, spacing=(1.0, 1.0, 9.0)), "frame"),
        (ImageHeader((30, 30, 30), (1.0, 1.0, 1.0), True), "frame"),
        (volume(256, 256, 10, spacing=(1.0, 1.0, 3.0)), "slice"),
        (volume(256, 256, 10, spacing=(1.0, 1.0, 2.999)), "volume"),
        (volume(10, 256, 256, spacing=(6.0, 2.0, 2.0)), "slice"),
        (volume(256, 256, 100, spacing=(0.5, 0.5, 1.4)), "volume"),
    ],
)
def test_the_kind_of_one_study(header, kind):
    assert decide_kind([header]) == kind


def test_the_majority_decides_and_without_studies_it_is_frame():
    thick, thin = volume(99, 99, 9, spacing=(1.0, 1.0, 8.0)), volume(99, 99, 99)
    assert decide_kind([thick, thin, thick]) == "slice"
    assert decide_kind([thin, FRAME, thin]) == "volume"
    assert decide_kind([]) == "frame"


def test_a_picture_on_disk(tmp_path):
    assert decide_kind([read_header(png(tmp_path / "a.png", noise(8, 9, 3)))]) == "frame"


HEADERS = [
    volume(216, 256, 10, spacing=(1.56, 1.56, 10.0)),
    volume(576, 576, 88, spacing=(0.625, 0.625, 1.25)),
    volume(20, 18, 5, spacing=(1.0, 1.0, 4.0)),
    volume(5, 300, 301, spacing=(8.0, 0.9, 0.9)),
    volume(7, 9, 8),
]


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("kind", ["frame", "slice", "volume"])
@pytest.mark.parametrize("header", HEADERS)
def test_crops_are_multiples_of_16_that_every_network_takes(kind, cuda, header):
    data = plan_data(kind, [header], cuda)
    assert data.kind == kind
    assert len(data.patch) == data.spatial_dims
    assert all(n % 16 == 0 and n > 0 for n in data.patch)
    assert max(data.patch) >= 32
    assert max(data.patch) <= (512 if data.spatial_dims == 2 else 96)
    assert all(s > 0 for s in data.spacing)
    assert len(data.spacing) == {"frame": 0, "slice": 2, "volume": 3}[kind]


def test_slices_keep_their_resolution_up_to_the_size():
    data = plan_data("slice", [volume(100, 120, 10, spacing=(1.5, 1.5, 10.0))], False)
    assert data.spacing == pytest.approx((1.5, 1.5))
    assert data.patch == (128, 128)
    large = plan_data("slice", [volume(384, 384, 10, spacing=(1.0, 1.0, 10.0))], False)
    assert large.spacing == pytest.approx((2.0, 2.0))
    assert large.patch == (192, 192)


def test_the_order_of_the_axes_does_not_matter():
    a = plan_data("slice", [volume(120, 100, 10, spacing=(1.5, 1.5, 10.0))], False)
    b = plan_data("slice", [volume(10, 120, 100, spacing=(10.0, 1.5, 1.5))], False)
    assert a == b


def test_volumes_are_coarsened_on_a_cpu_but_never_more_than_2_5_times():
    small, huge = volume(40, 40, 40), volume(400, 400, 400)
    assert plan_data("volume", [small], False).spacing == pytest.approx((1.0,) * 3)
    assert plan_data("volume", [huge], False).spacing == pytest.approx((2.5,) * 3)
    assert plan_data("volume", [huge], True).spacing == pytest.approx((1.0,) * 3)
    middle = plan_data("volume", [volume(100, 100, 100)], False).spacing[0]
    assert prod([100 / middle] * 3) == pytest.approx(2e5, rel=0.01)


def test_a_gpu_gets_larger_crops_and_longer_runs():
    for kind in ("frame", "slice", "volume"):
        cpu, gpu = plan_training(kind, False), plan_training(kind, True)
        assert gpu.iterations > 5 * cpu.iterations
        assert gpu.batch_labelled >= cpu.batch_labelled >= 1
        assert plan_data(kind, HEADERS[:2], True).patch >= plan_data(kind, HEADERS[:2], False).patch


def test_short_runs_of_a_pretrained_network_have_adamw_and_one_rate():
    for kind in ("frame", "slice"):
        training = plan_training(kind, False)
        assert (training.optimizer, training.encoder_rate) == ("adamw", 1.0)
        assert (plan_training(kind, True).optimizer, plan_training(kind, True).encoder_rate) == ("sgd", 0.1)


@pytest.mark.parametrize("kind", ["frame", "slice", "volume"])
@pytest.mark.parametrize("cuda", [False, True])
def test_the_whole_task(kind, cuda):
    spec = plan_task(kind, {"a": 1, "b": 3}, HEADERS[:1], MethodSpec(name="fixmatch"), cuda)
    assert spec.labels == {"a": 1, "b": 3}
    assert spec.network.classes == 4
    assert spec.network.name in (NETWORKS_3D if kind == "volume" else NETWORKS_2D)
    assert spec.method.name == "fixmatch"
    assert spec.training == plan_training(kind, cuda)


def test_without_labels_there_is_no_task():
    with pytest.raises(SpecError, match=r"expected at least one label, but got none; set them with --conf labels NAME"):
        plan_task("frame", {}, [], MethodSpec(), False)
