"""The project that the strategies serve."""

import pytest

from lib.store.journal import Journal
from lib.store.project import Project


@pytest.fixture
def project(tmp_path):
    return Project(Journal(tmp_path / "journal.sqlite"), tmp_path / "project")
