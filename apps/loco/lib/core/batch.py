"""One training batch and its loader: the same (seed, step) always gives the same batch, so a stopped run goes on exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import Dataset as CaseDataset
from monai.data import PersistentDataset
from monai.transforms import Transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.core.cases import Record, load_case
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


class LoadCase(Transform):
    """`{"image", "label", "stamp"}` (files, label may be "") to tensors `image` C *working and `label` 1 *working."""

    def __init__(self, data: DataSpec, classes: int) -> None:
        self._data, self._classes = data, classes

    def __call__(self, key: Mapping[str, str]) -> dict[str, Tensor]:
        """Raises `CaseError` when the study or its label cannot be used."""
        case = load_case(key["image"], key["label"] or None, self._data, self._classes)
        item = {"image": case.image.contiguous()}
        if case.label is not None:
            item["label"] = case.label.contiguous()
        return item


class CaseStore:
    """Loaded cases of some records. Volumes are kept on disk under `folder` (resampling is slow); pictures are not."""

    def __init__(self, records: Sequence[Record], data: DataSpec, classes: int, folder: str | Path) -> None:
        load = LoadCase(data, classes)
        keys = [{"image": r.image, "label": r.label or "", "stamp": _stamp(r)} for r in records]
        self._index = {r.id: i for i, r in enumerate(records)}
        self._cases = CaseDataset(keys, load) if data.kind == "frame" else PersistentDataset(keys, load, folder)

    def __call__(self, record: Record) -> dict[str, Tensor]:
        """`image` float32 and, for labelled records, `label` uint8, both on the working grid. Raises `CaseError`."""
        try:
            return dict(self._cases[self._index[record.id]])
        except RuntimeError as e:
            if isinstance(e.__cause__, CaseError):
                raise e.__cause__ from None
            raise


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
    ) -> None:
        if not labelled:
            raise ValueError("expected at least one labelled study to train on, but got none; submit a label first")
        self._labelled, self._unlabelled = list(labelled), list(unlabelled)
        self._load, self._data, self._training, self._views = load, data, training, views
        self._broken: set[str] = set()

    def __len__(self) -> int:
        return self._training.iterations

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.RandomState((self._training.seed * 1_000_003 + step * 7919 + 1) % 2**32)
        chosen = self._draw(self._labelled, step, self._training.batch_labelled, 0)
        labelled, origin = zip(*(self._view(r, rng) for r in chosen), strict=True)
        batch = Batch(
            torch.stack([v["image"] for v in labelled]),
            torch.stack([v["label"][0] for v in labelled]).to(torch.uint8),
            origin_l=origin,
        )
        if self._unlabelled and self._views.unlabelled and self._training.batch_unlabelled > 0:
            chosen = self._draw(self._unlabelled, step, self._training.batch_unlabelled, 1)
            weak, batch.origin_u = zip(*(self._view(r, rng) for r in chosen), strict=True)
            batch.image_u_weak = torch.stack([v["image"] for v in weak])
            batch.image_u_strong = self._strong(weak, rng)
            batch.ignore_u = torch.stack([v["label"][0] for v in weak]).to(torch.uint8)
            batch.image_u_strong_2 = self._strong(weak, rng) if self._views.strong_u > 1 else None
        batch.image_l_strong = self._strong(labelled, rng) if self._views.strong_l else None
        return batch

    def _strong(self, weak: Sequence[Mapping[str, Tensor]], rng: np.random.RandomState) -> Tensor:
        return torch.stack([strong_view(v["image"], self._data, rng) for v in weak])

    def _draw(self, records: list[Record], step: int, count: int, stream: int) -> list[Record]:
        """`count` records of this step: consecutive entries of an endless sequence of seeded permutations."""
        chosen = []
        for position in range(step * count, (step + 1) * count):
            lap, place = divmod(position, len(records))
            order = np.random.RandomState([self._training.seed, stream, lap]).permutation(len(records))
            chosen.append(records[order[place]])
        return chosen

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
        pool = [record, *self._substitutes(record, rng)]
        for candidate in pool:
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


def _stamp(record: Record) -> str:
    """Changes when the image or the label file does, so that a resubmitted label is read anew."""
    stats = [Path(p).stat() for p in (record.image, record.label) if p and Path(p).exists()]
    return ",".join(f"{s.st_mtime_ns}:{s.st_size}" for s in stats)


def _move(value: object, device: torch.device) -> object:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
