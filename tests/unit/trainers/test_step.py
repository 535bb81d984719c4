"""What a training does not outlive."""

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from lib.trainers.step import _starters, started_by_server


@pytest.mark.parametrize(
    ("program", "by_server"), [("monailabel.interfaces.utils.app", True), ("pytest.__main__", False), (None, False)]
)
def test_a_server_starts_its_trainings_with_a_program_of_its_own(monkeypatch, program, by_server):
    spec = program and SimpleNamespace(name=program)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    assert started_by_server() is by_server


def test_a_training_ends_with_its_server_but_not_with_the_terminal(monkeypatch):
    parent, grandparent = os.getppid(), psutil.Process(os.getppid()).ppid()
    assert _starters({"devices": [], "by_server": True}) == (parent,)
    assert _starters({"devices": [], "by_server": False}) == ()
    assert _starters({"devices": ["cpu", "cpu"], "by_server": True}) == (parent, grandparent)
    assert _starters({"devices": ["cpu", "cpu"], "by_server": False}) == (parent,)
    monkeypatch.setattr(os, "getppid", lambda: 2**22 + 1)
    assert _starters({"devices": ["cpu", "cpu"], "by_server": True}) == (0,)
