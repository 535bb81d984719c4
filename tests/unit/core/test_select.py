from collections import Counter

import numpy as np
import pytest

from lib.core.coverage import ColdFeatures, cold_order
from lib.core.select import ScoredImage, choose_order, rank_score


def rng(seed=0):
    return np.random.default_rng(seed)


def present(image, margin, embedding=None, name="polyp"):
    return ScoredImage(image, f"{name}/present", {"margin": margin}, embedding)


def absent(image, peak, name="polyp"):
    return ScoredImage(image, f"{name}/absent", {"feature_contrast": 0.5, "peak": peak})


def order(scored, *, labelled=(), leased=(), seed=0, progress=1.0, **options):
    options = {"control_share": 0.0, "absent_share": 0.25, **options}
    return choose_order(scored, labelled, leased, rng(seed), progress, **options)


def images(choices):
    return [choice.image for choice in choices]


# --- rank_score


def test_rank_score_is_the_mean_rank_of_the_terms():
    terms = {"a": (0.1, 0.9, 0.5), "b": (0.2, 0.2, 0.2), "c": (0.3, 0.1, 0.9)}
    names = ("threshold_deficit", "margin", "feature_contrast")
    scored = [ScoredImage(image, "polyp/present", dict(zip(names, row, strict=True))) for image, row in terms.items()]
    # ranks (n = 3): deficit a b c = 1/6 3/6 5/6, margin 5/6 3/6 1/6, contrast 3/6 1/6 5/6
    assert rank_score(scored) == pytest.approx({"a": 9 / 18, "b": 7 / 18, "c": 11 / 18})


def test_tied_terms_share_the_middle_rank():
    scores = rank_score([present("a", 0.5), present("b", 0.5), present("c", 0.9), present("d", 0.1)])
    assert scores == pytest.approx({"d": 1 / 8, "a": 4 / 8, "b": 4 / 8, "c": 7 / 8})


def test_strata_are_ranked_apart_and_an_image_takes_its_highest_score():
    scored = [present("a", 0.01), absent("b", 0.99), present("a", 0.2, name="tool"), present("c", 0.1, name="tool")]
    assert rank_score(scored) == pytest.approx({"a": 0.75, "b": 0.5, "c": 0.25})


def test_only_the_order_of_the_terms_matters():
    values = rng().random(20)
    before = rank_score([present(str(i), value) for i, value in enumerate(values)])
    after = rank_score([present(str(i), value**3 / 10 + 0.2) for i, value in enumerate(values)])
    assert before == after


def test_nothing_scored_gives_nothing():
    assert rank_score([]) == {}
    assert order([]) == []


@pytest.mark.parametrize("terms", [{"peak": 0.5}, {}, {"margin": float("nan")}, {"margin": 0.5, "peak": 0.5}])
def test_terms_that_do_not_fit_the_stratum_are_refused(terms):
    scored = [present("a", 0.1), ScoredImage("b", "polyp/present", terms)]
    with pytest.raises(ValueError, match="expected b to have the finite terms margin like the rest of 'polyp/present'"):
        rank_score(scored)


# --- choose_order


def test_every_image_comes_once_also_when_it_has_several_classes():
    scored = [present(f"i{i}", i / 10) for i in range(10)] + [absent(f"i{i}", i / 10, "tool") for i in range(5, 15)]
    assert sorted(images(order(scored))) == sorted(f"i{i}" for i in range(15))


def test_same_seed_same_order_whatever_the_order_of_the_input():
    scored = [present(f"i{i}", i / 30, rng(i).normal(size=4)) for i in range(30)]
    labelled = [np.ones(4)]
    first = order(scored, labelled=labelled, progress=0.0, control_share=0.5)
    assert first == order(scored[::-1], labelled=labelled, progress=0.0, control_share=0.5)
    others = {tuple(images(order(scored, labelled=labelled, progress=0.0, seed=seed))) for seed in range(5)}
    assert len(others) == 5


def test_first_is_drawn_as_a_power_of_the_rank():
    scored = [present("a", 0.9), present("b", 0.5), present("c", 0.1)]
    wins = Counter(
        order(scored, seed=seed, progress=1 / 3)[0].image for seed in range(2000)
    )  # beta = 0.5 * 8^(1/3) = 1
    # P = (1, 1/2, 1/3) / (11/6)
    assert wins["a"] / 2000 == pytest.approx(6 / 11, abs=0.04)
    assert wins["b"] / 2000 == pytest.approx(3 / 11, abs=0.04)


def test_the_order_gets_sharper_with_progress():
    scored = [present(f"i{i}", i / 10) for i in range(10)]
    top = [sum(order(scored, seed=seed, progress=p)[0].image == "i9" for seed in range(200)) for p in (0.0, 1.0, 7.0)]
    assert top[0] < 80 < 150 < top[1]
    assert top[1] == top[2]  # clipped


