"""`--conf KEY VALUE` of the command line, checked once: the only place where those strings become settings."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib.configs.method_options import with_options
from lib.core.cases import PATIENT_PATTERN
from lib.core.methods import METHODS, marked, method_class
from lib.core.networks import NETWORKS
from lib.core.policies import POLICIES
from lib.core.select import CONTROL_SHARE
from lib.core.spec import KINDS, ConfidenceSpec, ContrastSpec, Kind, MethodSpec, SpecError

logger = logging.getLogger(__name__)

KEYS = {
    "models": "auto, frame, slice or volume",
    "labels": 'names, as polyp or malignant,benign or {"name": index}',
    "method": f"training method: {', '.join(map(marked, METHODS))}",
    "options": "numbers and switches of the method, as ema=plain,hole=0.5; see docs/methods.md",
    "network": "network, instead of the default for the kind of study and the machine",
    "ice": "true or false: inter-class contrast enhancement of LoCo",
    "bce": "true or false: boundary contrast enhancement of LoCo",
    "cdf": "true or false: confidence-based dynamic filter of LoCo",
    "auto_retrain": "true or false",
    "retrain_after": "new labels that start a training",
    "retrain_idle": "seconds of quiet before it starts",
    "epochs": "epochs of one training",
    "iterations": "optimiser steps per epoch",
    "strategy": "how the next image is chosen when a viewer asks for `random`, the only name that OHIF knows",
    "control_share": "share of next images that are drawn blindly as control, 0 to 1",
    "patient": "regular expression whose first group is the patient in an image name",
    "modalities": "PACS: modalities to list, as ES,OT; by default all that are images",
    "cache_gb": "most gigabytes kept on disk of loaded cases, for training, and of studies converted from a PACS",
    "pacs_poll": "PACS: seconds between two looks for new images and segmentations",
    "seed": "seed of splits, training and selection",
    "cors_origins": "other web pages that may use this server, as https://viewer.example,https://other.example",
    "max_upload_mb": "largest request, in MB",
    "auth_issuer": "with MONAI Label's login on: `iss` of valid tokens, instead of MONAI_LABEL_AUTH_REALM_URI",
    "auth_audience": "`aud` of valid tokens, instead of MONAI_LABEL_AUTH_CLIENT_ID",
    "auth_algorithms": "algorithms of valid signatures, as RS256,ES256",
}
CACHE_GB = 20.0
"""Of this at most half of the free disk is used; 0 keeps nothing."""
_SERVER_KEYS = {"server_mode", "auth_token"}


@dataclass(frozen=True)
class AppConf:
    """Settings of one server."""

    kind: Kind | None
    """None: decided from the studies."""
    labels: Mapping[str, int]
    """Empty: names found in submitted labels."""
    method: MethodSpec
    network: str | None
    auto_retrain: bool
    retrain_after: int
    retrain_idle: float
    epochs: int | None
    iterations: int | None
    strategy: str
    """Key of `POLICIES`."""
    control_share: float
    patient: str
    modalities: frozenset[str]
    """Empty: all that are images."""
    cache_bytes: int
    pacs_poll: float
    seed: int
    origins: tuple[str, ...] = ()
    max_upload_mb: int = 4096


def parse_conf(conf: Mapping[str, Any]) -> AppConf:
    """Check `--conf` values. Raises `SpecError` with one sentence: what was expected, what came, what to do."""
    for key in set(conf) - set(KEYS) - _SERVER_KEYS:
        close = difflib.get_close_matches(key, KEYS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
        logger.warning("Ignored --conf %s: %s", key, hint)
    models = str(conf.get("models", "auto")).strip().lower()
    if models not in ("auto", *KINDS):
        raise SpecError(
            f"expected --conf models to be auto, {', '.join(KINDS)}, but got {models!r}; choose one of them"
        )
    return AppConf(
        kind=None if models == "auto" else models,
        labels=parse_labels(str(conf.get("labels", ""))),
        method=_method(conf),
        network=_network(conf),
        auto_retrain=_switch(conf, "auto_retrain", True),
        retrain_after=_count(conf, "retrain_after", 5, 1),
        retrain_idle=_number(conf, "retrain_idle", 20.0, 0, 10**6),
        epochs=_optional_count(conf, "epochs"),
        iterations=_optional_count(conf, "iterations"),
        strategy=_strategy(str(conf.get("strategy", "low_contrast"))),
        control_share=_number(conf, "control_share", CONTROL_SHARE, 0, 1),
        patient=_pattern(str(conf.get("patient") or PATIENT_PATTERN)),
        modalities=frozenset(re.findall(r"[A-Z0-9_]+", str(conf.get("modalities", "")).upper())),
        cache_bytes=int(_number(conf, "cache_gb", CACHE_GB, 0, 10**6) * 10**9),
        pacs_poll=_number(conf, "pacs_poll", 10.0, 0.1, 10**5),
        seed=_count(conf, "seed", 0, 0),
        origins=_origins(str(conf.get("cors_origins", ""))),
        max_upload_mb=_count(conf, "max_upload_mb", 4096, 1),
    )


def parse_labels(text: str) -> dict[str, int]:
    """Names to indices from 1: `polyp`, `malignant,benign` or `{"name": index}`; background is 0 and left out.

    >>> parse_labels("malignant, benign")
    {'malignant': 1, 'benign': 2}
    """
    text = text.strip()
    if not text:
        return {}
    if not text.startswith(("{", "[")):
        names = [n.strip() for n in text.split(",") if n.strip() and n.strip().lower() != "background"]
        return _checked({name: i for i, name in enumerate(names, start=1)}, text, len(names))
    try:
        given = json.loads(text)
        labels = {str(k).strip(): _whole(v) for k, v in given.items() if str(k).lower() != "background"}
    except (ValueError, TypeError, AttributeError) as e:
        raise _label_error(text) from e
    return _checked(labels, text, len(labels))


def _whole(value: Any) -> int:
    if int(value) != float(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _checked(labels: dict[str, int], text: str, count: int) -> dict[str, int]:
    values = list(labels.values())
    if not labels or len(labels) != count or len(set(values)) != count or min(values) < 1 or max(values) > 254:
        raise _label_error(text)
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def _label_error(text: str) -> SpecError:
    return SpecError(
        "expected --conf labels to be different names like polyp or malignant,benign, or "
        f'{{"name": index}} with different indices from 1 to 254, but got {text!r}; correct it'
    )


def _method(conf: Mapping[str, Any]) -> MethodSpec:
    name = str(conf.get("method", "loco")).strip().lower()
    method_class(name)
    contrast = replace(ContrastSpec(), ice=_switch(conf, "ice", True), bce=_switch(conf, "bce", True))
    confidence = replace(ConfidenceSpec(), adaptive=_switch(conf, "cdf", True))
    spec = MethodSpec(name=name, contrast=contrast, confidence=confidence)
    return with_options(spec, str(conf.get("options", "")))


def _network(conf: Mapping[str, Any]) -> str | None:
    name = conf.get("network")
    if name is not None and name not in NETWORKS:
        raise SpecError(f"expected --conf network to be one of {', '.join(NETWORKS)}, but got {name!r}; choose one")
    return name


def _strategy(name: str) -> str:
    if name not in POLICIES:
        raise SpecError(f"expected --conf strategy to be one of {', '.join(POLICIES)}, but got {name!r}; choose one")
    return name


def _switch(conf: Mapping[str, Any], key: str, default: bool) -> bool:
    text = str(conf.get(key, default)).strip().lower()
    if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise SpecError(f"expected --conf {key} to be true or false, but got {text!r}; choose one of them")
    return text in ("true", "1", "yes", "on")


def _number(conf: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    try:
        value = float(conf.get(key, default))
    except (TypeError, ValueError):
        value = float("nan")
    if not low <= value <= high:
        raise SpecError(
            f"expected --conf {key} to be a number from {low} to {high}, but got {conf.get(key)!r}; change it"
        )
    return value


def _count(conf: Mapping[str, Any], key: str, default: int, low: int) -> int:
    value = _number(conf, key, default, low, 10**6)
    if not value.is_integer():
        raise SpecError(f"expected --conf {key} to be a whole number, but got {conf.get(key)!r}; change it")
    return int(value)


def _optional_count(conf: Mapping[str, Any], key: str) -> int | None:
    return _count(conf, key, 1, 1) if key in conf else None


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = [o for o in origins if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", o)]
    if wrong:
        raise SpecError(
            f"expected --conf cors_origins to be like https://viewer.example, without a path, but got {wrong[0]!r}; correct it"
        )
    return origins


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error:
        groups = 0
    if groups < 1:
        raise SpecError(
            f"expected --conf patient to be a regular expression with one group, but got {text!r}; write e.g. ^(pat\\d+)"
        )
    return text
