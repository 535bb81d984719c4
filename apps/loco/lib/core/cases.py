"""From the list of studies to cases: which are trained on, which are set aside, and how one is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lib.core.grid import Grid, to_working, working_grid
from lib.core.images import (
    CaseError,
    class_indices,
    is_picture,
    label_on_image,
    read_image,
    read_label,
    unit_range,
)
from lib.core.spec import DataSpec

Side = Literal["train", "validation"]

PATIENT_PATTERN = r"(?i)^((?:patient|subject|subj|sub|pat|case|video|vid|seq)[-_ ]?[0-9a-z]+)"
"""Names like patient001_frame01, sub-03_ses-2, video7_0012 share a patient; any other name is a patient of its own."""


@dataclass(frozen=True)
class Record:
    """One study: its id, its image file, its label file if one was submitted, and the patient it belongs to."""

    id: str
    image: str
    label: str | None
    group: str


@dataclass(frozen=True)
class Split:
    """Records by use. Studies of validation patients are in no other list, labelled or not."""

    labelled: tuple[Record, ...]
    unlabelled: tuple[Record, ...]
    validation: tuple[Record, ...]


@dataclass(frozen=True)
class Case:
    """A loaded study on its working grid: `image` C *working float32 in [0, 1], `label` 1 *working uint8 or None."""

    image: Tensor
    label: Tensor | None
    grid: Grid
    native_label: Tensor | None = None
    """1 *native uint8, kept for validation only."""
    affine: np.ndarray | None = None
    """4 x 4 voxel-to-RAS in mm of the image as stored; None for pictures."""


def patient_of(image_id: str, pattern: str = PATIENT_PATTERN) -> str:
    """The patient (or video) that an image belongs to: the first group of `pattern` that matches, else the id itself.

    >>> patient_of("12_x", r"^(?:(pat[0-9]+)|([0-9]+))_")
    '12'
    """
    match = re.search(pattern, image_id)
    return next((group for group in match.groups() if group), image_id).lower() if match else image_id.lower()


def split_records(records: Iterable[Record], sides: Mapping[str, Side]) -> Split:
    """Sort records by the side of their patient; a labelled patient without a side trains."""
    labelled, unlabelled, validation = [], [], []
    for record in sorted(records, key=lambda r: r.id):
        if sides.get(record.group, "train") == "validation":
            if record.label is not None:
                validation.append(record)
        elif record.label is None:
            unlabelled.append(record)
        else:
            labelled.append(record)
    return Split(tuple(labelled), tuple(unlabelled), tuple(validation))


def labelled_groups(records: Iterable[Record]) -> list[str]:
    """Patients with at least one label, sorted."""
    return sorted({r.group for r in records if r.label is not None})


def load_case(image: str, label: str | None, data: DataSpec, classes: int, keep_native: bool = False) -> Case:
    """Load one study, and its label if there is one, onto the working grid.

    Args:
        image: image file.
        label: label file or None.
        data: how to bring it to the working grid.
        classes: number of classes including the background.
        keep_native: also keep the label on the voxels of the image, for validation.

    Raises:
        CaseError: the image or the label cannot be used; the message names the file.
    """
    loaded = read_image(image)
    array = _channels(unit_range(loaded.array, is_picture(image)), data, image)
    grid = working_grid(tuple(array.shape[1:]), loaded.affine, data)
    working = to_working(array, grid, nearest=False).clamp_(0, 1)
    if label is None:
        return Case(working, None, grid, affine=loaded.affine)
    values = class_indices(label_on_image(read_label(label), loaded, label), classes, label)
    return Case(working, to_working(values, grid, nearest=True), grid, values if keep_native else None, loaded.affine)


def _channels(array: Tensor, data: DataSpec, path: str) -> Tensor:
    """RGB for frames, one channel for volumes; a frame must be one picture."""
    if data.kind == "frame":
        if array.ndim == 4 and min(array.shape[1:]) > 1:
            raise CaseError(path, f"expected one picture, but got a volume of shape {tuple(array.shape[1:])}; "
                                  "start the server with --conf models slice or volume")  # fmt: skip
        return array if array.shape[0] == 3 else array.expand(3, *array.shape[1:])
    if array.ndim == 3:
        array = array[..., None]
    return array if array.shape[0] == 1 else torch.mean(array, dim=0, keepdim=True)
