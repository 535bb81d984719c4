from collections import Counter

import numpy as np
import pytest
from unit.core.choosing import absent, batch, first, pool_of, present, rng, situation

from lib.core.draws import draw_by_rank
from lib.core.lowcontrast_policy import LowContrastPolicy
from lib.core.policies import POLICIES, make_policy
from lib.core.pool import Situation, make_pool, spread_over_groups
from lib.core.select import next_images

# --- the score


def test_the_score_is_the_mean_rank_of_the_terms():
    pool = pool_of({"a": present(0.1, 0.9, 0.5), "b": present(0.2, 0.2, 0.2), "c": present(0.3, 0.1, 0.9)})
    policy = LowContrastPolicy(pool)
    # ranks (n = 3): deficit a b c = 1/6 3/6 5/6, margin 5/6 3/6 1/6, contrast 3/6 1/6 5/6
    scores = {c.image: c.score for seed in range(60) for c in [first(policy, seed, progress=0.0)]}
    assert scores == pytest.approx({"a": 9 / 18, "b": 7 / 18, "c": 11 / 18})


def test_only_the_order_of_the_terms_matters():
    values = rng().random(40)
    before = LowContrastPolicy(pool_of({str(i): present(v) for i, v in enumerate(values)}))
    after = LowContrastPolicy(pool_of({str(i): present(v**3 / 10 + 0.2) for i, v in enumerate(values)}))
    assert batch(before, 20) == batch(after, 20)


def test_labelled_images_take_no_part_in_the_ranking():
    rows = {"a": present(0.1), "b": present(0.2), "c": present(0.9), "d": present(0.8)}
    policy = LowContrastPolicy(pool_of(rows), np.array([True, True, False, False]))
    assert first(policy, free=["b"]).score == pytest.approx(0.75)


def test_an_image_of_several_classes_has_its_highest_score_when_any_class_is_meant():
    rows = {"a": present(0.1) | present(0.9, name="tool"), "b": present(0.2) | present(0.1, name="tool")}
    policy = LowContrastPolicy(pool_of(rows))
    any_class = [c for s in range(40) if (c := first(policy, s, free=["a"])).detail["turn"] == "any class"]
    assert {(c.stratum, round(c.score, 2)) for c in any_class} == {("tool/present", 0.75)}


# --- the draw


def test_first_is_drawn_as_a_power_of_the_rank():
    wins = Counter(int(draw_by_rank(3, rng(seed), 1.0, 1)[0]) for seed in range(4000))
    # P = (1, 1/2, 1/3) / (11/6)
    assert wins[0] / 4000 == pytest.approx(6 / 11, abs=0.03)
    assert wins[1] / 4000 == pytest.approx(3 / 11, abs=0.03)


def test_the_order_gets_sharper_with_progress():
    policy = LowContrastPolicy(pool_of({f"i{i}": present(i / 10) for i in range(10)}))
    top = [sum(first(policy, s, progress=p).image in ("i9", "i8") for s in range(200)) for p in (0.0, 1.0, 7.0)]
    assert top[0] < 110 < 150 < top[1]
    assert top[1] == top[2], "progress is clipped"


def test_the_same_seed_gives_the_same_sequence():
    rows = {f"i{i}": present(i / 30) | present(1 - i / 30, name="tool") for i in range(30)}
    policy = LowContrastPolicy(pool_of(rows, [rng(i).normal(size=4) for i in range(30)]))
    assert batch(policy, 12, control_share=0.2) == batch(policy, 12, control_share=0.2)
    assert len({tuple(batch(policy, 12, seed=seed)) for seed in range(5)}) == 5


def test_equal_scores_favour_no_name():
    policy = LowContrastPolicy(pool_of({f"i{i:02d}": present(0.5) for i in range(40)}))
    firsts = Counter(first(policy, seed).image for seed in range(60))
    assert not set(firsts) <= {f"i{i:02d}" for i in range(10)}


# --- strata and classes


