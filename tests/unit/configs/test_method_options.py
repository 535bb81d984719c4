import pytest

from lib.configs.conf import parse_conf
from lib.configs.method_options import with_options
from lib.core.spec import MethodSpec, SpecError


def test_numbers_and_switches_of_the_chosen_method():
    spec = with_options(MethodSpec("bcp"), "ema=plain, hole=0.5,teacher=training")
    assert (spec.bcp.ema, spec.bcp.hole, spec.bcp.teacher) == ("plain", 0.5, "training")
    assert with_options(MethodSpec("spcl"), "correct_gradient=true,partitions=8").spcl.correct_gradient is True
    assert with_options(MethodSpec("bcp"), " ") == MethodSpec("bcp")


@pytest.mark.parametrize(
    ("method", "text", "message"),
    [
        (
            "bcp",
            "holes=0.5",
            r"options of the method bcp to be among pretraining, hole, .* but got 'holes=0.5'; use these",
        ),
        ("bcp", "ema=cold", r"expected --conf options ema to be one of warm, plain, but got 'cold'; correct it"),
        ("bcp", "hole=big", r"expected --conf options hole to be a number, but got 'big'"),
        ("ua_mt", "passes=2.5", r"expected --conf options passes to be a whole number, but got '2\.5'"),
        ("spcl", "correct_gradient=perhaps", r"correct_gradient to be one of true, false, but got 'perhaps'"),
        ("supervised", "a=1", r"expected no --conf options for the method supervised, but got 'a=1'; leave them out"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(method, text, message):
    with pytest.raises(SpecError, match=message):
        with_options(MethodSpec(method), text)


def test_they_come_with_the_settings_of_the_server():
    assert parse_conf({"method": "ua_mt", "options": "scale=two"}).method.ua_mt.scale == "two"
