"""Each script finds what it imports when it is started as the README says, with nothing on the path for it."""

import ast
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
SCRIPTS = sorted(p for p in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in p.read_text())


def modules_of(path):
    """Names that a file imports, and those that its neighbours in the folder import for it."""
    found, waiting = set(), [path]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            neighbours = {BENCHMARKS / f"{n.removeprefix('benchmarks.')}.py" for n in names - found}
            waiting += [n for n in neighbours if n.exists()]
            found |= names
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_the_app_is_on_the_path_of_a_script_that_needs_it(path):
    needs_app = any(name.split(".")[0] == "lib" for name in modules_of(path))
    assert not needs_app or "apps" in path.read_text()


def test_there_are_scripts_that_need_the_app():
    assert any("lib.progressbar" in modules_of(path) for path in SCRIPTS)
