"""Settings that cannot work: the server says so in one line and does not start."""

from __future__ import annotations

import pytest
from server import Server
from studies import write_frames


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ({}, "set them with --conf labels"),
        (
            {"labels": "polyp", "method": "magic"},
            "expected `method` to be one of loco, supervised, mean_teacher, fixmatch",
        ),
    ],
)
def test_one_line_says_what_to_do(tmp_path, conf, sentence):
    write_frames(tmp_path / "studies", tmp_path / "truth", 1)
    printed = Server(tmp_path / "studies", tmp_path / "server.log", **conf).run_to_exit()
    lines = [line for line in printed.splitlines() if sentence in line]
    assert len(lines) == 1
    assert "LoCo: " in lines[0]
    assert "Traceback" not in printed


def test_a_pacs_that_does_not_answer_is_named(tmp_path):
    printed = Server("http://127.0.0.1:9/dicom-web", tmp_path / "server.log", labels="polyp").run_to_exit()
    lines = [line for line in printed.splitlines() if "expected a DICOMweb server at http://127.0.0.1:9" in line]
    assert len(lines) == 1
    assert "Traceback" not in printed
