"""Pictures of the studies, drawn in the background, kept on disk by what they show: a study, its label and a model version."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import torch
from fastapi import HTTPException

from lib.core.cache import CaseCache
from lib.core.cases import Case, load_case
from lib.core.images import CaseError
from lib.core.spec import TaskSpec
from lib.server.page.desk import Desk
from lib.server.page.drawing import draw
from lib.server.page.models import Layer
from lib.server.page.worker import Worker
from lib.studies import image_of

FOLDER = "page"
"""In the folder of the project; may be deleted at any time."""
_CACHE_BYTES = 256 * 2**20
_RECENT = 64
"""Studies whose layers stay in memory, also when the disk takes nothing."""
_REMEMBER_S = 60.0
"""A study that could not be drawn is tried again after this time."""
_PLAIN, _DRAWN = "plain", "drawn"
_WAITING = {_PLAIN: 200, _DRAWN: 96}


class Drawings:
    """Layers of the studies by image, without a forward pass in any request.

    A mark names what a picture shows. Of a volume it also names the slice: as long as the model has not looked at it the
    middle one, then the one in which the model found most. So layers of one mark always lie on each other.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._cache = CaseCache(desk.project.folder / FOLDER, _CACHE_BYTES)
        self._workers = {
            _PLAIN: Worker("loco-pictures", 2, _WAITING[_PLAIN], remember_s=_REMEMBER_S),
            _DRAWN: Worker("loco-contours", 1, _WAITING[_DRAWN], self._drawn, _REMEMBER_S),
        }
        self._recent: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.count = 0
        """Volumes that the model was drawn into since the start."""

    @property
    def _flat(self) -> bool:
        return self._desk.model == "frame"

    def mark(self, image: str) -> str:
        """What a picture of the study would show now."""
        live = self._version()
        drawn = self._desk.mark(image, live)
        return drawn if not live or self._flat or self._has(drawn) else self._desk.mark(image, 0)

    def layer(self, image: str, layer: Layer, mark: str) -> bytes | None:
        """One layer as a file, empty when there is nothing in it; None while it is being drawn.

        Raises:
            HTTPException: 422, the study cannot be drawn; the message says why.
        """
        live = self._version()
        drawn = self._desk.mark(image, live)
        older = not self._flat and mark != drawn
        if live and layer in ("contour", "band"):
            found = self._kept(_DRAWN, image, drawn)
            return None if older or found is None else found[layer]
        if layer in ("contour", "band"):
            return b""
        if live and not older and self._has(drawn):
            found = self._kept(_DRAWN, image, drawn)
            return None if found is None else found[layer]
        found = self._kept(_PLAIN, image, self._desk.mark(image, 0))
        return None if found is None else found[layer]

    def _kept(self, kind: str, image: str, mark: str) -> dict[str, bytes] | None:
        layers = self._known(mark)
        if layers is not None:
            return layers
        worker = self._workers[kind]
        failure = worker.failure(mark)
        if failure is not None:
            raise HTTPException(422, failure)
        worker.ask(mark, lambda: self._draw(kind, image, mark))
        return None

    def _draw(self, kind: str, image: str, mark: str) -> None:
        desk = self._desk
        file = image_of(desk.studies, image) if desk.studies.at_hand(image) else ""
        if not file:
            raise CaseError(image, "expected a file of this study, but it cannot be had now; try again later")
        prediction, spec = None, desk.spec
        if kind == _DRAWN:
            case, prediction, live = desk.segmentation.look(file)
            if desk.mark(image, live.checkpoint.version) != mark:
                return
            spec = live.checkpoint.spec
        else:
            case = load_case(file, None, spec.data, spec.network.classes)
        layers = draw(_with_label(case, file, desk.label_file(image), spec), prediction, spec.labels, self._flat)
        self._remember(mark, layers)
        tensors = {
            name: torch.from_numpy(np.frombuffer(layer, dtype=np.uint8).copy()) for name, layer in layers.items()
        }
        self._cache.put(mark, tensors)

    def _has(self, mark: str) -> bool:
        return mark in self._recent or mark in self._cache

    def _known(self, mark: str) -> dict[str, bytes] | None:
        with self._lock:
            if mark in self._recent:
                self._recent.move_to_end(mark)
                return self._recent[mark]
        item = self._cache.get(mark)
        if item is None:
            return None
        layers = {name: tensor.numpy().tobytes() for name, tensor in item.items()}
        self._remember(mark, layers)
        return layers

    def _remember(self, mark: str, layers: dict[str, bytes]) -> None:
        with self._lock:
            self._recent[mark] = layers
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

    def _drawn(self) -> None:
        if not self._flat:  # the slice of a volume may be another one now
            self.count += 1

    def _version(self) -> int:
        live = self._desk.journal.live_version(self._desk.model)
        return live.version if live is not None and self._desk.folder.live.exists() else 0


def _with_label(case: Case, file: str, label: str | None, spec: TaskSpec) -> Case:
    """The case with the label of its study; without one that cannot be read, which does not stop the picture."""
    if label is None:
        return case
    try:
        labelled = load_case(file, label, spec.data, spec.network.classes, keep_native=True)
    except CaseError:
        return case
    return replace(case, label=labelled.label, native_label=labelled.native_label)
