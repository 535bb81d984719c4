"""All ways to choose the next image, by the name under which they are selected. The first is the app's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.core.lowcontrast_policy import LowContrastPolicy
from lib.core.pool import Pool
from lib.core.rivals import ClaspPolicy, CoveragePolicy, ForegroundRandomPolicy, RandomPolicy, term_policy
from lib.core.select import Policy

POLICIES: dict[str, Callable[[Pool, np.ndarray | None], Policy]] = {
    "low_contrast": LowContrastPolicy,
    "random_control": RandomPolicy,
    "foreground_random": ForegroundRandomPolicy,
    "mean_entropy": term_policy("entropy", "entropy: the mean over the image is high"),
    "margin": term_policy("margin", "margin: the two likeliest classes are close over the image"),
    "mc_dropout": term_policy("epistemic", "dropout: repeated predictions of the image disagree"),
    "clasp_pe": ClaspPolicy,
    "feature_cosine": term_policy(
        "feature_cosine", "feature cosine: foreground and background look alike to the model", diverse=True
    ),
    "coverage": CoveragePolicy,
}
"""Name to what makes the policy from a pool and the images to rank (N bool, None: all)."""

DESCRIPTIONS = {
    "low_contrast": "Next study of low contrast, by the live model's own confidence along the border",
    "random_control": "Uniformly random, also before there is a model",
    "foreground_random": "Random, two thirds among studies in which the model finds something",
    "mean_entropy": "Highest mean entropy",
    "margin": "Smallest mean margin between the two likeliest classes",
    "mc_dropout": "Largest entropy over five passes with dropout; scored with --conf strategy mc_dropout alone",
    "clasp_pe": "ClaSP PE at image level: class-stratified entropy with power noise",
    "feature_cosine": "Foreground and background alike in feature space (ISBI 2024)",
    "coverage": "Least like the labelled studies, in the model's features",
}


def make_policy(name: str, pool: Pool, ranked: np.ndarray | None = None) -> Policy:
    """The policy of that name. Raises `ValueError` that lists the names."""
    if name not in POLICIES:
        raise ValueError(f"expected a strategy, one of {', '.join(POLICIES)}, but got {name!r}; choose one of them")
    return POLICIES[name](pool, ranked)
