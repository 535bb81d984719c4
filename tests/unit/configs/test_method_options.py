import inspect
import re

import pytest

from lib.configs.conf import parse_conf
from lib.configs.method_options import SHARED, _places, with_options
from lib.core.methods import METHODS, Method
from lib.core.spec import MethodSpec, SpecError


def test_numbers_and_switches_of_the_chosen_method():
    spec = with_options(MethodSpec("bcp"), "ema=plain, hole=0.5,teacher=training")
    assert (spec.bcp.ema, spec.bcp.hole, spec.bcp.teacher) == ("plain", 0.5, "training")
    assert with_options(MethodSpec("spcl"), "correct_gradient=true,partitions=8").spcl.correct_gradient is True
    assert with_options(MethodSpec("bcp"), " ") == MethodSpec("bcp")


def test_numbers_of_the_base_and_shared_ones():
    spec = with_options(MethodSpec("m3hl"), "ema=plain,teacher=training,ratio=0.3:0.7,unsup_weight=0.25")
    assert (spec.bcp.ema, spec.bcp.teacher, spec.bcp.unsup_weight) == ("plain", "training", 0.5)
    assert (spec.m3hl.ratio, spec.m3hl.unsup_weight) == ((0.3, 0.7), 0.25)
    spec = with_options(MethodSpec("transmedseg"), "pretraining=0.5,ema=plain,alpha=0.3")
    assert (spec.bcp.pretraining, spec.bcp.ema, spec.transmedseg.alpha) == (0.5, "plain", 0.3)
    spec = with_options(MethodSpec("c3s3"), "consistency_weight=0.5,alpha=0.5")
    assert (spec.consistency_weight, spec.c3s3.alpha) == (0.5, 0.5)
    assert with_options(MethodSpec("ersr"), "ramp_share=1,border=zero").ramp_share == 1
    assert with_options(MethodSpec("loco"), "global_over_padding=true").confidence.global_over_padding
    assert with_options(MethodSpec("fixmatch"), "threshold=0.8").threshold == 0.8
    assert with_options(MethodSpec("cad"), "cap=0.25:0.25").cad.cap == (0.25, 0.25)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_shared_numbers_that_it_reads_and_no_others(name):
    method = METHODS[name]
    own = [c for c in method.__mro__ if c.__module__ not in (Method.__module__, "builtins")]
    source = "".join(inspect.getsource(inspect.getmodule(c)) for c in own)
    read = set(re.findall(r"self\.spec\.(\w+)", source)) | ({"ramp_share"} if "self.ramp(" in source else set())
    plain = method.unlabelled_step is Method.unlabelled_step  # no stage of its own, or a first one that it inherits
    plain |= method.pretraining is not Method.pretraining and method.pretraining_step is Method.pretraining_step
    read |= {"labelled_loss"} if plain or "self.labelled_loss" in source else set()
    read |= {"batch_statistics"} if "self.in_parts" in source else set()
    assert {path.split(".")[0] for path in SHARED.get(name, ())} == read - {name}


@pytest.mark.parametrize("name", METHODS)
def test_a_base_lends_no_number_that_the_method_does_not_read(name):
    for path in SHARED.get(name, ()):
        part, _, field = path.partition(".")
        assert not field or hasattr(getattr(MethodSpec(), part), field)
    known = set(_places(MethodSpec(name)))
    assert ("hole" in known) == (name in ("bcp", "transmedseg"))


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
        (
            "m3hl",
            "ratio=0.3",
            r"expected --conf options ratio to be two numbers as 0\.3:0\.7, but got '0\.3'; correct it",
        ),
        ("m3hl", "ratio=0.3:0.5:0.7", "expected --conf options ratio to be two numbers"),
        ("m3hl", "ratio=a:b", "expected --conf options ratio to be two numbers"),
        (
            "m3hl",
            "hole=0.5",
            "options of the method m3hl to be among pretraining, blocks, .*, ema, teacher, labelled_loss, but got 'hole",
        ),
        ("bcp", "ramp_share=1", "options of the method bcp to be among"),
        (
            "supervised",
            "a=1",
            r"expected --conf options of the method supervised to be among labelled_loss, but got 'a=1'",
        ),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(method, text, message):
    with pytest.raises(SpecError, match=message):
        with_options(MethodSpec(method), text)


def test_they_come_with_the_settings_of_the_server():
    assert parse_conf({"method": "ua_mt", "options": "scale=two"}).method.ua_mt.scale == "two"