def test_absent_images_get_their_share_of_turns():
    scored = [present(f"p{i}", i / 400) for i in range(400)] + [absent(f"a{i}", i / 400) for i in range(400)]
    served = images(order(scored, absent_share=0.25))[:200]
    assert sum(image.startswith("a") for image in served) == pytest.approx(50, abs=18)
    assert not any(image.startswith("a") for image in images(order(scored, absent_share=0.0))[:400])
    assert all(image.startswith("a") for image in images(order(scored, absent_share=1.0))[:400])


def test_an_empty_queue_leaves_its_turns_to_the_other():
    assert len(order([absent(f"a{i}", 0.1 * i) for i in range(3)], absent_share=0.0)) == 3
    assert len(order([present(f"p{i}", 0.1 * i) for i in range(3)], absent_share=1.0)) == 3


def test_control_picks_are_uniform_and_tagged():
    scored = [present(f"i{i}", i / 4) for i in range(4)]
    firsts = [order(scored, seed=seed, control_share=1.0)[0] for seed in range(800)]
    assert all(choice.reason.startswith("random control") for choice in firsts)
    assert all(count == pytest.approx(200, abs=50) for count in Counter(images(firsts)).values())
    assert sorted(images(order(scored, control_share=1.0))) == ["i0", "i1", "i2", "i3"]


def test_control_picks_get_their_share_of_calls():
    scored = [present(f"i{i}", i / 4) for i in range(4)]
    tagged = sum(order(scored, seed=s, control_share=0.1)[0].reason.startswith("random control") for s in range(1000))
    assert tagged == pytest.approx(100, abs=35)


def test_of_the_shortlist_the_image_most_unlike_the_labelled_ones_is_first():
    east, north, west = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([-1.0, 0.0])
    # a quarter of 8 images is a shortlist of two; beta = 4 and a seed where the top two ranks lead
    scored = [present("best", 0.99, east), present("second", 0.98, north)]
    scored += [present(f"low{i}", 0.01 * i, west) for i in range(6)]
    seed = next(s for s in range(100) if set(images(order(scored, seed=s))[:2]) == {"best", "second"})
    with_nothing = order(scored, seed=seed)[0]
    labelled = order(scored, seed=seed, labelled=[3 * east])
    leased = order(scored, seed=seed, labelled=[], leased=np.stack([north]))
    assert labelled[0].image == "second"
    assert leased[0].image == "best"
    assert "unlike" not in with_nothing.reason
    changed = labelled[0] if with_nothing.image == "best" else leased[0]
    assert changed.reason.endswith("of the 2 best the most unlike the labelled images")


def test_images_without_embedding_keep_their_place_by_score():
    scored = [present(f"i{i}", i / 20) for i in range(20)]
    assert images(order(scored, labelled=[np.ones(3)])) == images(order(scored))


def test_embeddings_of_another_model_are_refused():
    scored = [present("a", 0.1, np.ones(3)), present("b", 0.2, np.ones(3))]
    with pytest.raises(ValueError, match="embeddings to have the same length, but got 3 and 4"):
        order(scored, labelled=[np.ones(4)])


def test_reasons_say_what_was_measured():
    scored = [
        ScoredImage("a", "polyp/present", {"threshold_deficit": 0.41, "margin": 0.55, "feature_contrast": 0.72}),
        ScoredImage("b", "polyp/present", {"threshold_deficit": 0.1, "margin": 0.2, "feature_contrast": 0.3}),
        ScoredImage("c", "polyp/absent", {"feature_contrast": 0.6, "peak": 0.31}),
        ScoredImage("d", "polyp/absent", {"feature_contrast": 0.2, "peak": 0.01}),
    ]
    reasons = {choice.image: choice.reason for choice in order(scored)}
    assert reasons == {
        "a": "low contrast: the polyp border is less certain than in 100 % of the other images "
        "(threshold deficit 0.41, margin 0.55, feature contrast 0.72)",
        "b": "variety: not all images should be hard ones; a clear polyp border "
        "(threshold deficit 0.10, margin 0.20, feature contrast 0.30)",
        "c": "possible miss: no polyp found, but a missed one is likelier than in 100 % of such images "
        "(feature contrast 0.60, peak 0.31)",
        "d": "variety: not all images should be hard ones; no polyp found (feature contrast 0.20, peak 0.01)",
    }


@pytest.mark.parametrize("name", ["absent_share", "control_share"])
def test_shares_outside_of_0_to_1_are_refused(name):
    with pytest.raises(ValueError, match=rf"expected {name} to be in \[0, 1\], but got 25"):
        order([present("a", 0.5)], **{name: 25})


