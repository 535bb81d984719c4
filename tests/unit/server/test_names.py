import pytest
from fastapi import HTTPException
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.server.names import checked_extension, checked_id, checked_tag, inside


@pytest.mark.parametrize("name", ["frame_000", "case.1", "Bild 3 (links)", "1.2.840.113619.2.55", "ü", "a" * 200])
def test_names_of_files_are_ids(name):
    assert checked_id(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/abs/x",
        "a/b",
        "a\\b",
        "C:x",
        ".hidden",
        "-rf",
        " x",
        "x ",
        "x.",
        "a\x00b",
        "a\nb",
        "a" * 201,
        None,
    ],
)
def test_what_could_be_a_path_is_refused(name):
    with pytest.raises(HTTPException, match="expected the id to be a file name without folders") as refusal:
        checked_id(name)
    assert refusal.value.status_code == 400


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_an_accepted_id_stays_in_its_folder(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp()
    try:
        name = checked_id(text)
    except HTTPException:
        return
    if "\ud800" <= max(name) <= "\udfff":
        return
    assert inside(root, f"{name}.png").parent == root.resolve()


@pytest.mark.parametrize("tag", ["final", "original", "version_1", "version_9999"])
def test_tags_of_the_viewers(tag):
    assert checked_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", "../x", "final/..", "Final", "version_", "version_12345", "versions", "final\n", None]
)
def test_other_tags_are_refused(tag):
    with pytest.raises(HTTPException, match="expected the tag to be final, original or version_N"):
        checked_tag(tag)


def test_the_longest_extension_counts():
    assert checked_extension("C:\\scans\\A.B.NII.GZ") == ".nii.gz"
    assert checked_extension("case.1.JPG") == ".jpg"
    with pytest.raises(HTTPException, match=r"expected a file as one of \.png"):
        checked_extension("sitecustomize.py")
    with pytest.raises(HTTPException, match="but got ''"):
        checked_extension(None)


def test_links_that_lead_out_are_followed(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "studies/link").symlink_to(tmp_path / "secret")
    assert inside(tmp_path / "studies", "a.png") == (tmp_path / "studies/a.png").resolve()
    for path in ("link/x", "../secret/x", str(tmp_path / "secret/x")):
        with pytest.raises(HTTPException, match="leads out of them"):
            inside(tmp_path / "studies", path)
