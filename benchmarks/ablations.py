"""Variants for `label_efficiency.py --ablate`: values of the specification that differ from its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADAMW = {
    "training.optimizer": "adamw",
    "training.learning_rate": 1e-3,
    "training.weight_decay": 1e-2,
    "training.encoder_rate": 1.0,
}
"""The optimiser of short runs in 2D, for volumes."""


def of_method(name: str, **shared: Any) -> dict[str, Any]:
    """Another method than LoCo, with some of the numbers that methods share."""
    return {"method.name": name, **{f"method.{key}": value for key, value in shared.items()}}


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "loco": {},
    "no ICE": {"method.contrast.ice": False},
    "no BCE": {"method.contrast.bce": False},
    "no contrast": {"method.contrast_weight": 0.0},
    "BCE most similar": {"method.contrast.bce_keep": "most_similar"},
    "fixed threshold 0.95": {"method.confidence.adaptive": False},
    "contrast weight 0.3": {"method.contrast_weight": 0.3},
    "unsupervised weight 1": {"method.unsup_weight": 1.0},
    "no CutMix": {"method.cutmix_probability": 0.0},
    "EMA 0.99": {"training.ema_decay": 0.99},
    "half the learning rate": {"training.learning_rate": 5e-4},
    "constant rate": {"training.poly_power": 0.0},
    "AdamW": ADAMW,
    "rate 3e-2": {"training.learning_rate": 3e-2},
    "published loss on labels: CE": {"method.labelled_loss": "own"},
    "batch statistics joint, as published": {"method.batch_statistics": "joint"},
    "momentum of the thresholds as published": {"method.confidence.memory": 0.0},
    "both as published": {"method.batch_statistics": "joint", "method.confidence.memory": 0.0},
    "CE + Dice over the batch": {"method.labelled_loss": "ce_dice"},
    "Dice of each image alone": {"method.labelled_loss": "image_dice"},
    "supervised": of_method("supervised"),
    "supervised, AdamW": {**of_method("supervised"), **ADAMW},
    "supervised, rate 3e-2": {**of_method("supervised"), "training.learning_rate": 3e-2},
    "supervised, published loss: CE + Dice over the batch": of_method("supervised", labelled_loss="own"),
    "supervised, CE": of_method("supervised", labelled_loss="ce"),
    "supervised, Dice of each image alone": of_method("supervised", labelled_loss="image_dice"),
    "lpc": of_method("lpc"),
    "lpc, no contrast": {**of_method("lpc"), "method.lpc.contrast_weight": 0.0},
    "bcp": of_method("bcp"),
    "bcp, published loss": of_method("bcp", labelled_loss="own"),
    "bcp, first stage alone": {**of_method("bcp"), "method.bcp.pretraining": 1.0},
    "bcp, no loss on unlabelled": {**of_method("bcp"), "method.bcp.unsup_weight": 0.0},
    "bcp, 4 times the steps": {**of_method("bcp"), "training.epochs": 4},
}
"""Of LoCo; and of other methods, where it is looked into why they are ahead of it or behind."""
