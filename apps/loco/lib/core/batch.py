"""One training batch and its loader: the same (seed, step) always gives the same batch, so a stopped run goes on exactly.

Each row has random numbers of its own, so that several processes can make a batch together, each its own rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.core.cases import Record
from lib.core.distributed import gather_rows, gathered, rows_of, world_size
from lib.core.images import CaseError
from lib.core.spec import DataSpec, TrainSpec
from lib.core.transforms import crop_slice, strong_view, weak_view

logger = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where an image of a batch comes from: the patient, the study, and which of its slices (0 of 1 if it has none)."""

    patient: str
    study: str
    slice: int = 0
    slices: int = 1


@dataclass(frozen=True)
class Views:
    """What a method wants to see of each image besides its weak view."""

    unlabelled: bool = True
    """False: no unlabelled images are drawn."""
    strong_u: int = 1
    """Strong views of an unlabelled image, 1 or 2; all have the geometry of the weak one."""
    strong_l: bool = False
    """Also a strong view of each labelled image."""


_USUAL_VIEWS = Views()


@dataclass
class Batch:
    """What a method's step receives, all on one device.

    Shapes: images `B C H W [D]` float32 in [0, 1]; labels and ignore maps `B H W [D]` uint8, 255 = look away. The
    unlabelled part is None when every study is labelled or the method asked for none; a strong view beyond the first
    of the unlabelled images is None unless the method's `Views` ask for it.
    """

    image_l: Tensor
    label_l: Tensor
    image_u_weak: Tensor | None = None
    image_u_strong: Tensor | None = None
    ignore_u: Tensor | None = None
    image_u_strong_2: Tensor | None = None
    image_l_strong: Tensor | None = None
    origin_l: tuple[Origin, ...] = ()
    origin_u: tuple[Origin, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, copied without waiting where memory is pinned."""
        return Batch(**{f.name: _move(getattr(self, f.name), device) for f in fields(self)})

    def pin_memory(self) -> Batch:
        """Pinned copy, called by the data loader on machines with a GPU."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in moved.items()})


def gather_batch(shard: Batch, training: TrainSpec) -> Batch:
    """The whole batch on every rank, from the rows that each has made. Without other ranks `shard` itself."""
    if world_size() == 1:
        return shard
    labelled = ("image_l", "label_l", "image_l_strong")
    whole = {}
    for name, value in ((f.name, getattr(shard, f.name)) for f in fields(shard)):
        if isinstance(value, Tensor):
            value = gather_rows(value, training.batch_labelled if name in labelled else training.batch_unlabelled)
        elif name.startswith("origin"):
            value = tuple(Origin(*o) for part in gathered([tuple(o) for o in value]) for o in part)
        whole[name] = value
    return Batch(**whole)


Row = tuple[Record, np.random.RandomState]
"""A record and the random numbers of its row."""


class StepDataset(Dataset):
    """Step number to `Batch`. Labelled and unlabelled lists are shuffled anew each time they are used up."""

    def __init__(
        self,
        labelled: Sequence[Record],
        unlabelled: Sequence[Record],
        load: Callable[[Record], dict[str, Tensor]],
        data: DataSpec,
        training: TrainSpec,
        views: Views = _USUAL_VIEWS,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`load` gives a record's `image` and `label`; of `world` processes number `rank` makes only its rows."""
        if not labelled:
            raise ValueError("expected at least one labelled study to train on, but got none; submit a label first")
        self._labelled, self._unlabelled = list(labelled), list(unlabelled)
        self._load, self._data, self._training, self._views = load, data, training, views
        self._rank, self._world = rank, world
        self._broken: set[str] = set()

    def __len__(self) -> int:
        return self._training.iterations

    def __getitem__(self, step: int) -> Batch:
        rows = list(self._rows(self._labelled, step, self._training.batch_labelled, 0))
        labelled, origin = self._weak(rows)
        batch = Batch(self._images(v["image"] for v in labelled), self._maps(labelled), origin_l=origin)
        batch.image_l_strong = self._strong(labelled, rows) if self._views.strong_l else None
        if self._unlabelled and self._views.unlabelled and self._training.batch_unlabelled > 0:
            rows = list(self._rows(self._unlabelled, step, self._training.batch_unlabelled, 1))
            weak, batch.origin_u = self._weak(rows)
            batch.image_u_weak = self._images(v["image"] for v in weak)
            batch.image_u_strong = self._strong(weak, rows)
            batch.ignore_u = self._maps(weak)
            batch.image_u_strong_2 = self._strong(weak, rows) if self._views.strong_u > 1 else None
        return batch

    def _rows(self, records: list[Record], step: int, count: int, stream: int) -> Iterator[Row]:
        """This process's rows of a step: consecutive entries of an endless sequence of seeded permutations."""
        seed = self._training.seed
        for row in rows_of(count, self._rank, self._world):
            lap, place = divmod(step * count + row, len(records))
            order = _permutation(len(records), seed, stream, lap)
            yield records[order[place]], np.random.RandomState([seed, stream, step, row])

    def _weak(self, rows: Sequence[Row]) -> tuple[list[dict[str, Tensor]], tuple[Origin, ...]]:
        """Weak view and origin of each row."""
        viewed = [self._view(record, rng) for record, rng in rows]
        return [v for v, _ in viewed], tuple(o for _, o in viewed)

    def _strong(self, weak: Sequence[Mapping[str, Tensor]], rows: Sequence[Row]) -> Tensor:
        """A strong view of each row, from its own random numbers."""
        return self._images(strong_view(v["image"], self._data, rng) for v, (_, rng) in zip(weak, rows, strict=True))

    def _images(self, images: Iterable[Tensor]) -> Tensor:
        """`C H W [D]` each to `b C H W [D]`; a process may have no row."""
        empty = torch.empty((0, self._data.channels, *self._data.patch))
        return torch.cat([empty, *(image[None] for image in images)])

    def _maps(self, views: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Labels `1 H W [D]` to `b H W [D]` uint8."""
        empty = torch.empty((0, *self._data.patch), dtype=torch.uint8)
        return torch.cat([empty, *(v["label"].to(torch.uint8) for v in views)])

    def _view(self, record: Record, rng: np.random.RandomState) -> tuple[dict[str, Tensor], Origin]:
        """Weakly augmented crop; an unlabelled study that cannot be read is replaced by another one, with a warning."""
        record, item = self._item(record, rng)
        origin = Origin(record.group, record.id)
        if self._data.kind == "slice":
            slices = item["image"].shape[-1]
            item, index = crop_slice(item, rng)
            origin = origin._replace(slice=index, slices=slices)
        return weak_view(item, self._data, rng), origin

    def _item(self, record: Record, rng: np.random.RandomState) -> tuple[Record, dict[str, Tensor]]:
        for candidate in chain([record], self._substitutes(record, rng)):
            if candidate.id in self._broken:
                continue
            try:
                item = dict(self._load(candidate))
            except CaseError as e:
                self._broken.add(candidate.id)
                logger.warning("Skipped in training: %s", e)
                continue
            item.setdefault("label", torch.zeros((1, *item["image"].shape[1:]), dtype=torch.uint8))
            return candidate, item
        raise CaseError(record.image, "no study of its kind can be read; check the files of the studies")

    def _substitutes(self, record: Record, rng: np.random.RandomState) -> Iterator[Record]:
        same = self._labelled if record.label is not None else self._unlabelled
        for index in rng.permutation(len(same)):
            yield same[index]


def train_loader(dataset: StepDataset, first_step: int, workers: int, cuda: bool) -> DataLoader:
    """Batches of the steps from `first_step` to the end of the run, in order, one by one."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first_step, len(dataset)),
        num_workers=workers,
        pin_memory=cuda,
        persistent_workers=False,
    )


@lru_cache(maxsize=8)
def _permutation(count: int, *seed: int) -> np.ndarray:
    """Order of `count` records in one lap."""
    return np.random.RandomState(seed).permutation(count)


def _move(value: object, device: torch.device) -> object:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
