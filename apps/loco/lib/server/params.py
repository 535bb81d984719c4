"""What a request may set. Parameters outside these lists never reach a task, whatever a client sends."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list, device_map

from lib.core.images import VOLUME_SUFFIXES

logger = logging.getLogger(__name__)

IDENTITY = frozenset({"model", "method", "strategy", "image", "images", "label", "session", "session_id"})
"""Said once, in the address of a request. In its parameters they would override what was checked."""

RESULT_SUFFIXES = (*VOLUME_SUFFIXES, ".seg.nrrd", ".png", ".tif", ".tiff", ".bmp")
"""Types of a mask without loss."""

_DTYPES = ("uint8", "uint16", "int16", "int32", "uint32", "float32")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{0,200}")
_GPUS = re.compile(r"all|[0-9]{1,2}(,[0-9]{1,2})*")

Check = Callable[[Any], bool]


def _one_of(*values: str) -> Check:
    return lambda value: isinstance(value, str) and value in values


def _device(value: Any) -> bool:
    known = {"cpu", "cuda", *device_list(), *device_map().values()}
    return isinstance(value, str) and value in known


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str) and _TEXT.fullmatch(value) is not None


def _segments(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 256 and all(isinstance(entry, dict) for entry in value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**6


INFER: dict[str, Check] = {
    "device": _device,
    "result_extension": _one_of(*RESULT_SUFFIXES),
    "result_dtype": _one_of(*_DTYPES),
    "result_compress": _flag,
    "restore_label_idx": _flag,
    "label_info": _segments,
    "client_id": _text,
}
TRAIN: dict[str, Check] = {
    "device": _device,
    "gpus": lambda value: isinstance(value, str) and _GPUS.fullmatch(value) is not None,
    "client_id": _text,
}
"""Besides the options that the training itself shows; those are checked when it starts."""

BATCH_INFER: dict[str, Check] = {
    "device": _device,
    "multi_gpu": _flag,
    "save_label": _flag,
    "label_tag": _one_of("original"),
    "max_workers": _whole,
    "max_batch_size": _whole,
    "client_id": _text,
}
SCORING: dict[str, Check] = {"device": _device, "client_id": _text}


def json_object(text: str | None, what: str = "params") -> dict[str, Any]:
    """A form field that must hold a JSON object; absent or empty is an empty one. Raises `HTTPException` 400."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HTTPException(400, f"expected `{what}` to be a JSON object, but got {str(text)[:100]!r}; send {{}}")
    return value


def with_client(params: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, if the annotator in them is a name. Raises `HTTPException` 400."""
    given = params.get("client_id")
    if given is not None and not _text(given):
        raise HTTPException(
            400, "expected `client_id` to be a name of up to 200 characters, but got something else; correct it"
        )
    return params


def allowed(params: Mapping[str, Any], checks: Mapping[str, Check], options: Collection[str] = ()) -> dict[str, Any]:
    """The parameters that a task may see.

    Args:
        params: what came.
        checks: allowed names, and whether a value can be used; a list stands for its first element, as viewers send it.
        options: further allowed names, whose values the task checks itself: plain values or lists of them.

    Returns:
        The allowed ones; others that name nothing known are left out, with a log line.

    Raises:
        HTTPException: 400; an identity of the request is set anew, or an allowed parameter has an unusable value.
    """
    overriding = sorted((IDENTITY & params.keys()) - set(options))
    if overriding:
        raise HTTPException(
            400,
            f"expected {', '.join(overriding)} in the address of the request, but got it in `params` too; leave it out",
        )
    unknown = sorted(str(key)[:40] for key in params.keys() - checks.keys() - set(options))
    if unknown:
        logger.info("Left out parameters that nothing here reads: %r", unknown)
    kept = {key: _first(value) for key, value in params.items() if key in checks and value is not None}
    for key, value in kept.items():
        if key != "label_info" and not checks[key](value):
            raise HTTPException(
                400, f"expected a usable `{key}`, but got {str(value)[:100]!r}; change it or leave it out"
            )
    if "label_info" in kept:
        kept["label_info"] = params["label_info"]
        if not _segments(kept["label_info"]):
            raise HTTPException(
                400, "expected `label_info` to be a list of {name, idx}, but got something else; correct it"
            )
    plain = {key: value for key, value in params.items() if key in options and key not in checks and _is_plain(value)}
    return {**plain, **kept}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(v, str | int | float | bool) for v in value)
    return value is None or isinstance(value, str | int | float | bool)
