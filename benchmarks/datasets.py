"""Data sets with full labels for the experiments: `pool` to choose labels from, `val` to measure on.

A data set is a folder with `pool/images`, `pool/labels`, `val/images` and `val/labels`; an image and its label have
the same stem. What an experiment hides is decided here: `studies_with` shows the app the labels of some cases only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.masks import FOREGROUND, read_mask, stem_of
from PIL import Image

from lib.core.cases import Record, load_case, patient_of
from lib.core.files import replacing
from lib.core.images import read_header
from lib.core.plan import decide_kind
from lib.core.spec import DataSpec, Kind

NAMES = {
    "kvasir": ("polyp",),
    "la": ("atrium",),
    "acdc": ("right ventricle", "myocardium", "left ventricle"),
}
"""Names of the classes 1, 2, ... of known data sets."""

_LOOKED_AT = 24


class DataSetError(ValueError):
    """A folder that is no data set; one sentence."""


@dataclass(frozen=True)
class DataSet:
    """Records with their labels, sorted by id."""

    name: str
    kind: Kind
    labels: dict[str, int]
    pool: tuple[Record, ...]
    val: tuple[Record, ...]


class Studies:
    """The part of MONAI Label's datastore that training and scoring read, over records in memory."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = {r.id: r for r in records}

    def list_images(self) -> list[str]:
        """Ids of all images."""
        return list(self._records)

    def get_labeled_images(self) -> list[str]:
        """Ids of the images whose label may be seen."""
        return [i for i, r in self._records.items() if r.label]

    def get_unlabeled_images(self) -> list[str]:
        """Ids of the others."""
        return [i for i, r in self._records.items() if not r.label]

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image."""
        return self._records[image_id].image

    def get_label_uri(self, image_id: str, tag: str) -> str:
        """Path of a label, empty when it is hidden; there is only one kind of label."""
        return self._records[image_id].label or ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Nothing is known but the file."""
        return {}


def read_data_set(folder: Path) -> DataSet:
    """The data set in a folder.

    Raises:
        DataSetError: a part is missing or an image has no label.
    """
    pool, val = (_records(folder / part) for part in ("pool", "val"))
    kind = decide_kind([read_header(r.image) for r in pool[:_LOOKED_AT]])
    names = NAMES.get(folder.name) or _numbered(pool)
    return DataSet(folder.name, kind, {name: i for i, name in enumerate(names, start=1)}, pool, val)


def choose_groups(records: Sequence[Record], count: int, seed: int) -> frozenset[str]:
    """`count` patients of the pool, the same for every method; a larger choice of one seed contains the smaller ones.

    Raises:
        DataSetError: there are not so many.
    """
    groups = sorted({r.group for r in records})
    if not 0 < count <= len(groups):
        raise DataSetError(f"expected 1 to {len(groups)} labelled patients, but got {count}; choose fewer")
    return frozenset(groups[i] for i in np.random.default_rng([seed, 20]).permutation(len(groups))[:count])


def studies_with(records: Iterable[Record], groups: Collection[str]) -> Studies:
    """All images, and the labels of the patients in `groups`."""
    return Studies(r if r.group in groups else replace(r, label=None) for r in records)


def studies_showing(records: Iterable[Record], images: Collection[str]) -> Studies:
    """All images, and the labels of some of them."""
    return Studies(r if r.id in images else replace(r, label=None) for r in records)


def set_aside(records: Sequence[Record], share: float, seed: int = 0) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Pool without a development part, and that part; by patient. For choices that must not look at `val`."""
    groups = choose_groups(records, max(1, round(share * len({r.group for r in records}))), seed + 10_000)
    kept = tuple(r for r in records if r.group not in groups)
    return kept, tuple(r for r in records if r.group in groups)


def at_working_size(records: Sequence[Record], data: DataSpec, classes: int, folder: Path) -> tuple[Record, ...]:
    """Frames brought to the working grid once and kept as PNG in `folder`, so that a training does not do it each time.

    Volumes come back as they are: the app keeps their working grids itself.
    """
    if data.kind != "frame":
        return tuple(records)
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_resized(r, data, classes, folder) for r in records)


def _numbered(records: Sequence[Record]) -> list[str]:
    largest = max(int(read_mask(Path(r.label)).max()) for r in records)
    return [f"class {i}" for i in range(1, 2 if largest == FOREGROUND else largest + 1)]


def _resized(record: Record, data: DataSpec, classes: int, folder: Path) -> Record:
    image, label = folder / f"{record.id}-{data.size}.png", folder / f"{record.id}-{data.size}-label.png"
    if not (image.exists() and label.exists()):
        case = load_case(record.image, record.label, data, classes)
        # MONAI reads pictures as columns, rows
        _write_png(image, (case.image * 255).round().to(torch.uint8).permute(2, 1, 0).numpy())
        _write_png(label, case.label[0].T.numpy())
    return replace(record, image=str(image), label=str(label))


def _write_png(path: Path, array: np.ndarray) -> None:
    with replacing(path) as file:
        Image.fromarray(np.ascontiguousarray(array)).save(file, format="PNG")


def _records(folder: Path) -> tuple[Record, ...]:
    images, labels = _files(folder / "images"), _files(folder / "labels")
    missing = sorted(set(images) - set(labels))
    if missing:
        raise DataSetError(f"expected a label for each image of {folder}, but {missing[0]} has none; add it")
    return tuple(Record(stem, str(images[stem]), str(labels[stem]), patient_of(stem)) for stem in sorted(images))


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataSetError(f"expected files in {folder}, but there are none; name a folder with pool and val")
    return {stem_of(p.name): p for p in sorted(folder.iterdir()) if not p.name.startswith(".")}
