"""Choosing the next image by any policy: what a choice is, the share of blind controls, several in turn.

A policy is built once from a pool, which ranks it, and then chooses from a situation in a few milliseconds. All chance
comes from the generator passed in: the same seed gives the same choice. The app's own policy is in `lowcontrast_policy.py`,
the rivals in `rivals.py`, the policy before there is a model in `coverage.py`, all of them by name in `policies.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from lib.core.pool import Pool, Situation

CONTROL_SHARE = 0.1
OFFERED = 10
"""How many a policy returns: the first is served, the others stand by in case somebody takes it at the same moment."""


@dataclass(frozen=True)
class Choice:
    """An image, why it was chosen in plain words, and the numbers behind that.

    `kind`: low contrast, possible miss, variety, coverage, uncertainty, random, random control, poor image or
    skipped. `detail`: turn, queue, rank and the like, for those who want to replay it.
    """

    image: str
    reason: str
    kind: str
    stratum: str = ""
    terms: Mapping[str, float] = field(default_factory=dict)
    score: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Where each of N images stands for a policy, without the chance that is in its choices.

    `key`: N float, the higher the sooner, NaN for images that are not ranked. `which`: N int, place in `strata` of the
    stratum to which an image belongs, -1 for those that are not ranked.
    """

    key: np.ndarray
    strata: tuple[str, ...]
    which: np.ndarray


class Ranked(Protocol):
    """A policy that can say of every image where it stands and why."""

    pool: Pool

    def ranking(self, situation: Situation) -> Ranking:
        """Where all images stand."""
        ...

    def explained(self, index: int, situation: Situation) -> Choice:
        """Why the image at a place of the pool is where it is."""
        ...


class Policy(Protocol):
    """A way to choose, built from a pool."""

    pool: Pool

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Up to `OFFERED` free images, best first; empty only when none is free."""
        ...


def next_images(
    policy: Policy, situation: Situation, rng: np.random.Generator, control_share: float = CONTROL_SHARE
) -> list[Choice]:
    """The policy's choice, or in a share of the calls a random control: drawn blindly among all free images, and tagged.

    Returns:
        Up to `OFFERED` free images, the one to serve first; empty when none is free.
    """
    if not 0.0 <= control_share <= 1.0:
        raise ValueError(f"expected control_share to be in [0, 1], but got {control_share}; 0.1 means every tenth call")
    is_control = rng.random() < control_share
    free = np.flatnonzero(situation.free)
    if len(free) == 0:
        return []
    if not is_control:
        return policy.choose(situation, rng)
    drawn = rng.choice(free, size=min(OFFERED, len(free)), replace=False)
    reason = "random control: drawn blindly, to measure what choosing brings"
    return [Choice(policy.pool.images[i], reason, "random control") for i in drawn]


def choose_batch(
    policy: Policy, situation: Situation, rng: np.random.Generator, count: int, control_share: float = CONTROL_SHARE
) -> list[Choice]:
    """Up to `count` images in turn, each seen by the choices after it, as annotators would be served."""
    places = {image: i for i, image in enumerate(policy.pool.images)}
    chosen: list[Choice] = []
    free, seen = situation.free.copy(), situation.seen.copy()
    while len(chosen) < count and (
        found := next_images(policy, replace(situation, free=free, seen=seen), rng, control_share)
    ):
        chosen.append(found[0])
        place = places[found[0].image]
        free[place], seen[place] = False, True
    return chosen


def percent(share: float) -> str:
    """A share in [0, 1] for a sentence, e.g. 63 %."""
    return f"{100 * share:.0f} %"
