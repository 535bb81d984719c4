"""A submitted label before it is saved: whole, on the image's grid, with the values of the configured classes."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.core.images import (
    SUFFIXES,
    CaseError,
    LoadedImage,
    class_indices,
    label_on_image,
    read_image,
    read_label,
    suffix_of,
)
from lib.maskfile import write_mask

logger = logging.getLogger(__name__)

_DRAWN = 255
"""What drawing programs write for the one class of a mask."""


def checked_label(
    label: str | Path, image: str | Path, labels: Mapping[str, int], label_info: Sequence[Mapping[str, Any]] | None
) -> tuple[str, dict[str, int]]:
    """Check a label file against its image and bring its values to class indices.

    Args:
        label: uploaded file.
        image: the study it belongs to.
        labels: configured names and indices.
        label_info: what the viewer says of the values: a list of {"name", "idx"} in segment order, or None.

    Returns:
        The file to keep (`label` itself when its values are class indices already, else a new temporary file) and the
        classes found in it.

    Raises:
        CaseError: unreadable, other shape, unknown name or value; the message says what to do.
    """
    if not str(label).lower().endswith(SUFFIXES):
        raise CaseError(
            label, f"expected a label as one of {', '.join(SUFFIXES)}, but got another type; export it again"
        )
    loaded, study = read_label(label), read_image(image)
    stored = label_on_image(loaded, study, label)
    values = _by_name(stored, label_info, labels, label) if label_info else stored
    classes = class_indices(values, max(labels.values()) + 1, label)
    unnamed = sorted(set(torch.unique(classes).tolist()) - {0, *labels.values()})
    if unnamed:
        known = ", ".join(f"{value} ({name})" for name, value in labels.items())
        raise CaseError(label, f"expected label values 0, {known}, but got {unnamed[:5]}; use the configured labels")
    found = {name: index for name, index in labels.items() if bool((classes == index).any())}
    unchanged = stored.shape == loaded.array.shape and torch.equal(classes.to(torch.int64), loaded.array)
    if unchanged:
        return str(label), found
    return _written(classes, study, Path(label)), found


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def label_info_of(params: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """`label_info` of a submission as a list, or None when there is none or it is not one.

    Raises:
        CaseError: a named entry whose `idx` is no number; without it the others could not be told apart by their order.
    """
    info = params.get("label_info")
    if isinstance(info, str):
        try:
            info = json.loads(info)
        except ValueError:
            return None
    named = [i for i in info if isinstance(i, dict) and i.get("name")] if isinstance(info, list) else None
    for entry in named or []:
        if not str(entry.get("idx", 0)).isdecimal():
            raise CaseError("label_info", f"expected `idx` to be a whole number, but got {entry['idx']!r}; correct it")
    return named


def _by_name(
    values: Tensor, label_info: Sequence[Mapping[str, Any]], labels: Mapping[str, int], path: str | Path
) -> Tensor:
    """Values as the viewer numbered them to class indices, by segment name.

    Slicer numbers the exported segments 1..n in their order while `idx` also counts segments that it left out; other clients
    write `idx` itself. Whichever of the two explains all values is used: `idx` first where it is the configured index of
    every name, else the order.
    """
    entries = sorted(label_info, key=lambda e: int(e.get("idx", 0)))
    present = [int(v) for v in torch.unique(values).tolist() if v != 0]
    by_index = {int(e["idx"]): str(e["name"]) for e in entries if "idx" in e}
    by_order = dict(enumerate((str(e["name"]) for e in entries), start=1))
    as_configured = all(labels.get(name, index) == index for index, name in by_index.items())
    first, second = (by_index, by_order) if as_configured else (by_order, by_index)
    names = first if set(present) <= set(first) else second
    if present == [_DRAWN] and len(entries) == 1:
        names = {_DRAWN: str(entries[0]["name"])}
    nameless = [v for v in present if v not in names]
    if nameless:
        raise CaseError(
            path, f"expected a name for each value that is drawn, but {nameless[:5]} have none; submit again"
        )
    indices = {name.strip().lower(): index for name, index in labels.items()}
    unknown = sorted({names[v] for v in present if names[v].strip().lower() not in indices})
    if unknown:
        raise CaseError(
            path,
            f"expected segments named {', '.join(labels)}, but got {', '.join(unknown)}; rename them and submit again",
        )
    mapped = torch.zeros_like(values)
    for value in present:
        mapped[values == value] = indices[names[value].strip().lower()]
    return mapped


def _written(classes: Tensor, study: LoadedImage, label: Path) -> str:
    """Write class indices `1 X Y [Z]` beside the upload, on the image's grid, in the upload's format."""
    suffix = suffix_of(label)
    if suffix in (".jpg", ".jpeg"):
        suffix = ".png"
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
        target = file.name
    write_mask(classes[0].numpy(), study.affine, Path(target))
    return target
