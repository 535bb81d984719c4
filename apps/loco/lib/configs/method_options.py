"""`--conf options KEY=VALUE[,KEY=VALUE...]`: the numbers and switches of the chosen method, checked against its specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from lib.core.spec import MethodSpec, SpecError

_LABELLED = ("labelled_loss",)
_BOTH = (*_LABELLED, "batch_statistics")
"""Of a method that sees labelled and unlabelled images in one pass."""
_RAMP = ("ramp_share",)
_CONSISTENCY = ("consistency_weight", "ramp_share")
SHARED: Mapping[str, tuple[str, ...]] = {
    "loco": ("contrast", "confidence", "contrast_weight", "unsup_weight", "cutmix_probability", *_BOTH),
    "supervised": _LABELLED,
    "mean_teacher": (*_CONSISTENCY, *_BOTH),
    "fixmatch": ("cutmix_probability", "threshold", *_BOTH),
    "ua_mt": (*_CONSISTENCY, *_BOTH),
    "cps": (*_CONSISTENCY, *_BOTH),
    "unimatch": ("cutmix_probability", "threshold", *_BOTH),
    "bcp": _LABELLED,
    "m3hl": ("bcp.ema", "bcp.teacher", *_LABELLED),
    "lpc": _BOTH,
    "spcl": _BOTH,
    "aua": _BOTH,
    "c3s3": (*_CONSISTENCY, *_BOTH),
    "ersr": (*_RAMP, *_BOTH),
    "medl": (*_RAMP, *_BOTH),
    "transmedseg": ("bcp", *_LABELLED),
    "crii": (*_RAMP, *_BOTH),
    "ideal": (*_RAMP, *_BOTH),
    "cad": (*_CONSISTENCY, *_BOTH),
    "mccs": (*_RAMP, *_BOTH),
}
"""What a method reads of `MethodSpec` besides its own part: a shared number, the part of its base, or one field of that."""


class _Place(NamedTuple):
    part: str
    """Field of `MethodSpec` that holds the option; empty: it is one itself."""
    kind: Any


def with_options(spec: MethodSpec, text: str) -> MethodSpec:
    """`spec` with the options that `text` names, in the part of its method, in that of its base or among the shared numbers.

    Raises:
        SpecError: an unknown key, a value of the wrong kind, or a method without options; the message lists what works.

    >>> with_options(MethodSpec("bcp"), "ema=plain, hole=0.5").bcp.hole
    0.5
    >>> with_options(MethodSpec("m3hl"), "teacher=training, ratio=0.3:0.7").m3hl.ratio
    (0.3, 0.7)
    """
    if not text.strip():
        return spec
    places = _places(spec)
    if not places:
        raise SpecError(f"expected no --conf options for the method {spec.name}, but got {text!r}; leave them out")
    for pair in text.split(","):
        key, value = _value(pair, places, spec.name)
        part = places[key].part
        spec = replace(spec, **({part: replace(getattr(spec, part), **{key: value})} if part else {key: value}))
    return spec


def _places(spec: MethodSpec) -> dict[str, _Place]:
    """Every option of the method by its name; where its own part and its base have one of the same name, its own."""
    found: dict[str, _Place] = {}
    shared = get_type_hints(MethodSpec)
    for path in (spec.name, *SHARED.get(spec.name, ())):
        part, _, only = path.partition(".")
        value = getattr(spec, part, None)
        if is_dataclass(value):
            kinds = get_type_hints(type(value))
            new = {key: _Place(part, kind) for key, kind in kinds.items() if only in ("", key) and _simple(kind)}
        else:
            new = {part: _Place("", shared[part])} if value is not None else {}
        found |= {key: place for key, place in new.items() if key not in found}
    return found


def _value(pair: str, places: Mapping[str, _Place], method: str) -> tuple[str, Any]:
    key, _, text = (p.strip() for p in pair.partition("="))
    if key not in places:
        known = ", ".join(places)
        raise SpecError(
            f"expected --conf options of the method {method} to be among {known}, but got {pair!r}; use these"
        )
    kind = places[key].kind
    choices = get_args(kind) if get_origin(kind) is Literal else ("true", "false") if kind is bool else ()
    if choices and text in choices:
        return key, text == "true" if kind is bool else text
    try:
        if _is_pair(kind):
            return key, _pair_of(text)
        if not choices:
            return key, kind(text)
    except ValueError:
        pass
    plain = {int: "a whole number", float: "a number"}
    wanted = f"one of {', '.join(choices)}" if choices else plain.get(kind, "two numbers as 0.3:0.7")
    raise SpecError(f"expected --conf options {key} to be {wanted}, but got {text!r}; correct it")


def _pair_of(text: str) -> tuple[float, float]:
    first, second = text.split(":")
    return float(first), float(second)


def _is_pair(kind: Any) -> bool:
    return kind == tuple[float, float]


def _simple(kind: Any) -> bool:
    return kind in (int, float, bool) or get_origin(kind) is Literal or _is_pair(kind)
