import json
from dataclasses import replace

import pytest
from unit.helpers import FRAME, SLICE, VOLUME, spec_of

from lib.core.spec import ConfidenceSpec, ContrastSpec, SpecError, TaskSpec


@pytest.mark.parametrize("data", [FRAME, SLICE, VOLUME], ids=lambda d: d.kind)
def test_a_specification_survives_json(data):
    spec = spec_of(data, labels={"a": 1, "b": 3})
    method = replace(spec.method, contrast=ContrastSpec(bce=False), confidence=ConfidenceSpec(cap=0.9))
    spec = replace(spec, method=method)
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(("data", "dims", "channels"), [(FRAME, 2, 3), (SLICE, 2, 1), (VOLUME, 3, 1)])
def test_dimensions_and_channels(data, dims, channels):
    assert (data.spatial_dims, data.channels) == (dims, channels)


def test_iterations():
    assert spec_of(epochs=4, iterations=7).training.iterations == 28


def test_a_missing_or_unknown_key_is_refused():
    whole = spec_of().to_dict()
    expected = "expected a task specification as `TaskSpec.to_dict` writes it, but got: "
    with pytest.raises(SpecError, match=expected + "'network'"):
        TaskSpec.from_dict({k: v for k, v in whole.items() if k != "network"})
    with pytest.raises(SpecError, match=expected + ".*unexpected keyword argument 'colour'"):
        TaskSpec.from_dict({**whole, "data": {**whole["data"], "colour": 1}})
    with pytest.raises(SpecError, match=expected):
        TaskSpec.from_dict({**whole, "data": "frame"})


def test_a_file_from_before_an_option_says_what_was_done_then():
    whole = spec_of().to_dict()
    for key in ("labelled_loss", "batch_statistics"):
        del whole["method"][key]
    del whole["method"]["confidence"]["memory"]
    method = TaskSpec.from_dict(whole).method
    assert (method.labelled_loss, method.batch_statistics, method.confidence.memory) == ("own", "joint", 0.0)


def test_a_file_with_a_choice_that_is_gone_has_the_one_that_took_its_place():
    whole = spec_of().to_dict()
    whole["method"]["batch_statistics"] = "apart"
    assert TaskSpec.from_dict(whole).method.batch_statistics == "own_gradient"
