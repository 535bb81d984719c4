"""The gate: which scores of a model go along with the true loss, by stratum; on a pool made by hand."""

import numpy as np
import pytest
from benchmarks.gate import OWN, judge, passes, scores_of, strata_of

from lib.core.pool import make_pool

COUNT = 40


def pool_of(rng, informative):
    """Images 0..29 have a finding, the others have none; `informative` decides whether low contrast knows the loss."""
    loss = rng.random(COUNT)
    rows = []
    for n in range(COUNT):
        term = loss[n] if informative else rng.random()
        own = (
            {
                "polyp/present/threshold_deficit": term,
                "polyp/present/margin": term,
                "polyp/present/feature_contrast": term,
            }
            if n < 30
            else {"polyp/absent/feature_contrast": term, "polyp/absent/peak": term}
        )
        rows.append(own | {"image/entropy": rng.random() if informative else loss[n]})
    images = [f"i{n}" for n in range(COUNT)]
    return make_pool(images, rows), dict(zip(images, 1 - loss, strict=True)), dict.fromkeys(images, 0.5)


def test_images_without_a_finding_are_a_stratum_of_their_own():
    pool, _, _ = pool_of(np.random.default_rng(0), True)
    strata = strata_of(pool)
    assert {name: int(members.sum()) for name, members in strata.items()} == {"all": 40, "present": 30, "absent": 10}
    assert np.isfinite(scores_of(pool)[OWN]).all()


@pytest.mark.parametrize("informative", [True, False])
def test_the_score_that_knows_the_loss_passes(informative):
    rows = judge(*pool_of(np.random.default_rng(1), informative))
    present = {r["score"]: r for r in rows if r["stratum"] == "present"}
    assert (present[OWN]["rank_correlation"] > 0.99) is informative
    assert (present["entropy"]["rank_correlation"] > 0.99) is not informative
    assert present[OWN if informative else "entropy"]["auroc"] == 1.0
    assert passes(rows) is informative
