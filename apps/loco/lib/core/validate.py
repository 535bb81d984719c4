"""Dice of a model on the validation cases, on the voxels of the images, and the rule that lets a model go live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import Tensor, nn

from lib.core.cases import Case, Record, load_case
from lib.core.images import CaseError
from lib.core.losses import one_hot
from lib.core.predict import Prediction, predict
from lib.core.spec import DataSpec

logger = logging.getLogger(__name__)

MIN_CASES = 3
"""Fewer validation cases than this cannot tell two models apart."""


@dataclass(frozen=True)
class Validation:
    """Dice per case and class (background left out), each in [0, 1]."""

    cases: Mapping[str, Mapping[str, float]]

    @property
    def mean_dice(self) -> float | None:
        """Mean over cases and classes; None without cases."""
        values = [d for case in self.cases.values() for d in case.values()]
        return float(np.mean(values)) if values else None

    def on(self, cases: Collection[str]) -> Validation:
        """Of some cases alone."""
        return Validation({name: dice for name, dice in self.cases.items() if name in cases})

    @property
    def per_class(self) -> dict[str, float]:
        """Mean over cases, by class name."""
        names = next(iter(self.cases.values()), {})
        return {n: float(np.mean([case[n] for case in self.cases.values()])) for n in names}


def dice_per_class(prediction: Tensor, truth: Tensor, labels: Mapping[str, int]) -> dict[str, float]:
    """Dice of two label maps `*S` (integers), by class name; a class absent from both counts 1, from one only 0."""
    classes = max(labels.values()) + 1
    dice = compute_dice(
        one_hot(prediction[None], classes), one_hot(truth[None], classes), include_background=True, ignore_empty=False
    )[0]
    return {name: float(dice[index]) for name, index in labels.items()}


Seen = Callable[[Record, Case, Prediction], None]


def validate(
    network: nn.Module,
    records: Sequence[Record],
    data: DataSpec,
    labels: Mapping[str, int],
    device: torch.device,
    seen: Seen | None = None,
) -> Validation:
    """Predict each labelled record and compare on the image's own voxels.

    Args:
        network: in evaluation mode.
        records: a record that cannot be read is left out, with a warning that names the file.
        data: the specification the network was trained with.
        labels: class index by name.
        device: where the network is.
        seen: called with each case and its prediction.
    """
    cases: dict[str, dict[str, float]] = {}
    for record in records:
        try:
            case = load_case(record.image, record.label, data, max(labels.values()) + 1, keep_native=True)
        except CaseError as e:
            logger.warning("Left out of validation: %s", e)
            continue
        predicted = predict(network, case, data, device)
        if seen is not None:
            seen(record, case, predicted)
        prediction = predicted.native_label()
        truth = case.native_label.reshape(prediction.shape)
        cases[record.id] = dice_per_class(prediction, truth.to(torch.uint8), labels)
    return Validation(cases)


def as_good_as(later: Validation, best: Validation) -> bool:
    """Whether a later state of a run may be as good as its best one, as far as their common cases can tell.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3) on the paired
    differences of the mean Dice per case. As the rate falls, the later state is expected to be the better one, and a few
    cases that say otherwise by a hair are no reason to publish what a run was at its beginning. Fewer than `MIN_CASES` tell
    nothing.
    """
    names = [name for name in best.cases if name in later.cases]
    if len(names) < MIN_CASES:
        return True
    lost = np.array([_mean(best.cases[name]) - _mean(later.cases[name]) for name in names])
    return float(lost.mean()) <= float(lost.std(ddof=1)) / len(names) ** 0.5


def _mean(dice: Mapping[str, float]) -> float:
    return float(np.mean(list(dice.values())))


def goes_live(candidate: Validation, live: Validation | None) -> tuple[bool, str]:
    """Whether a new model replaces the live one, and the reason in words. They are compared on the cases of both."""
    if live is None:
        return True, "first model of its kind"
    candidate, live = candidate.on(live.cases), live.on(candidate.cases)
    count = len(candidate.cases)
    if count < MIN_CASES:
        return True, f"newest model goes live: {count} validation cases cannot tell models apart (at least {MIN_CASES})"
    new, old = candidate.mean_dice, live.mean_dice
    if new >= old:
        return True, f"Dice {new:.3f} against {old:.3f} of the live model on the same {count} cases"
    return False, f"kept the live model: Dice {new:.3f} against its {old:.3f} on the same {count} cases"
