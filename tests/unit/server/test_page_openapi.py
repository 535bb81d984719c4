"""The JSON behind the page is described, field by field, in the server's OpenAPI document."""

import pytest
from unit.desks import client_of, open_desk

PANELS = {
    "summary": "Summary", "learning": "Learning", "queue": "QueuePage", "submissions": "SubmissionsPage", "worst": "WorstCases",
    "models": "Models", "changes": "Changes",
}  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return client_of(open_desk(tmp_path_factory.mktemp("openapi"), 1)).app.openapi()


def successes(operation):
    """JSON schemas of the answers that are no refusals."""
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/json")
        if status.startswith("2") and content is not None:
            yield content["schema"]


def test_every_answer_is_a_named_type(document):
    operations = [(f"{m} {p}", o) for p, item in document["paths"].items() for m, o in item.items()]
    assert len(operations) >= 14
    for name, operation in operations:
        assert operation["summary"], name
        for schema in successes(operation):
            assert schema.get("$ref", "").startswith("#/components/schemas/"), name
    for panel, answer in PANELS.items():
        (schema,) = successes(document["paths"][f"/loco/page/{panel}"]["get"])
        assert schema["$ref"] == f"#/components/schemas/{answer}"


def test_every_field_has_a_type_and_those_that_need_it_a_description(document):
    schemas = document["components"]["schemas"]
    assert len(schemas) > len(PANELS)
    for name, schema in schemas.items():
        if name == "ValidationError":  # FastAPI's own
            continue
        for field, described in schema.get("properties", {}).items():
            assert {"type", "$ref", "anyOf", "enum", "const"} & described.keys(), f"{name}.{field}"
    assert schemas["Summary"]["properties"]["left"]["description"].startswith("Unlabelled studies that can still be")
    assert schemas["Bar"]["properties"]["share"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert schemas["TrainingRun"]["properties"]["status"]["enum"] == [
        "running",
        "done",
        "failed",
        "stopped",
        "interrupted",
    ]
