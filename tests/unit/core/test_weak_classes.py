"""Low contrast where the model does not know a class well enough: that class is covered, the others are ranked."""

from collections import Counter

import numpy as np
from unit.core.choosing import first, pool_of, present, rng, situation

from lib.core.lowcontrast_policy import LowContrastPolicy


def test_the_turn_of_a_weak_class_covers_what_was_not_seen():
    random = rng(1)
    rows = {str(i): present(random.random()) | present(random.random(), name="tool") for i in range(40)}
    vectors = random.normal(size=(40, 8)).astype(np.float32)
    policy = LowContrastPolicy(pool_of(rows, vectors))
    choices = [first(policy, seed, seen=["0"], weak=frozenset({"tool"})) for seed in range(300)]
    kinds = Counter(choice.kind for choice in choices)
    assert 0.2 * 300 < kinds["coverage"] < 0.46 * 300, "about half of the turns that go to one class"
    covering = [choice for choice in choices if choice.kind == "coverage"]
    unlike = int(np.argmin(policy.pool.embeddings[1:] @ policy.pool.embeddings[0])) + 1
    assert {choice.image for choice in covering} == {str(unlike)}
    assert all("does not know tool" in choice.reason and choice.detail["turn"] == "tool" for choice in covering)
    scored = [choice for choice in choices if choice.kind != "coverage"]
    assert {choice.stratum for choice in scored} == {"polyp/present"}, "what a weak class says counts for no turn"


def test_a_model_that_knows_no_class_chooses_by_coverage_alone():
    policy = LowContrastPolicy(pool_of({str(i): present(i / 9) for i in range(9)}, np.eye(9, dtype=np.float32)))
    found = {first(policy, seed, seen=["0"], weak=frozenset({"polyp"})).kind for seed in range(50)}
    assert found == {"coverage"}
    assert "coverage" not in {first(policy, seed, seen=["0"]).kind for seed in range(50)}


def test_the_ranking_leaves_weak_classes_out_while_another_is_known():
    pool = pool_of({"a": present(0.1) | present(0.9, name="tool"), "b": present(0.9) | present(0.1, name="tool")})
    policy = LowContrastPolicy(pool)
    key = policy.ranking(situation(pool, weak=frozenset({"tool"}))).key
    assert key[1] > key[0]
    assert policy.explained(0, situation(pool, weak=frozenset({"polyp"}))).stratum == "tool/present"
    assert np.isfinite(policy.ranking(situation(pool, weak=frozenset({"polyp", "tool"}))).key).all()
