"""What no log may hold: names of patients, which ids of images and names of files can be."""

from __future__ import annotations

import logging

from lib.core.images import CaseError
from lib.decisions import nameless

_TALKATIVE = ("monailabel.", "__main__")
"""MONAI Label, in the server and as the main module of a training: at INFO it writes whole requests, results and paths."""


class Nameless(logging.Filter):
    """Drops MONAI Label's own lines below a warning, and names the file of a `CaseError` by its hash.

    Levels of loggers are not enough: MONAI Label sets that of its inference anew with each request.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.levelno < logging.WARNING and record.name.startswith(_TALKATIVE):
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(nameless(arg) if isinstance(arg, CaseError) else arg for arg in record.args)
        return True


def keep_names_out() -> None:
    """Put the filter on all handlers of this process; before anything is logged, in the server and in its trainings."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, Nameless) for known in handler.filters):
            handler.addFilter(Nameless())