def test_absent_images_get_their_share_of_turns():
    rows = {f"p{i}": present(i / 200) for i in range(200)} | {f"a{i}": absent(i / 200) for i in range(200)}
    policy = LowContrastPolicy(pool_of(rows))

    def share(**options):
        return sum(first(policy, s, **options).stratum == "polyp/absent" for s in range(400)) / 400

    assert share() == pytest.approx(0.25, abs=0.07)
    assert share(miss_rate={"polyp": 0.9}) == pytest.approx(0.4, abs=0.07)
    assert share(miss_rate={"polyp": 0.0}) == pytest.approx(0.1, abs=0.05)
    # where all labelled images have the class, an image without it is a certain miss
    assert share(labelled={"polyp": 10}, labels=10) == pytest.approx(0.4, abs=0.07)
    assert share(labelled={"polyp": 10}, labels=10, miss_rate={"polyp": 0.0}) == pytest.approx(0.4, abs=0.07)
    assert share(labelled={"polyp": 9}, labels=10) == pytest.approx(0.25, abs=0.07)
    assert share(labelled={"polyp": 9}, labels=9) == pytest.approx(0.25, abs=0.07), "nine do not say it of all"


@pytest.mark.parametrize("rows", [{"a": absent(0.1), "b": absent(0.2)}, {"a": present(0.1), "b": present(0.2)}])
def test_an_empty_queue_leaves_its_turns_to_the_other(rows):
    assert sorted(batch(LowContrastPolicy(pool_of(rows)), 5)) == ["a", "b"]


def test_a_rarely_labelled_class_gets_more_turns():
    rows = {f"i{i}": present(i / 50) | present(1 - i / 50, name="tool") for i in range(50)}
    policy = LowContrastPolicy(pool_of(rows))
    turns = Counter(first(policy, s, labelled={"polyp": 99, "tool": 0}).detail["turn"] for s in range(600))
    # 34 % of turns are for any class; of the others 1 / (1 + 1/10) for the one without labels
    assert turns["any class"] / 600 == pytest.approx(0.34, abs=0.06)
    assert turns["tool"] / 600 == pytest.approx(0.66 / 1.1, abs=0.06)


def test_images_that_were_not_scored_are_served_at_random_when_nothing_else_is_left():
    pool = make_pool(["a", "b"], [{}, {}])
    assert sorted(batch(LowContrastPolicy(pool), 3)) == ["a", "b"]


# --- variety


def test_of_the_shortlist_the_image_most_unlike_the_seen_ones_is_first():
    east, north, west = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([-1.0, 0.0])
    rows = {"best": present(0.99), "second": present(0.98)} | {f"low{i}": present(0.01 * i) for i in range(6)}
    rows |= {"labelled": {}}
    seeds = range(40)
    for label, other in ((east, "second"), (north, "best")):
        pool = pool_of(rows, [east, north, *[west] * 6, label])
        policy = LowContrastPolicy(pool)
        chosen = Counter(first(policy, s, seen=["labelled"], progress=1.0).image for s in seeds)
        blind = Counter(first(policy, s, free=list(rows)[:8], progress=1.0).image for s in seeds)
        assert chosen[other] > blind[other]
    said = [first(policy, s, seen=["labelled"]).reason for s in seeds]
    assert any(reason.endswith("of the 2 best the most unlike the labelled images") for reason in said)


def test_a_video_has_not_more_than_its_share_of_frames():
    groups = np.array([0] * 50 + [1, 2, 3, 4])
    free, seen = np.ones(54, dtype=bool), np.zeros(54, dtype=bool)
    seen[0], free[0] = True, False
    assert not spread_over_groups(free, seen, groups)[:50].any(), "one of five groups has one image, the others none"
    seen[50:], free[50:] = True, False
    assert spread_over_groups(free, seen, groups)[1:50].all(), "nothing else is left"


def test_frames_of_one_video_do_not_fill_the_queue():
    rows = {f"v0_{i}": present(0.9 + i / 1000) for i in range(60)} | {f"v{i}_0": present(0.1) for i in range(1, 10)}
    policy = LowContrastPolicy(pool_of(rows, groups=[image.split("_")[0] for image in rows]))
    served = batch(policy, 10)
    assert Counter(image.split("_")[0] for image in served)["v0"] <= 2


