"""Settings that cannot work: the server says so in one line and does not start."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from server import Server
from studies import write_frames

NO_PACS = "http://127.0.0.1:9/dicom-web"
CASES = {
    "no labels": (None, {}, "set them with --conf labels"),
    "unknown method": (
        None,
        {"labels": "polyp", "method": "magic"},
        "expected `method` to be one of loco, supervised, mean_teacher, fixmatch",
    ),
    "no PACS": (NO_PACS, {"labels": "polyp"}, "expected a DICOMweb server at http://127.0.0.1:9"),
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each server printed; they are started side by side."""

    def run(case):
        root = tmp_path_factory.mktemp(case.replace(" ", "_"))
        studies, conf, _ = CASES[case]
        if studies is None:
            write_frames(root / "studies", root / "truth", 1)
        return Server(studies or root / "studies", root / "server.log", **conf).run_to_exit()

    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_one_line_says_what_to_do(printed, case):
    lines = [line for line in printed[case].splitlines() if CASES[case][2] in line]
    assert len(lines) == 1
    assert "LoCo: " in lines[0]
    assert "Traceback" not in printed[case]
