"""Pools of made-up scores and choices from them."""

import numpy as np

from lib.core.pool import Situation, make_pool
from lib.core.select import choose_batch, next_images


def rng(seed=0):
    return np.random.default_rng(seed)


def present(deficit, margin=None, contrast=None, name="polyp"):
    values = (deficit, deficit if margin is None else margin, deficit if contrast is None else contrast)
    terms = dict(zip(("threshold_deficit", "margin", "feature_contrast"), values, strict=True))
    return {f"{name}/present/{term}": value for term, value in terms.items()}


def absent(peak, contrast=0.5, name="polyp"):
    return {f"{name}/absent/peak": peak, f"{name}/absent/feature_contrast": contrast}


def pool_of(rows, embeddings=None, groups=None):
    return make_pool(list(rows), list(rows.values()), embeddings, groups)


def situation(pool, seen=(), free=None, **options):
    marked = np.isin(np.array(pool.images), list(seen))
    return Situation(~marked if free is None else np.isin(np.array(pool.images), list(free)), marked, **options)


def batch(policy, count, *, seed=0, seen=(), control_share=0.0, **options):
    options.setdefault("progress", 1.0)
    choices = choose_batch(policy, situation(policy.pool, seen, **options), rng(seed), count, control_share)
    return [choice.image for choice in choices]


def first(policy, seed=0, seen=(), control_share=0.0, **options):
    options.setdefault("progress", 1.0)
    return next_images(policy, situation(policy.pool, seen, **options), rng(seed), control_share)[0]