def test_ten_thousand_images_are_ordered():
    scored = [present(f"i{i}", i / 1e4, np.array([1.0, i])) for i in range(10_000)]
    assert len(order(scored, labelled=rng().normal(size=(200, 2)))) == 10_000


# --- cold_order


def blobs():
    """Three groups on a line: 5 around 0, 3 around 10, 1 at 100; the middle one of each is the most typical."""
    places = {"a0": -2, "a1": -1, "a2": 0, "a3": 1, "a4": 2, "b0": 9, "b1": 10, "b2": 11, "c0": 100}
    return {name: ColdFeatures(np.array([float(x), 0.0]), contrast=0.5) for name, x in places.items()}


def test_cold_start_covers_the_groups_first():
    choices = cold_order(blobs(), set(), rng(), clusters=3)
    assert {image[0] for image in images(choices)[:3]} == {"a", "b", "c"}
    assert images(choices)[0].startswith("a")  # the largest group
    assert [choice.reason for choice in choices[:3]] == [
        "coverage: typical of a group of 5 similar studies not seen yet",
        "coverage: typical of a group of 3 similar studies not seen yet",
        "coverage: unlike all other studies, and not seen yet",
    ]
    assert sorted(images(choices)) == sorted(blobs())


def test_groups_with_a_label_are_not_covered_again():
    choices = cold_order(blobs(), {"a0", "b1"}, rng(), clusters=3)
    assert choices[0].image == "c0"
    assert "not seen yet" not in choices[1].reason
    assert sorted(images(choices)) == sorted(set(blobs()) - {"a0", "b1"})


def test_with_more_labels_low_contrast_weighs_more():
    # one group, fully labelled but for two: one typical of strong contrast, one untypical and faint
    features = {f"x{i}": ColdFeatures(np.array([float(i)]), contrast=0.5) for i in range(9)}
    features["typical"] = ColdFeatures(np.array([4.1]), contrast=0.9)
    features["faint"] = ColdFeatures(np.array([60.0]), contrast=0.1)
    few = cold_order(features, {"x0"}, rng(), clusters=1)
    many = cold_order({**features}, {f"x{i}" for i in range(9)}, rng(), clusters=1)
    assert images(few).index("typical") < images(few).index("faint")
    assert [round(choice.score, 3) for choice in many] == pytest.approx(
        sorted((choice.score for choice in many), reverse=True), abs=1e-3
    )
    # n = 11, w = 0.5: faint is last in typicality (0.5/11) and first in faintness (10.5/11)
    assert {choice.image: choice.score for choice in many}["faint"] == pytest.approx(0.5)


def test_of_equally_typical_images_the_fainter_is_first():
    features = {f"i{i}": ColdFeatures(np.ones(4), contrast) for i, contrast in enumerate((0.9, 0.2, 0.5))}
    assert cold_order(features, set(), rng(), clusters=8)[0].image == "i1"


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("same", [True, False])
def test_a_few_images_are_enough(count, same):
    features = {f"i{i}": ColdFeatures(np.array([1.0, 0.0 if same else i]), contrast=0.3) for i in range(count)}
    choices = cold_order(features, set(), rng(), clusters=8)
    assert sorted(images(choices)) == sorted(features)
    assert all(np.isfinite([choice.score, *choice.terms.values()]).all() for choice in choices)


def test_nothing_is_left_when_all_is_labelled():
    assert cold_order(blobs(), set(blobs()), rng(), clusters=3) == []


def test_the_same_seed_gives_the_same_cold_order_whatever_the_order_of_the_input():
    features = {f"i{i}": ColdFeatures(rng(i).normal(size=3), float(i % 7)) for i in range(60)}
    backwards = dict(reversed(features.items()))
    assert images(cold_order(features, {"i3"}, rng(5), 8)) == images(cold_order(backwards, {"i3"}, rng(5), 8))


def test_ten_thousand_images_get_a_cold_order():
    vectors = rng().normal(size=(10_000, 16)).astype(np.float32)
    features = {f"i{i}": ColdFeatures(vector, float(vector[0])) for i, vector in enumerate(vectors)}
    assert len(cold_order(features, {"i1"}, rng(), clusters=8)) == 9_999


def test_wrong_cold_input_is_refused():
    with pytest.raises(ValueError, match="expected clusters to be at least 1, but got 0"):
        cold_order(blobs(), set(), rng(), clusters=0)
    with pytest.raises(ValueError, match=r"same length, but got \[2, 3\]"):
        cold_order({**blobs(), "z": ColdFeatures(np.ones(3), 0.1)}, set(), rng(), clusters=2)
    with pytest.raises(ValueError, match="expected embeddings to be finite"):
        cold_order({**blobs(), "z": ColdFeatures(np.array([np.nan, 0]), 0.1)}, set(), rng(), clusters=2)
