import pytest
from fastapi import HTTPException

from lib.server.dicompaths import Resource, resource_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("studies", Resource("studies", "studies")),
        ("series", Resource("series", "series")),
        ("studies/1.2/series", Resource("studies/1.2/series", "series", "1.2")),
        ("studies/1.2/instances", Resource("studies/1.2/instances", "instances", "1.2")),
        ("studies/1.2/series/3.4/instances", Resource("studies/1.2/series/3.4/instances", "instances", "1.2", "3.4")),
        ("studies/1.2/metadata", Resource("studies/1.2/metadata", None, "1.2", part="metadata")),
        ("/studies/1.2/series/3/", Resource("studies/1.2/series/3", None, "1.2", "3")),
        (
            "studies/1/series/2/instances/3/frames/1,12",
            Resource("studies/1/series/2/instances/3/frames/1,12", None, "1", "2", "3", (1, 12)),
        ),
        (
            "studies/1/series/2/instances/3/bulk/0028/1",
            Resource("studies/1/series/2/instances/3/bulk/0028/1", None, "1", "2", "3", part="bulk/0028/1"),
        ),
    ],
)
def test_dicomweb_paths_are_taken_apart(path, expected):
    assert resource_of(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "", "system", "../system", "studies/../../system", "studies/1/../../../tools", "http://127.0.0.1:8042/system",
        "%2e%2e/system", "studies/1%2f..", "studies/1\n", "studies/1?x", "studies/1#x", "studies//series", "instances/abc",
        "studies/1/instances/2", "studies/1/frames/1", "studies/1/series/2/frames/1", "studies/series/1", "studies/1\\..",
        "studies/" + "1" * 65, "studies/\u0661", "studies/1.2/metadata/..", "studies/1/series/2/instances/3/bulk/../../x",
    ],
)  # fmt: skip
def test_everything_else_is_refused(path):
    with pytest.raises(HTTPException) as refused:
        resource_of(path)
    assert refused.value.status_code == 404


def test_instances_are_sent_to_studies_or_to_one_study():
    assert resource_of("studies").stores
    assert resource_of("studies/1.2").stores
    assert not resource_of("studies/1.2/series").stores
    assert not resource_of("series").stores
