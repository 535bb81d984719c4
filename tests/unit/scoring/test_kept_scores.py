"""Which scores are there after a pass: those by which the next image is chosen, and the look before any model."""

from types import SimpleNamespace

import pytest
from unit.desks import open_desk, publish, score, submit

from lib.core.cases import Record
from lib.scoring import low_contrast
from lib.scoring.low_contrast import LowContrastScoring, in_turns
from lib.store.records import Score


@pytest.fixture
def desk(tmp_path):
    desk = open_desk(tmp_path)
    for image in desk.studies.list_images()[:4]:
        submit(desk, image)
    score(desk, 0)
    return desk


def has_passed(desk, version, monkeypatch):
    """A pass in which nothing is left to score; returns the versions that still have scores."""
    score(desk, version)
    live = SimpleNamespace(version=version)
    monkeypatch.setattr(low_contrast, "live_checkpoint", lambda folder: live)
    passing = LowContrastScoring(desk.model, desk.project, "")
    passing._score_all([], live, None, {}, None)
    return [v for v in range(4) if desk.journal.scored_images(desk.model, v)]


def test_a_pass_looks_at_some_labelled_studies_soon_and_at_most_of_them_last(monkeypatch):
    monkeypatch.setattr(low_contrast, "_LABELLED_SOON", 2)
    records = [Record(f"{'l' if i % 2 else 'u'}{i}", "x", "label" if i % 2 else None, "p") for i in range(16)]
    ordered = "".join(r.id[0] for r in in_turns(records))
    assert ordered == "uuuluuuluu" + 6 * "l"
    assert sorted(r.id for r in in_turns(records)) == sorted(r.id for r in records)
    assert in_turns([]) == []


def test_a_better_version_replaces_the_scores_of_the_older(desk, monkeypatch):
    score(desk, publish(desk, {"a": 0.8, "b": 0.9, "c": 0.7}))
    assert has_passed(desk, publish(desk, {"a": 0.8, "b": 0.9, "c": 0.8}), monkeypatch) == [0, 2]
    assert desk.view().version == 2


def test_a_weak_version_leaves_choosing_to_the_one_before(desk, monkeypatch):
    score(desk, publish(desk, {"a": 0.8, "b": 0.9, "c": 0.7}))
    assert has_passed(desk, publish(desk, {"a": 0.2, "b": 0.3, "c": 0.4}), monkeypatch) == [0, 1, 2]
    assert desk.view().version == 1


def test_a_version_that_never_went_live_has_nothing_to_choose_by(desk, monkeypatch):
    score(desk, publish(desk, {"a": 0.8, "b": 0.9, "c": 0.7}))
    publish(desk, {"a": 0.8, "b": 0.9, "c": 0.6})  # good, but nobody has asked it
    assert has_passed(desk, publish(desk, {"a": 0.2, "b": 0.3, "c": 0.4}), monkeypatch) == [0, 1, 3]
    assert desk.view().version == 1


def test_a_weak_first_version_leaves_choosing_to_the_look_before_it(desk, monkeypatch):
    assert has_passed(desk, publish(desk, {"a": 0.2, "b": 0.3, "c": 0.4}), monkeypatch) == [0, 1]
    assert desk.view().version == 0
    assert desk.view().pool.terms, "the images are known, none is served as not looked at"


def test_a_model_that_goes_live_during_a_pass_ends_it_and_no_scores_mix(desk, monkeypatch):
    """The scores of the old model stay its own, and choosing goes on with the newest model that has looked at enough."""
    images = [i for i in desk.studies.list_images() if i in desk.studies.get_unlabeled_images()]
    first = publish(desk, {"a": 0.8, "b": 0.9, "c": 0.7})
    monkeypatch.setattr(low_contrast, "_COMMIT_EVERY", 2)
    monkeypatch.setattr(low_contrast, "load_case", lambda *_: None)
    passing = LowContrastScoring(desk.model, desk.project, "")

    def swapped(image, *_):
        if image == images[2]:
            publish(desk, {"a": 0.8, "b": 0.9, "c": 0.8})
        return Score(image, {"lesion/present/margin": 0.5}, None)

    monkeypatch.setattr(passing, "_score", swapped)
    spec = SimpleNamespace(data=None, network=SimpleNamespace(classes=2))
    records = [Record(i, f"{i}.png", None, i) for i in images]
    reply = passing._score_all(records, SimpleNamespace(version=first, spec=spec), None, {}, None)
    assert (reply["scored"], reply["reason"]) == (4, "another model is live")
    assert desk.journal.scored_images(desk.model, first) == set(images[:4])
    assert desk.journal.scored_images(desk.model, first + 1) == set()
    assert desk.view().version == first
