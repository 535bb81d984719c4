"""The gate: which scores of a model go along with the true loss, by stratum; on a pool made by hand."""

import numpy as np
import pytest
from benchmarks.gate import OWN, judge, mean_rows, passes, scores_of, strata_of

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
        rows.append(own | {"image/entropy": rng.random() if informative else loss[n], "image/margin": n / COUNT})
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


def test_a_band_and_the_whole_image_are_different_scores():
    pool, _, _ = pool_of(np.random.default_rng(0), True)
    scores = scores_of(pool)
    assert np.isfinite(scores["margin"]).sum() == COUNT
    assert np.isfinite(scores["band margin"]).sum() == 30


def test_each_term_can_be_left_out():
    rng = np.random.default_rng(2)
    rows = [{"polyp/present/margin": n, "polyp/present/threshold_deficit": -n, "polyp/present/feature_contrast": x,
             "image/entropy": 0.0} for n, x in enumerate(rng.random(COUNT))]  # fmt: skip
    scores = scores_of(make_pool([f"i{n}" for n in range(COUNT)], rows))
    contrast = np.argsort(np.argsort([row["polyp/present/feature_contrast"] for row in rows]))
    assert np.array_equal(np.argsort(np.argsort(scores[OWN])), contrast), "the two others cancel"
    assert np.argmax(scores[f"{OWN}, no threshold_deficit"] + scores[f"{OWN}, no margin"]) == np.argmax(scores[OWN])
    assert np.ptp(scores[f"{OWN}, no feature_contrast"]) == pytest.approx(0, abs=1e-9)


def test_a_score_against_the_truth_does_not_pass_however_bad_entropy_is():
    rows = [
        {"stratum": "all", "score": OWN, "given_area": -0.1},
        {"stratum": "all", "score": "entropy", "given_area": -0.5},
    ]
    assert not passes(rows)


def test_models_are_averaged_row_by_row():
    rows = judge(*pool_of(np.random.default_rng(1), True))
    other = [row | {"rank_correlation": row["rank_correlation"] - 0.5} for row in rows]
    mean = mean_rows([rows, other])
    assert [row["score"] for row in mean] == [row["score"] for row in rows]
    assert mean[0]["rank_correlation"] == pytest.approx(rows[0]["rank_correlation"] - 0.25)
