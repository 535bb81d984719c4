"""Supervised baseline: labelled images only (methods specification 8.1), with the loss on labels that all methods share."""

from __future__ import annotations

from lib.core.batch import Views
from lib.core.methods.base import Method


class Supervised(Method):
    """Ignores the unlabelled studies."""

    name = "supervised"
    title = "Supervised"
    several_processes = True
    views = Views(unlabelled=False)
