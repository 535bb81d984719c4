import pytest
from fastapi import HTTPException

from lib.server.params import INFER, TRAIN, allowed, json_object, with_client


def test_what_viewers_send_passes():
    ohif = {
        "result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False,
        "device": ["cpu"], "label_info": [{"name": "polyp", "idx": 1}],
    }  # fmt: skip
    assert allowed(ohif, INFER) == {**ohif, "device": "cpu"}


@pytest.mark.parametrize("key", ["image", "model", "label", "session", "session_id", "method", "strategy", "images"])
def test_the_identity_of_a_request_is_not_set_anew(key):
    with pytest.raises(HTTPException, match=f"expected {key} in the address of the request"):
        allowed({key: "x"}, INFER)


def test_what_nothing_reads_is_left_out():
    given = {"name": "../../x", "tracking_uri": "http://10.0.0.1", "dataset": "x", "local_rank": 3, "max_epochs": 2}
    assert allowed(given, TRAIN, {"max_epochs", "device"}) == {"max_epochs": 2}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("result_extension", "/../x"), ("result_extension", ".jpg"), ("result_extension", 3), ("result_dtype", "object"),
        ("device", "meta"), ("device", {"a": 1}), ("result_compress", "yes"), ("client_id", "a\nb"), ("client_id", "x" * 999),
        ("label_info", "x"), ("label_info", [1]), ("label_info", [{}] * 300), ("result_dtype", []),
    ],
)  # fmt: skip
def test_unusable_values_are_refused(key, value):
    with pytest.raises(HTTPException, match=f"`{key}`") as refusal:
        allowed({key: value}, INFER)
    assert refusal.value.status_code == 400


@pytest.mark.parametrize("client", [3, "a\nb", "x" * 201, ["ann"], {}])
def test_an_annotator_is_a_name(client):
    assert with_client({"client_id": "Änne"}) == {"client_id": "Änne"}
    assert with_client({"client_id": None}) == {"client_id": None}
    with pytest.raises(HTTPException, match="expected `client_id` to be a name"):
        with_client({"client_id": client})


@pytest.mark.parametrize("gpus", ["0; rm -rf", "-1", "all,1", ""])
def test_gpus_are_numbers(gpus):
    assert allowed({"gpus": "0,1"}, TRAIN) == {"gpus": "0,1"}
    with pytest.raises(HTTPException, match="usable `gpus`"):
        allowed({"gpus": gpus}, TRAIN)


def test_options_of_the_task_are_plain_values():
    """`method` names a scoring pass, and is an option of trainings."""
    given = {"max_epochs": {"a": 1}, "method": ["loco", "supervised"], "seed": 3}
    assert allowed(given, TRAIN, {"max_epochs", "method", "seed"}) == {"method": ["loco", "supervised"], "seed": 3}


@pytest.mark.parametrize("text", ["{", "[" * 10**5, "[1]", "3", "null", '"x"'])
def test_form_fields_hold_objects(text):
    assert json_object("") == json_object(None) == json_object("{}") == {}
    with pytest.raises(HTTPException, match="expected `info` to be a JSON object"):
        json_object(text, "info")
