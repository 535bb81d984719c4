"""What a viewer may set for one training, checked, and turned into the run's specification."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lib.core.methods import METHODS, method_class, note
from lib.core.networks import NETWORKS_2D, NETWORKS_3D
from lib.core.spec import SpecError, TaskSpec

logger = logging.getLogger(__name__)

_NUMBERS = {
    "max_epochs": ("epochs", 1, 10_000),
    "iterations_per_epoch": ("iterations_per_epoch", 1, 1_000_000),
    "train_batch_size": ("batch_labelled", 1, 1024),
    "unlabeled_batch_size": ("batch_unlabelled", 0, 1024),
    "seed": ("seed", 0, 2**31 - 1),
}


_FIXED = {
    "name": "train", "val_batch_size": 1, "dataset": "Dataset", "dataloader": "DataLoader",
    "early_stop_patience": -1, "val_split": 0.0, "tracking_experiment_name": "",
}  # fmt: skip
"""What MONAI Label's task reads of a request and no client may say."""


def option_defaults(spec: TaskSpec) -> dict[str, Any]:
    """Options that Slicer and OHIF show, with their defaults; the first of a list is what is used, a note is only read."""
    training = spec.training
    return {
        "max_epochs": training.epochs,
        "iterations_per_epoch": training.iterations_per_epoch,
        "train_batch_size": training.batch_labelled,
        "unlabeled_batch_size": training.batch_unlabelled,
        "method": _first(spec.method.name, METHODS),
        "method_note": f"reconstructions from little public text: {', '.join(filter(note, METHODS))}",
        "network": _first(spec.network.name, _networks(spec)),
        "pretrained": True,
        "seed": training.seed,
    }


def checked_request(request: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A request as the training sees it: known options alone, one device, and what is fixed.

    Args:
        request: what came.
        config: the options that viewers show, with their defaults.
    """
    allowed = {*config, "model", "client_id", "local_rank"}
    unknown = sorted(set(request) - allowed)
    if unknown:
        logger.warning("Ignored training options %s; known are %s", unknown, sorted(config))
    options = {key: value for key, value in request.items() if key in allowed}
    return {**options, "device": _chosen(options.get("device", config["device"])), **_FIXED}


def chosen_options(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a request chose of a run's specification: what another one must say to go on with the run."""
    return {key: _chosen(request[key]) for key in (*_NUMBERS, "method", "network") if request.get(key) is not None}


def spec_of_request(spec: TaskSpec, request: Mapping[str, Any]) -> TaskSpec:
    """The specification of one run: `spec` with what the request sets.

    Raises:
        SpecError: a number that is none or out of range, or an unknown method or network; the message lists what works.
    """
    training = spec.training
    for key, (name, low, high) in _NUMBERS.items():
        if request.get(key) is not None:
            training = replace(training, **{name: _number(key, request[key], low, high)})
    method = str(_chosen(request.get("method")) or spec.method.name)
    method_class(method)
    network = str(_chosen(request.get("network")) or spec.network.name)
    valid = _networks(spec)
    if network not in valid:
        raise SpecError(f"expected `network` to be one of {', '.join(valid)}, but got {network!r}; choose one of them")
    return replace(
        spec,
        training=training,
        method=replace(spec.method, name=method),
        network=replace(spec.network, name=network),
    )


def smaller_batches(spec: TaskSpec, request: Mapping[str, Any]) -> dict[str, int] | None:
    """Options of a run with half the batches, for a GPU without room for them; None when they cannot be smaller."""
    training = spec_of_request(spec, request).training
    labelled, unlabelled = training.batch_labelled, training.batch_unlabelled
    if max(labelled, unlabelled) <= 1:
        return None
    return {"train_batch_size": max(1, labelled // 2), "unlabeled_batch_size": max(min(1, unlabelled), unlabelled // 2)}


def _networks(spec: TaskSpec) -> list[str]:
    return list(NETWORKS_2D if spec.data.spatial_dims == 2 else NETWORKS_3D)


def _number(key: str, value: Any, low: int, high: int) -> int:
    try:
        number = int(_chosen(value))
    except (TypeError, ValueError):
        number = low - 1
    if not low <= number <= high:
        raise SpecError(f"expected `{key}` to be a whole number from {low} to {high}, but got {value!r}; change it")
    return number


def _chosen(value: Any) -> Any:
    """Viewers send a list as its first element, the raw configuration holds the list."""
    return value[0] if isinstance(value, (list, tuple)) and value else value


def _first(name: str, names: Mapping[str, Any] | list[str]) -> list[str]:
    return [name, *(n for n in names if n != name)]
