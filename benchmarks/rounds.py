"""Active learning with an oracle: train, look at the pool, choose, label, go on; the app's own training and selection."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.datasets import Studies, choose_groups, studies_showing, studies_with
from benchmarks.experiment import Laboratory
from benchmarks.masks import read_mask
from benchmarks.metrics import CaseScore, border_length, score_cases

from lib.core.areas import median_areas
from lib.core.cases import Record, load_case
from lib.core.checkpoint import Checkpoint, restore_network
from lib.core.dropout import dropout_passes
from lib.core.lowcontrast import field_of_view, score_image
from lib.core.policies import make_policy
from lib.core.pool import Pool, Situation, make_pool
from lib.core.predict import likeliest, predict
from lib.core.select import choose_batch
from lib.core.spec import TaskSpec
from lib.core.uncertainty import epistemic_entropy

MC_DROPOUT = "mc_dropout"


@dataclass(frozen=True)
class Plan:
    """`start` patients are labelled at first, `query` images in each of `rounds` rounds."""

    start: int
    query: int
    rounds: int
    control: float

    @property
    def budget(self) -> int:
        """Images that are chosen in all."""
        return self.query * self.rounds


class Oracle:
    """What a tireless annotator knows of the pool: true labels, their classes and the length of their borders."""

    def __init__(self, pool: Sequence[Record], spec: TaskSpec) -> None:
        self._records, self._spec = {r.id: r for r in pool}, spec
        self._names = {index: name for name, index in spec.labels.items()}
        self._two_classes = spec.network.classes == 2
        self._known: dict[str, tuple[tuple[str, ...], int]] = {}

    def classes(self, image: str) -> tuple[str, ...]:
        """Names of the classes in an image."""
        return self._look(image)[0]

    def border(self, image: str) -> int:
        """Pixels of border to draw."""
        return self._look(image)[1]

    def areas(self, images: Sequence[str]) -> dict[str, float]:
        """Median share of the field of view that each class fills, over the images that contain it."""
        return median_areas([self._records[i] for i in images], self._spec.data, self._spec.labels)

    def _look(self, image: str) -> tuple[tuple[str, ...], int]:
        if image not in self._known:
            mask = self._mask(image)
            found = tuple(self._names[i] for i in np.unique(mask).tolist() if i in self._names)
            self._known[image] = found, border_length(mask)
        return self._known[image]

    def _mask(self, image: str) -> np.ndarray:
        mask = read_mask(Path(self._records[image].label))
        return (mask > 0).astype(np.uint8) if self._two_classes else mask


def run_arm(
    strategy: str,
    spec: TaskSpec,
    plan: Plan,
    pool: Sequence[Record],
    val: Sequence[Record],
    device: str,
    first_model: Path,
    advance: Callable[..., None] = lambda count=1: None,
) -> list[dict[str, Any]]:
    """All rounds of one strategy with the seed of `spec`; one entry per model, the first before anything was chosen.

    `first_model`: file of the model of the first labels, the same for all strategies of a seed; made when missing.
    `advance`: called with the number of optimiser steps that are done.
    """
    rng = np.random.default_rng([spec.training.seed, 40])
    oracle = Oracle(pool, spec)
    labelled = first_studies(pool, plan.start, spec.training.seed).get_labeled_images()
    laboratory = Laboratory(sorted({r.group for r in pool}), device, lambda: advance(1))
    if first_model.exists():
        advance(spec.training.iterations)
    entries, drawn = [], 0
    try:
        checkpoint, seconds = first_checkpoint(laboratory, spec, pool, labelled, first_model)
        for number in range(plan.rounds + 1):
            measured = score_cases(teacher_of(checkpoint, laboratory.device), val, spec, laboratory.device)
            entry = {"labelled": len(labelled), "border": drawn, "train_seconds": round(seconds, 1)}
            entries.append({**entry, "cases": {k: _rounded(v) for k, v in measured.items()}})
            if number == plan.rounds:
                break
            started = time.perf_counter()
            seen = look_at(checkpoint, spec, pool, oracle.areas(labelled), laboratory.device, strategy == MC_DROPOUT)
            situation = _situation(seen, labelled, number / plan.rounds, oracle)
            policy = make_policy(strategy, seen, situation.free)
            choices = choose_batch(policy, situation, rng, plan.query, plan.control)
            entries[-1]["look_seconds"] = round(time.perf_counter() - started, 1)
            entries[-1]["chosen"] = {c.image: c.kind for c in choices}
            labelled += [c.image for c in choices]
            drawn += sum(oracle.border(c.image) for c in choices)
            checkpoint, seconds, _ = laboratory.train(spec, studies_showing(pool, labelled), go_on=True)
        return entries
    finally:
        laboratory.close()


def look_at(
    checkpoint: Checkpoint,
    spec: TaskSpec,
    pool: Sequence[Record],
    areas: Mapping[str, float],
    device: torch.device,
    with_dropout: bool = False,
) -> Pool:
    """What a model says of all images of the pool, as the app's scoring pass asks it."""
    teacher = teacher_of(checkpoint, device)
    thresholds = torch.tensor(
        checkpoint.thresholds or [checkpoint.spec.method.confidence.cap] * spec.network.classes, dtype=torch.float32
    )
    terms, embeddings = [], []
    for record in pool:
        case = load_case(record.image, None, spec.data, spec.network.classes)
        prediction = predict(teacher, case, spec.data, device, with_projection=True)
        field = field_of_view(case.image, spec.data.kind == "frame")
        score = score_image(prediction, thresholds, spec.labels, areas, field)
        extra = {}
        if with_dropout:
            passes = dropout_passes(teacher, case, spec.data, device)
            extra["image/epistemic"] = float(epistemic_entropy(passes).mean())
        terms.append(score.terms() | extra)
        embeddings.append(score.embedding)
    return make_pool([r.id for r in pool], terms, embeddings, [r.group for r in pool])


