import re
from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import network_of
from unit.helpers import FRAME, SLICE, VOLUME, spec_of

from lib.core.methods import METHODS, Method, build_method, marked, method_class, second_network
from lib.core.spec import MethodSpec, SpecError
from lib.core.spec_ranges import out_of_range

NAMES = list(METHODS)


def test_every_method_is_listed_under_its_name():
    assert NAMES[:4] == ["loco", "supervised", "mean_teacher", "fixmatch"]
    assert all(issubclass(m, Method) and m.name == name for name, m in METHODS.items())
    assert len({m.title for m in METHODS.values()}) == len(METHODS)


def test_an_unknown_method_lists_the_valid_ones():
    message = re.escape(f"expected `method` to be one of {', '.join(map(marked, NAMES))}, but got 'locco'")
    with pytest.raises(SpecError, match=message):
        method_class("locco")
    with pytest.raises(SpecError, match=message):
        build_method(network_of(), MethodSpec(name="locco"), 3, 10, 0)


def test_build_passes_everything_on():
    network, spec = network_of(), MethodSpec(name="mean_teacher")
    method = build_method(network, spec, 3, 10, 4)
    assert type(method) is METHODS["mean_teacher"]
    assert (method.network, method.spec, method.classes, method.total_steps) == (network, spec, 3, 10)
    assert method.rng(2).random() == build_method(network, spec, 3, 10, 4).rng(2).random()
    assert method.rng(2).random() != method.rng(3).random()
    assert method.thresholds() is None
    assert method.state_dict() == {}
    assert method.parameter_groups(0.1) == []


def test_a_second_network_is_given_exactly_where_one_is_declared():
    with pytest.raises(ValueError, match="expected a second network exactly for a method that declares one, but 'cps'"):
        build_method(network_of(), MethodSpec(name="cps"), 3, 10, 0)
    with pytest.raises(ValueError, match=r"but 'fixmatch' got Tiny; use `methods\.second_network`"):
        build_method(network_of(), MethodSpec(name="fixmatch"), 3, 10, 0, network_of().student)


def test_a_twin_has_the_same_form_and_other_weights_and_disturbs_no_random_numbers():
    assert second_network(spec_of(method="loco")) is None
    spec = spec_of(FRAME, method="cps")
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, again = second_network(spec), second_network(spec)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.classifier.weight, again.classifier.weight)
    other = second_network(replace(spec, training=replace(spec.training, seed=9)))
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", [FRAME, VOLUME], ids=lambda d: d.kind)
def test_what_a_method_needs_is_said_in_a_sentence(name, data):
    method = METHODS[name]
    if data.kind in method.kinds:
        return
    with pytest.raises(
        SpecError, match=rf"^expected a .* model for the method {name}, which .*, but this is a {data.kind}"
    ):
        method.check(spec_of(data, method=name))


@pytest.mark.parametrize("name", NAMES)
def test_only_a_method_that_is_known_to_do_it_trains_in_several_processes(name):
    METHODS[name].check_processes(1)
    if METHODS[name].several_processes:
        METHODS[name].check_processes(2)
        return
    with pytest.raises(
        SpecError, match=f"expected one process for the method {name}, but got 2; train it on one device"
    ):
        METHODS[name].check_processes(2)


@pytest.mark.parametrize(
    ("part", "option", "value", "wanted"),
    [
        ("ua_mt", "passes", 0, "at least 1"),
        ("bcp", "hole", 1.5, "from 0 to 1"),
        ("unimatch", "feature_dropout", 1.0, "from 0 to 0.999"),
        ("crii", "cells", 0, "at least 1"),
        ("crii", "bank", -1, "at least 0"),
        ("ideal", "dropout", 1.0, "from 0 to 0.999"),
        ("ideal", "temperature", 0.0, "at least 0.001"),
        ("ideal", "locations", 0, "at least 1"),
        ("mccs", "dropout", 1.0, "from 0 to 0.999"),
        ("mccs", "temperature", float("nan"), "at least 0.001"),
        ("cad", "cap", (0.1, 2.0), "from 0 to 1"),
        ("lpc", "rounds", 0, "at least 1"),
        ("lpc", "anchors", 0, "at least 1"),
        ("lpc", "temperature", 0.0, "at least 0.001"),
        ("spcl", "partitions", 0, "at least 1"),
        ("spcl", "temperature", 0.0, "at least 0.001"),
        ("mn", "pretraining", 1.5, "from 0 to 1"),
        ("aua", "samples", 1, "at least 2"),
        ("aua", "rank", 0, "at least 1"),
        ("aua", "first_stage", 2.0, "from 0.05 to 1"),
    ],
)
def test_a_number_that_cannot_work_is_refused_before_training(part, option, value, wanted):
    spec = spec_of({"spcl": SLICE, "mn": VOLUME}.get(part, FRAME), method=part)
    METHODS[part].check(spec)
    method = replace(spec.method, **{part: replace(getattr(spec.method, part), **{option: value})})
    with pytest.raises(SpecError, match=rf"^expected the option {option} to be {wanted}, but got .*; change it"):
        METHODS[part].check(replace(spec, method=method))


def test_every_default_is_in_its_range():
    assert out_of_range(MethodSpec()) is None
