"""What results say of the code that made them."""

import json
import subprocess

import pytest
from benchmarks import report


@pytest.fixture
def repository(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    for name in ("code.py", "benchmarks/results/a.json", "docs/methods.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path


def test_a_result_of_changed_code_says_so(repository):
    clean = report.commit()
    assert len(clean) == 40
    (repository / "code.py").write_text("2\n")
    assert report.commit() == f"{clean}-dirty"


def test_what_benchmarks_write_is_no_change_of_the_code(repository):
    clean = report.commit()
    (repository / "benchmarks/results/a.json").write_text("2\n")
    (repository / "docs/methods.md").write_text("2\n")
    assert report.commit() == clean


def test_without_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert report.commit() == "none"


def test_a_result_file_has_a_line_per_case_and_the_same_values():
    record = {
        "cases": {"a": {"dice": 0.5, "hd95": 3.0}, "b": {"dice": 1.0}},
        "text": "{ [x",
        "none": [],
        "list": [[1, 2], [3]],
    }
    text = report.compact(json.dumps(record, indent=1))
    assert json.loads(text) == record
    assert '"a": { "dice": 0.5, "hd95": 3.0 },' in text
