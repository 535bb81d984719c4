"""How numbers of ours are compared with recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.teacher import StudentTeacher

VALUE, GRADIENT, EXACT, AVERAGE = 1e-4, 1e-3, 0.0, 1e-6
"""Tolerances: relative for losses, of the largest entry for gradients, none for labels, absolute for averaged weights."""

Arrays = Mapping[str, np.ndarray]
Errors = dict[str, tuple[float, float]]
"""Quantity to (error, tolerance)."""
Check = Callable[[Arrays], Errors]


def numbers(got: Tensor | np.ndarray | float) -> np.ndarray:
    """Anything with numbers as a float64 array."""
    return (got.detach().cpu().numpy() if isinstance(got, Tensor) else np.asarray(got)).astype(np.float64)


def of_maximum(got: Tensor | np.ndarray | float, recorded: np.ndarray) -> float:
    """Largest deviation as a share of the largest recorded magnitude (of 1 where all are 0)."""
    recorded = recorded.astype(np.float64)
    return float(np.abs(numbers(got) - recorded).max() / (np.abs(recorded).max() or 1.0))


def value(got: Tensor | np.ndarray | float, recorded: np.ndarray) -> tuple[float, float]:
    """A loss, or an array of numbers alike."""
    return of_maximum(got, recorded), VALUE


def gradient(got: Tensor, recorded: np.ndarray) -> tuple[float, float]:
    """A gradient."""
    return of_maximum(got, recorded), GRADIENT


def exact(got: Tensor | np.ndarray | float, recorded: np.ndarray) -> tuple[float, float]:
    """Labels, masks, mixtures: the share of entries that differ; all of them when the shapes do."""
    got, recorded = numbers(got), recorded.astype(np.float64)
    return (float((got != recorded).mean()) if got.shape == recorded.shape else 1.0), EXACT


def tensor(case: Arrays, name: str, *, grad: bool = False) -> Tensor:
    """A recorded array as a tensor; floats as float32, with a gradient if asked for."""
    found = torch.from_numpy(np.array(case[name]))
    found = found.float() if found.is_floating_point() else found
    return found.requires_grad_() if grad else found


def state(case: Arrays, prefix: str) -> dict[str, Tensor]:
    """The recorded state of a network of one convolution and one normalisation, by entry."""
    return {k.removeprefix(prefix): tensor(case, k) for k in case if k.startswith(prefix)}


def check_average(
    case: Arrays, names: tuple[str, str, str], step: int, *, warm: bool, buffers: bool
) -> tuple[float, float]:
    """One update of the teacher; `names` begin the student's, the earlier and the later teacher's entries.

    Without `buffers` only the weights are compared: there the published teacher keeps statistics of its own.
    """
    student, before, after = (state(case, name) for name in names)
    dims = student["0.weight"].shape
    network = nn.Sequential(nn.Conv2d(dims[1], dims[0], 1), nn.BatchNorm2d(dims[0]))
    pair = StudentTeacher(network)
    pair.student.load_state_dict(student, strict=False)
    pair.teacher.load_state_dict(before, strict=False)
    pair.update_teacher(step, float(case["momentum"]), warm=warm)
    got = pair.teacher.state_dict()
    compared = [k for k in after if "tracked" not in k and (buffers or "running" not in k)]
    return max(float((got[k] - after[k]).abs().max()) for k in compared), AVERAGE
