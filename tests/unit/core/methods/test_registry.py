from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import network_of
from unit.helpers import FRAME, VOLUME, spec_of

from lib.core.methods import METHODS, Method, build_method, method_class, second_network
from lib.core.spec import MethodSpec, SpecError

NAMES = list(METHODS)


def test_every_method_is_listed_under_its_name():
    assert NAMES[:4] == ["loco", "supervised", "mean_teacher", "fixmatch"]
    assert all(issubclass(m, Method) and m.name == name for name, m in METHODS.items())
    assert len({m.title for m in METHODS.values()}) == len(METHODS)


def test_an_unknown_method_lists_the_valid_ones():
    message = f"expected `method` to be one of {', '.join(NAMES)}, but got 'locco'"
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
