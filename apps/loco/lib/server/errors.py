"""Errors that reach the edge of the server, as HTTP answers with a sentence."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

from fastapi import Request
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from starlette.responses import JSONResponse

from lib.core.checkpoint import CheckpointError
from lib.core.images import CaseError
from lib.core.spec import SpecError
from lib.store.schema import JournalError

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def handlers() -> dict[type[Exception], Callable[[Request, Exception], Any]]:
    """Answers by type of error, for `FastAPI.exception_handlers`."""
    types = (
        ImageNotFoundException, LabelNotFoundException, MONAILabelException, CaseError, CheckpointError, SpecError,
        JournalError, OSError,
    )  # fmt: skip
    return dict.fromkeys(types, _answer)


def status_of(error: Exception) -> tuple[int, str]:
    """HTTP status and sentence of an error."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return 404, f"expected the id of a study or label, but: {error.msg}; refresh the list of studies"
    if isinstance(error, MONAILabelException):
        return 400, f"The request was not carried out. {error.msg}"
    if isinstance(error, JournalError):
        return 503, str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    return 400, str(error)


def _of_system(error: OSError) -> tuple[int, str]:
    if error.errno in _FULL:
        return 507, "expected room on the disk, but it is full; nothing was changed: free some space and try again"
    if error.errno in _READ_ONLY:
        return (
            503,
            "expected to write into the folder of the studies, but it is read-only; nothing was changed: allow it",
        )
    logger.error("A request ended with an error of the system", exc_info=error)
    return 503, "expected the disk and the network to answer, but one of them did not; the log says more, try again"


def _answer(request: Request, error: Exception) -> JSONResponse:
    status, sentence = status_of(error)
    if status >= 500:
        logger.error("%s %r: %s", request.method, request.url.path, sentence)
    return JSONResponse({"detail": sentence}, status)
