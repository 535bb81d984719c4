import json
import logging

import pytest
from fastapi import HTTPException

from lib.core.images import CaseError
from lib.decisions import decided, nameless


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


@pytest.mark.parametrize(
    ("status", "cause", "said"),
    [
        (503, None, "the PACS is away"),
        (404, None, "refused (404)"),
        (422, CaseError("Mustermann_Erika.png", "expected a picture"), "88d8b6e5b727: expected a picture"),
    ],
)
def test_a_refusal_is_told_without_the_name_that_it_holds(status, cause, said):
    error = HTTPException(status, "the PACS is away" if status == 503 else "Mustermann_Erika cannot be opened")
    error.__cause__ = cause
    assert nameless(error) == said
