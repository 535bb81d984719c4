"""Pre-labels of many studies: several at once on a CPU, on a GPU one while others are read and written; tagged `original`.

Viewers show such a label as the first draft. It takes the place of MONAI Label's batch inference, which handles one study
after the other, ends with the first that cannot be read and overwrites the drafts of people.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import torch
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.utils.others.generic import name_to_device
from PIL import Image
from torch import Tensor

from lib.core.cases import Case, load_case
from lib.core.images import CaseError
from lib.core.predict import Prediction, predict_in_memory
from lib.decisions import hashed_name, nameless
from lib.infers.segmentation import LiveModel, Segmentation, described
from lib.progressbar import track

logger = logging.getLogger(__name__)

_WORKERS = 4
"""Studies at once on a CPU: a bound on memory."""
_READERS = 2
_AHEAD = 6
"""Studies that are loaded ahead, and results that wait to be written: a bound on memory."""

Item, Loaded, Result = TypeVar("Item"), TypeVar("Loaded"), TypeVar("Result")


class PreLabelling(BatchInferTask):
    """Segments studies with the live model and keeps the results as drafts."""

    def __init__(self, models: Mapping[str, Segmentation]) -> None:
        """`models`: inference tasks by name."""
        self._models = models

    def __call__(self, request: Mapping[str, Any], datastore: Datastore, infer: Callable) -> dict[str, Any]:
        """Pre-label what `images` of the request says: all, labeled, unlabeled or a list of ids.

        Drafts by the live model are up to date and drafts by a person stay, unless `overwrite` is true. `max_batch_size`
        is the largest number of studies, 0 for no limit.

        Returns:
            `images`: for each study `label` and `params`, or `skipped` or `error` with the reason; and a summary.

        Raises:
            HTTPException: 404 for an unknown model.
        """
        name = str(request.get("model"))
        if name not in self._models:
            raise HTTPException(
                404, f"expected a model, one of {', '.join(self._models)}, but got {name!r}; choose one"
            )
        device = name_to_device(request.get("device") or "cuda")
        live = self._models[name].live(device)
        tag = str(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value)
        images = sorted(self.get_images(request, datastore))
        images = images[: int(request.get("max_batch_size") or 0) or None]
        replies = {i: {"skipped": r} for i in images if (r := self._why_not(i, tag, request, live, datastore))}
        todo = [i for i in images if i not in replies]

        started = time.monotonic()
        outcomes = self._labelled(todo, name, tag, live, torch.device(device), datastore)
        for image, outcome in track(outcomes, "Pre-labelling", len(todo), say=logger.info):
            replies[image] = outcome
        seconds = time.monotonic() - started
        counts = {k: sum(k in r for r in replies.values()) for k in ("label", "skipped", "error")}
        logger.info("Pre-labelling ended after %.2f s: %s", seconds, counts)
        return {"images": replies, **counts, "seconds": round(seconds, 2), "model_version": live.checkpoint.version}

    def _labelled(
        self, images: Sequence[str], name: str, tag: str, live: LiveModel, device: torch.device, datastore: Datastore
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        spec = live.checkpoint.spec

        def load(image: str) -> Case:
            return load_case(datastore.get_image_uri(image), None, spec.data, spec.network.classes)

        def segment(case: Case) -> tuple[Case, Prediction]:
            return case, predict_in_memory(live.network.teacher, case, spec.data, device)[0]

        def write(image: str, result: tuple[Case, Prediction]) -> dict[str, Any]:
            case, prediction = result
            mask, words = described(live, prediction)
            params = {**words, "label_names": dict(spec.labels)}
            with tempfile.TemporaryDirectory() as folder:
                file = write_mask(mask, case.affine, Path(folder))
                # the model's own mask lies on the grid of its image, in class indices: nothing to check
                found = {label: spec.labels[label] for label in words["found"]}
                datastore.keep_label(image, file, tag, found, {"model": name, "params": params})
            return {"label": image, "params": params}

        if device.type == "cpu":
            outcomes = side_by_side(images, lambda image: write(image, segment(load(image))))
        else:
            outcomes = overlapped(images, load, segment, write, _READERS, _AHEAD)
        for image, outcome in outcomes:
            if isinstance(outcome, Exception):
                logger.warning("Not pre-labelled: %s: %s", hashed_name(image), nameless(outcome))
                yield image, {"error": _sentence(outcome)}
            else:
                yield image, outcome

    def _why_not(
        self, image: str, tag: str, request: Mapping[str, Any], live: LiveModel, datastore: Datastore
    ) -> str | None:
        """Why an image is left alone, or None."""
        if request.get("overwrite") or tag not in datastore.get_labels_by_image_id(image):
            return None
        version = (datastore.get_label_info(image, tag).get("params") or {}).get("model_version")
        if version is None:
            return "there is a draft by a person or another program"
        return "the draft is up to date" if version == live.checkpoint.version else None


def side_by_side(items: Iterable[Item], work: Callable[[Item], Any]) -> Iterator[tuple[Item, Any]]:
    """Run `work` on several items at once, each on its share of PyTorch's threads: cores that need not wait for each other.

    Yields:
        Each item, in order, with the result or the exception, as `overlapped` does.
    """
    threads = torch.get_num_threads()
    workers = min(_WORKERS, threads)
    source, doing = iter(items), deque[tuple[Item, Future]]()
    torch.set_num_threads(threads // workers)
    try:
        with ThreadPoolExecutor(workers, "segment") as pool:
            for item in source:
                doing.append((item, pool.submit(work, item)))
                if len(doing) > 2 * workers:
                    yield _finished(*doing.popleft())
            while doing:
                yield _finished(*doing.popleft())
    finally:
        torch.set_num_threads(threads)


def overlapped(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    work: Callable[[Loaded], Result],
    write: Callable[[Item, Result], Any],
    readers: int,
    ahead: int,
) -> Iterator[tuple[Item, Any]]:
    """Run `load` in `readers` threads, `work` in the caller's and `write` in another, each on a different item at a time.

    At most `ahead` items are loaded and at most as many wait to be written.

    Yields:
        Each item, in order, with what `write` returned, or with the `CaseError`, `HTTPException`, `OSError` or
        `torch.OutOfMemoryError` that one of the three raised; any other exception ends the run.
    """
    source = iter(items)
    loading: deque[tuple[Item, Future]] = deque()
    writing: deque[tuple[Item, Future]] = deque()
    with ThreadPoolExecutor(readers, "load") as readers_pool, ThreadPoolExecutor(1, "write") as writer:

        def refill() -> None:
            while len(loading) < ahead and (item := next(source, _END)) is not _END:
                loading.append((item, readers_pool.submit(load, item)))

        refill()
        while loading:
            item, future = loading.popleft()
            refill()
            done = future if _failed(future) else _outcome(work, future.result())
            writing.append((item, done if _failed(done) else writer.submit(write, item, done.result())))
            if len(writing) > ahead:
                yield _finished(*writing.popleft())
        while writing:
            yield _finished(*writing.popleft())


def write_mask(mask: Tensor, affine: np.ndarray | None, folder: Path) -> Path:
    """A label map `*native` uint8 as PNG (without affine; columns, rows as MONAI reads it) or compressed NIfTI in `folder`."""
    if affine is None:
        path = folder / "mask.png"
        Image.fromarray(mask.T.contiguous().numpy()).save(path, compress_level=1)  # a mask is small at any level
        return path
    path = folder / "mask.nii.gz"
    nib.save(nib.Nifti1Image(mask.numpy(), affine), path)
    return path


_END: Any = object()
_EXPECTED = (CaseError, HTTPException, OSError, torch.OutOfMemoryError)


def _outcome(work: Callable[[Loaded], Result], loaded: Loaded) -> Future:
    """What `work` returned, or one of the expected exceptions, as if another thread had done it."""
    done: Future = Future()
    try:
        done.set_result(work(loaded))
    except _EXPECTED as e:
        done.set_exception(e)
    return done


def _failed(future: Future) -> bool:
    return isinstance(future.exception(), _EXPECTED)


def _finished(item: Item, future: Future) -> tuple[Item, Any]:
    error = future.exception()
    if error is None:
        return item, future.result()
    if isinstance(error, _EXPECTED):
        return item, error
    raise error


def _sentence(error: Exception) -> str:
    return str(error.detail) if isinstance(error, HTTPException) else str(error)
