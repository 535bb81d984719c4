import numpy as np
import pytest

from lib.core.coverage import ColdPolicy
from lib.core.pool import Pool, Situation
from lib.core.select import choose_batch


def pool_of(features):
    """Image to (embedding of any scale, contrast)."""
    vectors = np.array([np.ravel(v) for v, _ in features.values()], dtype=np.float32)
    vectors = vectors.reshape(len(features), -1 if features else 2)
    contrast = np.array([c for _, c in features.values()], dtype=np.float32)
    return Pool(tuple(features), {"image/contrast": contrast}, vectors, np.arange(len(features)))


def blobs():
    """Three groups of 5, 3 and 1 images far from each other; x0 is in the middle of its group."""
    places = {"a": (0, 5), "b": (100, 3), "c": (-100, 1)}
    return {
        f"{name}{i}": (np.array([centre + (0, 1, -1, 2, -2)[i], 0.0]), 0.5)
        for name, (centre, count) in places.items()
        for i in range(count)
    }


def order(features, seen=(), clusters=3, seed=0):
    policy = ColdPolicy(pool_of(features), clusters, seed)
    marked = np.isin(np.array(policy.pool.images), list(seen))
    return policy.choose(Situation(~marked, marked), np.random.default_rng(0))


def images(choices):
    return [choice.image for choice in choices]


def test_the_most_typical_of_each_group_comes_first_large_groups_before_small_ones():
    choices = order(blobs())
    assert [image[0] for image in images(choices)[:3]] == ["a", "b", "c"]
    assert [choice.reason for choice in choices[:3]] == [
        "coverage: typical of a group of 5 similar studies not seen yet",
        "coverage: typical of a group of 3 similar studies not seen yet",
        "coverage: unlike all other studies, and not seen yet",
    ]
    assert {choice.kind for choice in choices} == {"coverage"}


def test_groups_with_a_seen_image_are_not_covered_again():
    choices = order(blobs(), ["a0", "b1"])
    assert choices[0].image == "c0"
    assert "not seen yet" not in choices[1].reason
    assert not {"a0", "b1"} & set(images(choices))


def test_served_in_turn_every_image_comes_once():
    policy = ColdPolicy(pool_of(blobs()), 3)
    situation = Situation(np.ones(9, dtype=bool), np.zeros(9, dtype=bool))
    chosen = choose_batch(policy, situation, np.random.default_rng(0), 20, 0.0)
    assert sorted(images(chosen)) == sorted(blobs())
    assert {image[0] for image in images(chosen)[:3]} == {"a", "b", "c"}


def test_with_more_labels_low_contrast_weighs_more():
    features = {f"x{i}": (float(i), 0.5) for i in range(9)} | {"typical": (4.1, 0.9), "faint": (60.0, 0.1)}
    few = images(order(features, ["x0"], clusters=1))
    many = {c.image: c.score for c in order(features, [f"x{i}" for i in range(9)], clusters=1)}
    assert few.index("typical") < (few.index("faint") if "faint" in few else len(few))
    # n = 11, w = 0.5: faint is last in typicality (0.5/11) and first in faintness (10.5/11)
    assert many["faint"] == pytest.approx(0.5)


def test_of_equally_typical_images_the_fainter_is_first():
    features = {f"i{i}": (np.ones(4), contrast) for i, contrast in enumerate((0.9, 0.2, 0.5))}
    assert order(features, clusters=8)[0].image == "i1"


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("same", [True, False])
def test_a_few_images_are_enough(count, same):
    features = {f"i{i}": (np.array([1.0, 0.0 if same else i]), 0.3) for i in range(count)}
    choices = order(features, clusters=8)
    assert sorted(images(choices)) == sorted(features)
    assert all(np.isfinite([choice.score, *choice.terms.values()]).all() for choice in choices)


def test_the_same_seed_gives_the_same_order():
    features = {f"i{i}": (np.random.default_rng(i).normal(size=3), float(i % 7)) for i in range(60)}
    assert images(order(features, ["i3"], 8, 5)) == images(order(features, ["i3"], 8, 5))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="expected clusters to be at least 1, but got 0"):
        order(blobs(), clusters=0)


def test_faint_means_little_contrast_and_shallow_gradients():
    rows = {f"i{k}": ([0.0, 0.0], c) for k, c in enumerate([0.1, 0.2, 0.3, 0.4])}
    pool = pool_of(rows)
    seen = np.zeros(4, dtype=bool)

    def choose(gradient):
        terms = {**pool.terms, "image/gradient": np.array(gradient, dtype=np.float32)}
        policy = ColdPolicy(Pool(pool.images, terms, pool.embeddings, pool.groups), 1)
        return images(policy.choose(Situation(~seen, seen), np.random.default_rng(0)))[0]

    assert choose([0.1, 0.2, 0.3, 0.4]) == "i0"
    assert choose([0.9, 0.1, 0.3, 0.4]) == "i1", "of equally typical ones the faintest by both"
    assert choose([0.9, 0.1, np.nan, 0.4]) == "i0", "gradients that are not known of all cannot be compared"