# --- controls


def test_control_picks_are_uniform_and_tagged():
    policy = LowContrastPolicy(pool_of({f"i{i}": present(i / 4) for i in range(4)}))
    firsts = [first(policy, seed, control_share=1.0) for seed in range(800)]
    assert {choice.kind for choice in firsts} == {"random control"}
    assert all(count == pytest.approx(200, abs=50) for count in Counter(c.image for c in firsts).values())


def test_control_picks_get_their_share_of_calls():
    policy = LowContrastPolicy(pool_of({f"i{i}": present(i / 4) for i in range(4)}))
    tagged = sum(first(policy, s, control_share=0.1).kind == "random control" for s in range(1000))
    assert tagged == pytest.approx(100, abs=35)


def test_a_wrong_share_is_refused():
    policy = LowContrastPolicy(pool_of({"a": present(0.1)}))
    with pytest.raises(ValueError, match="expected control_share to be in"):
        next_images(policy, situation(policy.pool), rng(), 1.5)


# --- reasons


def test_reasons_say_what_was_measured():
    rows = {
        "a": present(0.41, 0.55, 0.72),
        "b": present(0.1, 0.2, 0.3),
        "c": absent(0.31, 0.6),
        "d": absent(0.01, 0.2),
    }
    policy = LowContrastPolicy(pool_of(rows))
    found = {image: first(policy, free=[image]) for image in rows}
    assert {image: choice.reason for image, choice in found.items()} == {
        "a": "low contrast: the polyp border is less certain than in 100 % of the other images "
        "(threshold deficit 0.41, margin 0.55, feature contrast 0.72)",
        "b": "variety: not all images should be hard ones; a clear polyp border "
        "(threshold deficit 0.10, margin 0.20, feature contrast 0.30)",
        "c": "possible miss: no polyp found, but a missed one is likelier than in 100 % of such images "
        "(feature contrast 0.60, peak 0.31)",
        "d": "variety: not all images should be hard ones; no polyp found (feature contrast 0.20, peak 0.01)",
    }
    assert [choice.kind for choice in found.values()] == ["low contrast", "variety", "possible miss", "variety"]
    assert found["a"].terms == pytest.approx({"threshold_deficit": 0.41, "margin": 0.55, "feature_contrast": 0.72})


# --- all policies


def any_pool(count=40):
    rows = {}
    for i in range(count):
        own = present(i / count) if i % 3 else absent(i / count)
        image = {
            "entropy": i,
            "margin": i,
            "clasp": i,
            "clasp polyp": i,
            "feature_cosine": i,
            "border": i % 7,
            "epistemic": i,
        }
        rows[f"i{i:02d}"] = own | {f"image/{name}": value / count for name, value in image.items()}
    return pool_of(rows, [rng(i).normal(size=5) for i in range(count)])


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_serves_each_free_image_once_and_never_another(name):
    policy = make_policy(name, any_pool())
    served = batch(policy, 100, seen=["i00", "i07"], progress=0.3, control_share=0.1)
    assert sorted(served) == sorted(set(policy.pool.images) - {"i00", "i07"})
    nothing = Situation(np.zeros(40, dtype=bool), np.ones(40, dtype=bool))
    assert next_images(policy, nothing, rng()) == []


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_repeats_itself_with_the_same_seed_and_says_why(name):
    policy = make_policy(name, any_pool())
    assert batch(policy, 10, seed=3) == batch(policy, 10, seed=3)
    assert len(first(policy).reason) > 10


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_works_without_terms_and_embeddings(name):
    policy = make_policy(name, make_pool(["a", "b", "c"], [{}, {}, {}]))
    assert sorted(batch(policy, 5)) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["mean_entropy", "margin", "mc_dropout"])
def test_an_uncertainty_policy_serves_the_highest_first(name):
    assert batch(make_policy(name, any_pool()), 3) == ["i39", "i38", "i37"]


