"""MONAI Label's endpoints off the event loop: each is an `async def` that blocks, so one slow request stops all others."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import BackgroundTasks
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response

from lib.store.records import plain

Lane = Literal["quick", "infer", "write"]
Check = Callable[[dict[str, Any]], dict[str, Any]]

_WRITES = 4
_QUICK = 32
_LIMITERS: dict[str, CapacityLimiter] = {}


def in_thread(
    endpoint: Callable[..., Any], lane: Lane, check: Check, instead: Callable[..., Any] | None = None
) -> Callable:
    """`endpoint` as one that runs in a worker thread, after `check` has looked at its arguments.

    Requests of one lane wait for each other in the event loop and not in a thread, so that a queue of inferences never uses
    up the threads that answer everything else. The reply is encoded in the thread as well, with the same bytes.

    Args:
        endpoint: a coroutine function that never waits, as all of MONAI Label's but the DICOM proxy.
        lane: `infer` lets one request per GPU pass at a time (one on the CPU), `write` a few, `quick` many.
        check: gets the arguments and returns those to call with; raises `HTTPException` to refuse.
        instead: called in the place of `endpoint`, whose signature it shares.
    """

    @functools.wraps(endpoint)
    async def call(**arguments: Any) -> Response:
        return await to_thread.run_sync(_answer, instead or endpoint, check, arguments, limiter=_limiter(lane))

    return call


def _answer(endpoint: Callable[..., Any], check: Check, arguments: dict[str, Any]) -> Response:
    try:
        result = endpoint(**check(arguments))
        if inspect.iscoroutine(result):
            result = _finished(result)
        return result if isinstance(result, Response) else JSONResponse(jsonable_encoder(plain(result)))
    except BaseException:
        _clean_up(arguments.get("background_tasks"))
        raise


def _clean_up(later: BackgroundTasks | None) -> None:
    """Delete the files that a refused request had uploaded: what is to be done after a reply is not done after an error."""
    for task in later.tasks if later is not None else []:
        task.func(*task.args, **task.kwargs)


def _finished(coroutine: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("expected an endpoint that never waits for the event loop, but it does; leave it there")


def _limiter(lane: Lane) -> CapacityLimiter:
    """Made at the first use, in the event loop."""
    if lane not in _LIMITERS:
        width = {"infer": max(1, torch.cuda.device_count()), "write": _WRITES, "quick": _QUICK}[lane]
        _LIMITERS[lane] = CapacityLimiter(width)
    return _LIMITERS[lane]