def first_studies(pool: Sequence[Record], start: int, seed: int) -> Studies:
    """The labels that every strategy of a seed starts from."""
    return studies_with(pool, choose_groups(pool, start, seed))


def first_checkpoint(
    laboratory: Laboratory, spec: TaskSpec, pool: Sequence[Record], labelled: Sequence[str], file: Path
) -> tuple[Checkpoint, float]:
    """The model of the first labels, from `file` or trained and kept there, and the seconds that took (0 from the file)."""
    live = laboratory.project.model(spec.data.kind).live
    if file.exists():
        shutil.copyfile(file, live)
        return laboratory.live(spec), 0.0
    checkpoint, seconds, _ = laboratory.train(spec, studies_showing(pool, labelled))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    shutil.copyfile(live, part)
    part.replace(file)
    return checkpoint, seconds


def predicted_areas(
    teacher: torch.nn.Module, records: Sequence[Record], spec: TaskSpec, device: torch.device
) -> dict[str, float]:
    """Share of the image that is predicted as foreground, by id."""
    areas = {}
    for record in records:
        case = load_case(record.image, None, spec.data, spec.network.classes)
        areas[record.id] = float((likeliest(predict(teacher, case, spec.data, device).probs) > 0).float().mean())
    return areas


def teacher_of(checkpoint: Checkpoint, device: torch.device) -> torch.nn.Module:
    """The network that serves, in evaluation mode."""
    return restore_network(checkpoint).to(device).eval().teacher


def _situation(seen: Pool, labelled: Sequence[str], progress: float, oracle: Oracle) -> Situation:
    done = np.isin(np.asarray(seen.images), list(labelled))
    counts: dict[str, int] = {}
    for image in labelled:
        for name in oracle.classes(image):
            counts[name] = counts.get(name, 0) + 1
    return Situation(free=~done, seen=done, progress=progress, labelled=counts, labels=len(labelled))


def _rounded(score: CaseScore) -> dict[str, float]:
    return {"dice": round(score.dice, 4), "hd95": round(score.hd95, 2), "missed": score.missed}
