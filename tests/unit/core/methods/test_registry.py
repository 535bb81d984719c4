import pytest
from unit.core.methods.base import network_of

from lib.core.methods import METHODS, Method, build_method, method_class
from lib.core.spec import MethodSpec, SpecError


def test_every_method_is_listed_under_its_name():
    assert list(METHODS) == ["loco", "supervised", "mean_teacher", "fixmatch"]
    assert all(issubclass(m, Method) and m.name == name for name, m in METHODS.items())


def test_an_unknown_method_lists_the_valid_ones():
    message = "expected `method` to be one of loco, supervised, mean_teacher, fixmatch, but got 'locco'"
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
