"""Supervised baseline: labelled images only, `0.5 CE + 0.5 DICE` (methods specification 8.1)."""

from __future__ import annotations

from lib.core.batch import Views
from lib.core.methods.base import Method


class Supervised(Method):
    """Ignores the unlabelled studies."""

    name = "supervised"
    title = "Supervised"
    several_processes = True
    views = Views(unlabelled=False)
