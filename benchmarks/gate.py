"""The cheap gate before a benchmark of strategies: does a score of a young model know which images it segments badly?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from benchmarks.compare import auroc, partial_spearman, spearman

from lib.core.draws import ranks
from lib.core.lowcontrast_policy import RANKED
from lib.core.pool import Pool

BAD = 0.7
"""An image with a Dice below this should be found."""
OWN = "low contrast"
RIVALS = ("entropy", "margin", "epistemic", "clasp", "feature_cosine", "border")


def scores_of(pool: Pool) -> dict[str, np.ndarray]:
    """Scores by name, N float, high = should be labelled; for several classes the one that scores highest counts.

    The low-contrast score; the same without each of its terms; each term by itself ("band ..."); and the rivals, which are
    means over the image or its largest window.
    """
    terms = sorted({term for names in RANKED.values() for term in names})
    found = {OWN: _own(pool, RANKED)}
    found |= {f"{OWN}, no {term}": _own(pool, _without(term)) for term in terms}
    for name in terms:
        columns = [c for key, c in pool.terms.items() if key.endswith(f"/{name}") and not key.startswith("image/")]
        found[f"band {name}"] = _highest(columns, len(pool))
    image = pool.stratum("image")
    return found | {name: image[name] for name in RIVALS if name in image}


def strata_of(pool: Pool) -> dict[str, np.ndarray]:
    """All images, those in which a class was found and those without any (N bool)."""
    columns = [c for n in pool.classes if (c := pool.stratum(f"{n}/present").get("margin")) is not None]
    present = np.any([np.isfinite(c) for c in columns], axis=0) if columns else np.zeros(len(pool), dtype=bool)
    return {"all": np.ones(len(pool), dtype=bool), "present": present, "absent": ~present}


def judge(pool: Pool, dice: Mapping[str, float], area: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per score and stratum.

    Args:
        pool: what the model says of images whose labels it has not seen.
        dice: true Dice by image.
        area: predicted share of foreground by image.

    Returns:
        Rank correlation with 1 - Dice, the same without what the predicted area explains, and how well the score finds
        the images below `BAD`.
    """
    loss = np.array([1 - dice[i] for i in pool.images])
    size = np.array([area[i] for i in pool.images])
    rows = []
    for stratum, members in strata_of(pool).items():
        for name, score in scores_of(pool).items():
            use = members & np.isfinite(score)
            rows.append(
                {
                    "stratum": stratum,
                    "score": name,
                    "images": int(use.sum()),
                    "rank_correlation": spearman(score[use], loss[use]),
                    "given_area": partial_spearman(score[use], loss[use], size[use]),
                    "auroc": auroc(score[use], loss[use] > 1 - BAD) if use.any() else 0.5,
                }
            )
    return rows


def passes(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the low-contrast score says more than the area alone and than the mean entropy does beside it, over all."""
    value = {row["score"]: row["given_area"] for row in rows if row["stratum"] == "all"}
    return value[OWN] > max(0.0, value["entropy"])


def mean_rows(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The same rows of several models, their figures averaged."""
    return [
        {
            "stratum": rows[0]["stratum"],
            "score": rows[0]["score"],
            **{
                k: float(np.mean([row[k] for row in rows]))
                for k in ("images", "rank_correlation", "given_area", "auroc")
            },
        }
        for rows in zip(*tables, strict=True)
    ]


def _without(term: str) -> dict[str, tuple[str, ...]]:
    """The ranked terms but one; a stratum that would be left without any keeps it."""
    return {s: tuple(n for n in names if n != term) or names for s, names in RANKED.items()}


def _own(pool: Pool, ranked: Mapping[str, Sequence[str]]) -> np.ndarray:
    """The mean rank of its terms within class and stratum, N float."""
    columns = []
    for name in pool.classes:
        for stratum, names in ranked.items():
            terms = pool.stratum(f"{name}/{stratum}")
            known = [terms[t] for t in names if t in terms]
            if not known:
                continue
            members = np.all([np.isfinite(c) for c in known], axis=0)
            score = np.full(len(pool), np.nan)
            score[members] = np.mean([ranks(c[members]) for c in known], axis=0)
            columns.append(score)
    return _highest(columns, len(pool))


def _highest(columns: Sequence[np.ndarray], count: int) -> np.ndarray:
    if not columns:
        return np.full(count, np.nan)
    table = np.stack(columns)
    best = np.where(np.isfinite(table), table, -np.inf).max(axis=0)
    return np.where(np.isfinite(best), best, np.nan)
