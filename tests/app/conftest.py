"""The app keeps names out of its process's logs, here the process of all tests; and its tensors are tiny."""

from __future__ import annotations

import logging

import pytest
import torch

from lib.server.quietlog import Nameless


@pytest.fixture(autouse=True)
def logs_as_before():
    yield
    for handler in logging.getLogger().handlers:
        for own in [f for f in handler.filters if isinstance(f, Nameless)]:
            handler.removeFilter(own)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
