"""`--conf options KEY=VALUE[,KEY=VALUE...]`: the numbers and switches of the chosen method, checked against its specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lib.core.spec import MethodSpec, SpecError


def with_options(spec: MethodSpec, text: str) -> MethodSpec:
    """`spec` with the options that `text` names in the part of its method.

    Raises:
        SpecError: an unknown key, a value of the wrong kind, or a method without options; the message lists what works.

    >>> with_options(MethodSpec("bcp"), "ema=plain, hole=0.5").bcp.hole
    0.5
    """
    if not text.strip():
        return spec
    part = getattr(spec, spec.name, None)
    kinds = {k: t for k, t in get_type_hints(type(part)).items() if _simple(t)} if is_dataclass(part) else {}
    if not kinds:
        raise SpecError(f"expected no --conf options for the method {spec.name}, but got {text!r}; leave them out")
    values = dict(_value(pair, kinds, spec.name) for pair in text.split(","))
    return replace(spec, **{spec.name: replace(part, **values)})


def _value(pair: str, kinds: Mapping[str, Any], method: str) -> tuple[str, Any]:
    key, _, text = (p.strip() for p in pair.partition("="))
    if key not in kinds:
        known = ", ".join(kinds)
        raise SpecError(
            f"expected --conf options of the method {method} to be among {known}, but got {pair!r}; use these"
        )
    kind = kinds[key]
    choices = get_args(kind) if get_origin(kind) is Literal else ("true", "false") if kind is bool else ()
    if choices and text in choices:
        return key, text == "true" if kind is bool else text
    try:
        if not choices:
            return key, kind(text)
    except ValueError:
        pass
    wanted = f"one of {', '.join(choices)}" if choices else "a whole number" if kind is int else "a number"
    raise SpecError(f"expected --conf options {key} to be {wanted}, but got {text!r}; correct it")


def _simple(kind: Any) -> bool:
    return kind in (int, float, bool) or get_origin(kind) is Literal
