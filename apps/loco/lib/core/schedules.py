"""Step-dependent weights as pure functions; steps count from 0."""

from __future__ import annotations

import math


def sigmoid_rampup(step: float, length: float) -> float:
    """`exp(-5 (1 - min(step, length) / length)^2)`: 0.0067 at 0, 1 from `length` on (Tarvainen & Valpola 2017).

    >>> sigmoid_rampup(10, 10), round(sigmoid_rampup(0, 10), 4)
    (1.0, 0.0067)
    """
    if length <= 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(max(step, 0.0), length) / length) ** 2)


def poly(step: int, total: int, power: float) -> float:
    """`(1 - step / total)^power`, the factor on the first learning rate; 0 from `total` on.

    >>> poly(0, 100, 0.9), poly(100, 100, 0.9)
    (1.0, 0.0)
    """
    return max(0.0, 1.0 - step / total) ** power if total > 0 else 0.0


def run_momentum(momentum: float, memory: float, total: int) -> float:
    """Momentum of a running mean that remembers `1 / (1 - momentum)` steps, at most the share `memory` of a run of `total`.

    With `memory` 0 it is `momentum` in any run.

    >>> run_momentum(0.999, 0.02, 52_000), round(run_momentum(0.999, 0.02, 300), 3), run_momentum(0.999, 0.02, 10)
    (0.999, 0.833, 0.0)
    >>> run_momentum(0.999, 0, 10)
    0.999
    """
    return min(momentum, 1.0 - 1.0 / max(1.0, memory * total)) if memory > 0 else momentum


def warm_decay(step: int, decay: float) -> float:
    """EMA decay `min(1 - 1 / (step + 1), decay)`: 0 at the first step, so that the teacher starts as the student.

    >>> warm_decay(0, 0.99), warm_decay(1, 0.99), warm_decay(10000, 0.99)
    (0.0, 0.5, 0.99)
    """
    return min(1.0 - 1.0 / (step + 1), decay)
