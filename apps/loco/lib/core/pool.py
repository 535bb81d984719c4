"""The studies as arrays: what one model version says of them, and what is taken or done at the moment of a choice.

A `Pool` is built once per model version and shared by all policies; a `Situation` is made for each request. Nothing is read
or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Pool:
    """N images with the terms, embeddings and groups by which they can be compared.

    `terms`: name to N float32, NaN where an image has no such term; names as stored, "polyp/present/margin",
    "image/entropy". `embeddings`: N D float32, rows of length 1, a row of zeros where there is none. `groups`: N int
    from 0 without gaps, equal for images of one patient or video.
    """

    images: tuple[str, ...]
    terms: Mapping[str, np.ndarray]
    embeddings: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> list[str]:
        """Classes that have low-contrast terms, sorted."""
        parts = (name.rsplit("/", 2) for name in self.terms)
        return sorted({part[0] for part in parts if len(part) == 3 and part[1] in ("present", "absent")})

    def stratum(self, name: str) -> dict[str, np.ndarray]:
        """Terms of a stratum ("polyp/present", "image") by their last name."""
        start = f"{name}/"
        return {key[len(start) :]: values for key, values in self.terms.items() if key.startswith(start)}

    def terms_of(self, index: int, stratum: str) -> dict[str, float]:
        """The terms of one image in one stratum, without those it does not have."""
        values = {name: float(column[index]) for name, column in self.stratum(stratum).items() if "/" not in name}
        return {name: value for name, value in values.items() if np.isfinite(value)}


def make_pool(
    images: Sequence[str],
    terms: Sequence[Mapping[str, float]],
    embeddings: Sequence[np.ndarray | None] | np.ndarray | None = None,
    groups: Sequence[str] | None = None,
) -> Pool:
    """A pool from one mapping of terms per image.

    Args:
        images: N ids.
        terms: N mappings as `ImageScore.terms()` gives them.
        embeddings: N vectors of one length D, None where there is none.
        groups: patient or video of each image; None: each image is its own.
    """
    names = sorted({name for row in terms for name in row})
    table = np.array([[row.get(name, np.nan) for name in names] for row in terms], dtype=np.float32)
    table = table.reshape(len(images), len(names))
    columns = {name: np.ascontiguousarray(table[:, j]) for j, name in enumerate(names)}
    numbers = np.arange(len(images)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return Pool(tuple(images), columns, unit_rows(embeddings, len(images)), numbers)


def unit_rows(vectors: Sequence[np.ndarray | None] | np.ndarray | None, count: int) -> np.ndarray:
    """Vectors as `count D` float32 rows of length 1; None becomes a row of zeros. Raises `ValueError` on mixed lengths."""
    known = [] if vectors is None else [v for v in vectors if v is not None]
    lengths = sorted({int(np.size(v)) for v in known})
    if len(lengths) > 1:
        raise ValueError(
            f"expected all embeddings to have the same length, but got {lengths}; compare embeddings of one version only"
        )
    table = np.zeros((count, lengths[0] if lengths else 0), dtype=np.float32)
    for i, vector in enumerate(vectors if vectors is not None else ()):
        if vector is not None:
            table[i] = np.ravel(vector)
    if not np.isfinite(table).all():
        raise ValueError("expected embeddings to be finite, but got NaN or infinity; leave those images out")
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Situation:
    """What is taken and done at the moment of a choice, over the N images of a pool.

    `free`: may be served (N bool). `seen`: labelled, held by an annotator or skipped: what a choice should differ from
    (N bool). `progress`: share of the labelling budget that is used, in [0, 1]. `labelled`: labelled images that contain each
    class, of `labels` in all. `miss_rate`: share of the held-out images with a class in which the model does not find it;
    absent where unknown. `weak`: classes that the model does not know well enough to say where they are hard.
    """

    free: np.ndarray
    seen: np.ndarray
    progress: float = 0.0
    labelled: Mapping[str, int] = field(default_factory=dict)
    labels: int = 0
    miss_rate: Mapping[str, float] = field(default_factory=dict)
    weak: frozenset[str] = frozenset()


def spread_over_groups(free: np.ndarray, seen: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The free images of groups that have not had more than their share (N bool); all free ones if there is none.

    A group may have at most `1 + 2 x` the mean number of seen images per group, so that near-duplicate frames of one video
    or slices of one patient cannot fill the queue.
    """
    count = int(groups.max(initial=0)) + 1
    load = np.bincount(groups[seen], minlength=count)
    allowed = free & (load < 1 + 2 * int(seen.sum()) // count)[groups]
    return allowed if allowed.any() else free