def test_foreground_random_prefers_found_and_long_borders():
    rows = {f"f{i}": present(0.5) | {"image/border": 2.0} for i in range(5)}
    rows |= {f"e{i}": absent(0.1) | {"image/border": 0.0} for i in range(95)}
    policy = make_policy("foreground_random", pool_of(rows))
    found = sum(first(policy, s).image.startswith("f") for s in range(600)) / 600
    assert found == pytest.approx(2 / 3 + 0.05 / 3, abs=0.06)


def test_clasp_follows_the_entropy_more_sharply_with_progress():
    policy = make_policy("clasp_pe", any_pool())
    top = [sum(first(policy, s, progress=p).image == "i39" for s in range(100)) for p in (0.0, 1.0)]
    assert top[0] < 20 < 60 < top[1]


def test_coverage_goes_to_what_is_least_like_the_seen_ones():
    vectors = [np.array(v, dtype=float) for v in ((1, 0), (0.9, 0.1), (0, 1), (0.7, 0.7))]
    policy = make_policy("coverage", pool_of({name: {} for name in "abcd"}, vectors))
    assert batch(policy, 3, seen=["a"]) == ["c", "d", "b"]
    assert first(policy).image == "d", "the most central when nothing was seen"


def test_what_cannot_be_compared_does_not_come_by_name():
    """The model does not know the only class well enough, and has looked at no labelled image yet."""
    pool = pool_of({f"i{i}": present(0.5) for i in range(8)}, [np.eye(8)[i] for i in range(8)])
    policy, free = LowContrastPolicy(pool), np.ones(8, dtype=bool)
    weak = Situation(free, ~free, weak=frozenset({"polyp"}))
    starts = Counter(policy.choose(weak, rng(seed))[0].image for seed in range(80))
    assert len(starts) == 8
    assert max(starts.values()) < 30


def test_an_unknown_policy_lists_those_there_are():
    with pytest.raises(ValueError, match="expected a strategy, one of low_contrast, random_control"):
        make_policy("best", any_pool())


def test_embeddings_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"same length, but got \[2, 3\]"):
        make_pool(["a", "b"], [{}, {}], [np.ones(2), np.ones(3)])
    with pytest.raises(ValueError, match="expected embeddings to be finite"):
        make_pool(["a"], [{}], [np.array([np.nan, 0])])


# --- where every image stands


def test_an_image_stands_where_its_score_places_it_and_says_why():
    rows = {
        "a": present(0.1),
        "b": present(0.2),
        "c": present(0.3),
        "d": absent(0.9, 0.9),
        "e": absent(0.1, 0.1),
        "f": {},
    }
    policy = LowContrastPolicy(pool_of(rows))
    here = situation(policy.pool)
    ranking = policy.ranking(here)
    names = [ranking.strata[i] if i >= 0 else "" for i in ranking.which]
    assert names == ["polyp/present"] * 3 + ["polyp/absent"] * 2 + [""]
    assert ranking.key[:5].tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]
    assert np.isnan(ranking.key[5])
    found = [policy.explained(i, here) for i in range(6)]
    assert [choice.image for choice in found] == list("abcdef")
    assert [choice.kind for choice in found] == [
        "variety", "low contrast", "low contrast", "possible miss", "variety", "random",
    ]  # fmt: skip
    assert found[2].terms["margin"] == pytest.approx(0.3)


def test_an_image_with_one_class_found_and_another_not_is_ranked_as_found():
    rows = {
        "a": present(0.5) | absent(0.9, name="ulcer"),
        "b": present(0.4) | absent(0.1, name="ulcer"),
        "c": absent(0.3) | absent(0.4, name="ulcer"),
    }
    policy = LowContrastPolicy(pool_of(rows))
    ranking = policy.ranking(situation(policy.pool))
    assert [ranking.strata[i].rpartition("/")[2] for i in ranking.which] == ["present", "present", "absent"]
    assert policy.explained(0, situation(policy.pool)).stratum == "polyp/present"
