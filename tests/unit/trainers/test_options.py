import pytest
from unit.helpers import FRAME, VOLUME, spec_of

from lib.core.methods import METHODS
from lib.core.networks import NETWORKS_2D, NETWORKS_3D
from lib.core.spec import SpecError
from lib.trainers.options import option_defaults, spec_of_request


def test_the_defaults_are_those_of_the_specification():
    spec = spec_of(FRAME, method="fixmatch", epochs=4, iterations=9, batch=3, unlabelled=5)
    options = option_defaults(spec)
    assert (options["max_epochs"], options["iterations_per_epoch"]) == (4, 9)
    assert (options["train_batch_size"], options["unlabeled_batch_size"], options["seed"]) == (3, 5, 3)
    assert options["method"][0] == "fixmatch"
    assert sorted(options["method"]) == sorted(METHODS)
    assert options["network"][0] == spec.network.name
    assert sorted(options["network"]) == sorted(NETWORKS_2D)
    assert options["pretrained"] is True


def test_a_volume_model_offers_volume_networks():
    assert sorted(option_defaults(spec_of(VOLUME))["network"]) == sorted(NETWORKS_3D)


def test_an_untouched_request_changes_nothing():
    spec = spec_of()
    assert spec_of_request(spec, {}) == spec
    assert spec_of_request(spec, option_defaults(spec)) == spec
    assert spec_of_request(spec, {"max_epochs": None, "method": None}) == spec


def test_every_option_does_what_it_says():
    request = {
        "max_epochs": 7, "iterations_per_epoch": "13", "train_batch_size": [4], "unlabeled_batch_size": 0, "seed": 9,
        "method": "supervised", "network": ["deeplabv3plus_resnet50"],
    }  # fmt: skip
    got = spec_of_request(spec_of(), request)
    training = got.training
    assert (training.epochs, training.iterations_per_epoch, training.seed) == (7, 13, 9)
    assert (training.batch_labelled, training.batch_unlabelled) == (4, 0)
    assert got.method.name == "supervised"
    assert got.network.name == "deeplabv3plus_resnet50"
    assert got.network.classes == spec_of().network.classes


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"max_epochs": 0}, "expected `max_epochs` to be a whole number from 1 to 10000, but got 0; change it"),
        ({"max_epochs": "ten"}, "expected `max_epochs` to be a whole number from 1 to 10000, but got 'ten'"),
        ({"train_batch_size": -1}, "expected `train_batch_size` to be a whole number from 1 to 1024, but got -1"),
        ({"train_batch_size": []}, r"expected `train_batch_size` to be a whole number .* but got \[\]"),
        (
            {"method": "locko"},
            "expected `method` to be one of loco, supervised, mean_teacher, fixmatch, .* but got 'locko'",
        ),
        (
            {"network": "unet3d"},
            "expected `network` to be one of deeplabv3plus_.*, but got 'unet3d'; choose one of them",
        ),
    ],
)
def test_what_cannot_work_is_refused(request_, message):
    with pytest.raises(SpecError, match=message):
        spec_of_request(spec_of(), request_)
