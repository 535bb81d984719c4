"""The app keeps names out of its process's logs; here that process is the one of all tests."""

from __future__ import annotations

import logging

import pytest

from lib.server.quietlog import Nameless


@pytest.fixture(autouse=True)
def logs_as_before():
    yield
    for handler in logging.getLogger().handlers:
        for own in [f for f in handler.filters if isinstance(f, Nameless)]:
            handler.removeFilter(own)
