"""The strategies that the low-contrast score is measured against, on the same pool and the same teacher pass.

Random, foreground-aware random (arXiv 2511.19183, at image level and from predictions alone), the mean of an uncertainty,
ClaSP PE at image level (arXiv 2601.13677), the foreground/background cosine of ISBI 2024 (arXiv 2403.14350), coverage.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.core.draws import by_falling, farthest_first, gumbel, smallest, some
from lib.core.lowcontrast_policy import CLASS_SHARE, SHORTLIST
from lib.core.pool import Pool, Situation, spread_over_groups
from lib.core.select import OFFERED, Choice
from lib.core.uncertainty import FIRST_BETA, LAST_BETA, power_key


class RandomPolicy:
    """Uniformly random."""

    def __init__(self, pool: Pool, ranked: np.ndarray | None = None) -> None:
        self.pool = pool

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """A few free images, drawn blindly."""
        drawn = _draw(situation.free, rng)
        return [Choice(self.pool.images[i], "random: drawn blindly", "random") for i in drawn]


class ForegroundRandomPolicy:
    """A third uniform, a third with a class predicted (classes in equal shares), a third with a long predicted border."""

    def __init__(self, pool: Pool, ranked: np.ndarray | None = None) -> None:
        self.pool = pool
        names = [(name, pool.stratum(f"{name}/present").get("margin")) for name in pool.classes]
        self._contains = [(name, np.isfinite(column)) for name, column in names if column is not None]
        border = pool.stratum("image").get("border", np.zeros(len(pool)))
        self._long = border > np.nanmedian(border) if np.isfinite(border).any() else np.zeros(len(pool), dtype=bool)

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Free images of the third whose turn it is, drawn blindly; of all when it has none."""
        third, drawn = int(rng.integers(3)), rng.random()
        wanted, why = np.ones(len(self.pool), dtype=bool), "anywhere"
        if third == 1 and self._contains:
            name, wanted = self._contains[int(drawn * len(self._contains))]
            why = f"among images with a predicted {name}"
        elif third == 2:
            wanted, why = self._long, "among images with a long predicted border"
        if not (wanted & situation.free).any():
            wanted, why = situation.free, "anywhere"
        chosen = _draw(wanted & situation.free, rng)
        return [Choice(self.pool.images[i], f"foreground-aware random: drawn {why}", "random") for i in chosen]


class TermPolicy:
    """The highest value of one term of the image first; with `diverse`, of the best the one least like what was seen."""

    def __init__(
        self, pool: Pool, ranked: np.ndarray | None = None, *, term: str, words: str, diverse: bool = False
    ) -> None:
        self.pool, self._term, self._words, self._diverse = pool, term, words, diverse
        self._score = pool.terms.get(f"image/{term}", np.full(len(pool), np.nan, dtype=np.float32))
        self._order = by_falling(np.nan_to_num(self._score), np.flatnonzero(np.isfinite(self._score)))

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Free images by falling score, those without one at random after them."""
        allowed = spread_over_groups(situation.free, situation.seen, self.pool.groups)
        members = self._order[allowed[self._order]]
        if len(members) == 0:
            return RandomPolicy(self.pool).choose(situation, rng)
        best = members[: max(1, min(SHORTLIST, len(members) // 4 if self._diverse else SHORTLIST))]
        if self._diverse:
            best = best[farthest_first(self.pool.embeddings, best, situation.seen)]
        return [self._choice(int(i)) for i in best[:OFFERED]]

    def _choice(self, i: int) -> Choice:
        score = float(self._score[i])
        return Choice(
            self.pool.images[i], f"{self._words} ({score:.3f})", "uncertainty", "image", {self._term: score}, score
        )


class ClaspPolicy:
    """ClaSP PE with one model and the image as unit: 66 % of turns by a class's own entropy, the others by the plain one.

    Power noise on the values, its sharpness from 1 to 100 over the budget.
    """

    def __init__(self, pool: Pool, ranked: np.ndarray | None = None) -> None:
        self.pool = pool
        columns = pool.stratum("image")
        self._plain = np.nan_to_num(columns.get("clasp", np.zeros(len(pool))))
        self._classes = {
            name: np.nan_to_num(columns[f"clasp {name}"]) for name in pool.classes if f"clasp {name}" in columns
        }

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Free images by noisy entropy."""
        names = list(self._classes)
        by_class, drawn = rng.random() < CLASS_SHARE, rng.random()
        name = names[int(drawn * len(names))] if by_class and names else ""
        score = self._classes[name] if name else self._plain
        beta = FIRST_BETA * (LAST_BETA / FIRST_BETA) ** float(np.clip(situation.progress, 0.0, 1.0))
        members = np.flatnonzero(spread_over_groups(situation.free, situation.seen, self.pool.groups))
        best = members[smallest(-power_key(score[members], gumbel(len(members), rng, beta)), OFFERED)]
        what = f"predicted {name}" if name else "whole image"
        return [
            Choice(
                self.pool.images[i],
                f"entropy of the {what} in its most uncertain window ({score[i]:.3f})",
                "uncertainty",
                "image",
                {f"clasp {name}".strip(): float(score[i])},
                float(score[i]),
                {"turn": name or "any class", "beta": round(beta, 3)},
            )
            for i in best
        ]


class CoveragePolicy:
    """The image least like all that was seen, in the features of the model (k-center); the most central one first of all."""

    def __init__(self, pool: Pool, ranked: np.ndarray | None = None) -> None:
        self.pool = pool

    def choose(self, situation: Situation, rng: np.random.Generator) -> list[Choice]:
        """Free images, the least covered first."""
        free = some(np.flatnonzero(situation.free), rng)
        if np.any(self.pool.embeddings[situation.seen]):
            order = free[farthest_first(self.pool.embeddings, free, situation.seen)]
            why = "coverage: of all studies the least like those labelled so far"
        else:
            vectors = self.pool.embeddings[free]
            order = free[np.argsort(-(vectors @ vectors.mean(axis=0)), kind="stable")]
            why = "coverage: the most typical of all studies"
        return [Choice(self.pool.images[i], why, "coverage") for i in order[:OFFERED]]


def term_policy(term: str, words: str, *, diverse: bool = False) -> Callable[[Pool, np.ndarray | None], TermPolicy]:
    """A maker of policies that go by one term of the image, which `words` describe to the annotator."""

    def make(pool: Pool, ranked: np.ndarray | None = None) -> TermPolicy:
        return TermPolicy(pool, ranked, term=term, words=words, diverse=diverse)

    return make


def _draw(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few of the wanted images (N bool), drawn blindly."""
    places = np.flatnonzero(wanted)
    return rng.choice(places, size=min(OFFERED, len(places)), replace=False)
