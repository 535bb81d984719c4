import logging

import pytest

from lib.configs.conf import parse_conf, parse_labels
from lib.core.cases import PATIENT_PATTERN
from lib.core.spec import MethodSpec, SpecError


def test_defaults():
    conf = parse_conf({})
    assert conf.kind is None
    assert conf.labels == {}
    assert conf.method == MethodSpec(name="loco")
    assert (conf.network, conf.epochs, conf.iterations) == (None, None, None)
    assert (conf.auto_retrain, conf.retrain_after, conf.retrain_idle, conf.seed) == (True, 5, 20.0, 0)
    assert conf.patient == PATIENT_PATTERN
    assert conf.cache_bytes == 20 * 10**9


def test_everything_set_as_the_command_line_sends_it():
    conf = parse_conf(
        {
            "models": "Slice", "labels": "a,b", "method": "fixmatch", "network": "unet3d", "ice": "false", "bce": "no",
            "cdf": "0", "auto_retrain": "false", "retrain_after": "7", "retrain_idle": "0.5", "epochs": "3",
            "iterations": "11", "patient": r"^(\d+)_", "seed": "4", "cache_gb": "0.5",
        }
    )  # fmt: skip
    assert (conf.kind, conf.labels, conf.network) == ("slice", {"a": 1, "b": 2}, "unet3d")
    assert (conf.method.name, conf.method.contrast.ice, conf.method.contrast.bce) == ("fixmatch", False, False)
    assert conf.method.confidence.adaptive is False
    assert conf.cache_bytes == 500_000_000
    assert (conf.auto_retrain, conf.retrain_after, conf.retrain_idle) == (False, 7, 0.5)
    assert (conf.epochs, conf.iterations, conf.patient, conf.seed) == (3, 11, r"^(\d+)_", 4)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", {}),
        ("polyp", {"polyp": 1}),
        ("malignant,benign", {"malignant": 1, "benign": 2}),
        (" malignant , benign ,", {"malignant": 1, "benign": 2}),
        ("background,polyp", {"polyp": 1}),
        ('{"polyp": 1}', {"polyp": 1}),
        ('{"b": 3, "a": 1}', {"a": 1, "b": 3}),
        ('{"background": 0, "polyp": 1}', {"polyp": 1}),
    ],
)
def test_labels(text, labels):
    got = parse_labels(text)
    assert got == labels
    assert list(got.values()) == sorted(got.values())


@pytest.mark.parametrize(
    "text",
    [
        "a,a",
        ",",
        "background",
        "{}",
        '{"a": 0}',
        '{"a": 255}',
        '{"a": 1, "b": 1}',
        '{"a": "x"}',
        '{"a": null}',
        "{a: 1}",
    ],
)
def test_labels_that_cannot_work(text):
    with pytest.raises(SpecError, match="expected --conf labels to be different names like polyp or malignant,benign"):
        parse_conf({"labels": text})


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"models": "3d"}, r"expected --conf models to be auto, frame, slice, volume, but got '3d'; choose one"),
        (
            {"method": "loko"},
            "expected `method` to be one of loco, supervised, mean_teacher, fixmatch, .* but got 'loko'",
        ),
        (
            {"network": "vgg"},
            r"expected --conf network to be one of deeplabv3plus_resnet50, .*but got 'vgg'; choose one",
        ),
        ({"ice": "maybe"}, "expected --conf ice to be true or false, but got 'maybe'"),
        ({"auto_retrain": "2"}, "expected --conf auto_retrain to be true or false, but got '2'"),
        ({"retrain_after": "0"}, r"expected --conf retrain_after to be a number from 1 to \d+, but got '0'; change it"),
        ({"retrain_after": "many"}, "expected --conf retrain_after to be a number .* but got 'many'"),
        ({"retrain_idle": "-1"}, "expected --conf retrain_idle to be a number from 0 to"),
        ({"retrain_idle": "nan"}, "expected --conf retrain_idle to be a number from 0 to .* but got 'nan'"),
        ({"epochs": "0"}, "expected --conf epochs to be a number from 1 to"),
        ({"iterations": ""}, "expected --conf iterations to be a number from 1 to"),
        ({"seed": "-3"}, "expected --conf seed to be a number from 0 to"),
        ({"patient": r"\d+"}, "expected --conf patient to be a regular expression with one group, but got"),
        ({"patient": "(["}, "expected --conf patient to be a regular expression with one group, but got"),
    ],
)
def test_settings_that_cannot_work(conf, message):
    with pytest.raises(SpecError, match=message):
        parse_conf(conf)


def test_an_unknown_key_is_ignored_with_a_hint(caplog):
    with caplog.at_level(logging.WARNING):
        parse_conf({"retrain_afer": "3"})
        parse_conf({"zzz": "3"})
    assert "Ignored --conf retrain_afer: did you mean retrain_after?" in caplog.text
    assert "Ignored --conf zzz: known are models, labels, method" in caplog.text


def test_keys_of_the_server_itself_are_no_mistake(caplog):
    with caplog.at_level(logging.WARNING):
        parse_conf({"server_mode": "true", "auth_token": "x", "labels": "polyp"})
    assert "Ignored" not in caplog.text


def test_the_strategy_behind_random_is_one_of_those_there_are():
    assert (parse_conf({}).strategy, parse_conf({}).control_share) == ("low_contrast", 0.1)
    assert parse_conf({"strategy": "coverage", "control_share": "0"}).strategy == "coverage"
    with pytest.raises(SpecError, match="expected --conf strategy to be one of low_contrast, random_control"):
        parse_conf({"strategy": "best"})
    with pytest.raises(SpecError, match="expected --conf control_share to be a number from 0 to 1"):
        parse_conf({"control_share": "2"})


def test_origins_are_named_one_by_one():
    given = {"cors_origins": "https://viewer.example, http://localhost:3000", "max_upload_mb": "10"}
    conf = parse_conf(given)
    assert (conf.origins, conf.max_upload_mb) == (("https://viewer.example", "http://localhost:3000"), 10)
    assert parse_conf({}).origins == ()
    for wrong in ("*", "https://viewer.example/", "viewer.example", "null"):
        with pytest.raises(SpecError, match="expected --conf cors_origins to be like"):
            parse_conf({"cors_origins": wrong})


def test_settings_of_a_pacs():
    conf = parse_conf({"modalities": "es, OT", "cache_gb": "0.5", "pacs_poll": "3"})
    assert (conf.modalities, conf.cache_bytes, conf.pacs_poll) == (frozenset({"ES", "OT"}), 500_000_000, 3.0)
    assert parse_conf({}).modalities == frozenset()
