import json
import logging

from lib.decisions import decided


def test_one_line_without_names(caplog):
    with caplog.at_level(logging.INFO):
        decided("picked", image="Mustermann_Erika", client="Dr. Who", version=3, why="low contrast", dice=float("nan"))
    (record,) = caplog.records
    word, _, facts = record.getMessage().partition(" ")
    assert word == "decision"
    assert json.loads(facts) == {
        "what": "picked", "image": "88d8b6e5b727", "client": json.loads(facts)["client"], "version": 3,
        "why": "low contrast", "dice": None,
    }  # fmt: skip
    assert "Who" not in record.getMessage()
    assert "\n" not in record.getMessage()
