"""The strategies on a real journal and a list of studies: what is served, to whom, and never."""

import threading
import time

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib.activelearning.board import Board, enough_labels, is_usable, miss_rates
from lib.activelearning.next_image import LEASE_S, NextImage
from lib.core.policies import POLICIES
from lib.server.leases import picking_router, used
from lib.store.journal import Journal
from lib.store.project import Project
from lib.store.records import Score, Submission, Version

PATIENT = r"^(p\d+)_"


class Studies:
    fetches = True

    def __init__(self, images):
        self.images, self.labelled, self.wanted = list(images), set(), []

    def list_images(self):
        return list(self.images)

    def get_unlabeled_images(self):
        return [image for image in self.images if image not in self.labelled]

    def get_image_info(self, image_id):
        return {}

    def prefetch(self, images):
        self.wanted.append(images)


@pytest.fixture
def project(tmp_path):
    return Project(Journal(tmp_path / "journal.sqlite"), tmp_path / "project")


def add_scores(project, images, version=1, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for image in images:
        terms = {f"polyp/present/{t}": rng.random() for t in ("threshold_deficit", "margin", "feature_contrast")}
        terms |= {
            f"image/{t}": rng.random() for t in ("entropy", "margin", "clasp", "clasp polyp", "border", "epistemic")
        }
        rows.append(Score(image, terms, rng.normal(size=6).astype(np.float16).tobytes()))
    project.journal.put_scores("frame", version, rows, time.time())


def add_version(project, dice=0.8, cases=5):
    return project.journal.add_version("frame", "x.pt", "0", None, dice, cases, {}, True, time.time())


def submit(project, image, client="ann"):
    group = image.split("_")[0]
    project.journal.add_submission(image, group, f"{image}.png", "0", {"polyp": 1}, client, 1, time.time())
    project.journal.release(image)


def board_of(project):
    return Board("frame", project, PATIENT, 1, 0)


def strategy_of(project, name="low_contrast", control_share=0.0):
    return NextImage(name, board_of(project), control_share)


def images_of(count):
    return [f"p{i:04d}_1" for i in range(count)]


def scored(project, count=40, labelled=10):
    """Studies with scores by a live model, the first of them labelled."""
    studies = Studies(images_of(count))
    add_scores(project, studies.images)
    for image in studies.images[:labelled]:
        submit(project, image)
    add_version(project)
    return studies


def ask(strategy, studies, client="ann"):
    return strategy({"client_id": client}, studies)


def test_the_reply_says_what_was_chosen_and_why(project):
    studies = scored(project)
    reply = ask(strategy_of(project), studies)
    assert reply["id"] in studies.images[10:]
    assert (reply["model_version"], reply["left"], reply["stratum"]) == (1, 30, "polyp/present")
    assert reply["kind"] in ("low contrast", "variety")
    assert set(reply["terms"]) == {"threshold_deficit", "margin", "feature_contrast"}
    assert {"strategy", "seed", "turn", "queue", "beta", "rank", "of"} <= set(reply["why"])
    pick = project.journal.last_pick(reply["id"])
    assert (pick.strategy, pick.seed, pick.reason) == ("low_contrast", reply["why"]["seed"], reply["reason"])
    assert reply["id"] not in studies.wanted[0], "the others of the shortlist are made ready"


@pytest.mark.parametrize("name", ["low_contrast", "random_control", "coverage"])
def test_what_comes_next_is_made_ready_while_the_annotator_works(project, name):
    """Random controls and turns of the queues too: the answer to each request was fetched at the one before."""
    studies, strategy = scored(project), strategy_of(project, name, 0.3)
    served = [ask(strategy, studies, f"ann{i}")["id"] for i in range(12)]
    assert [wanted[0] for wanted in studies.wanted[:-1]] == served[1:]
    assert all(len(wanted) == len(set(wanted)) > 1 for wanted in studies.wanted)


def test_studies_that_are_files_already_are_not_made_ready(project):
    studies = scored(project)
    studies.fetches = False
    assert ask(strategy_of(project), studies)["id"]
    assert studies.wanted == []


@pytest.mark.parametrize("name", POLICIES)
def test_every_strategy_serves_every_study_once_and_ends(project, name):
    studies, strategy = scored(project, 24, 10), strategy_of(project, name, 0.1)
    served = []
    while reply := ask(strategy, studies):
        served.append(reply["id"])
        submit(project, reply["id"])
    assert sorted(served) == studies.images[10:]


def test_the_same_project_chooses_the_same_sequence(tmp_path):
    sequences = []
    for name in ("a", "b"):
        project = Project(Journal(tmp_path / f"{name}.sqlite"), tmp_path / "project")
        studies, strategy = scored(project), strategy_of(project, control_share=0.3)
        sequences.append([ask(strategy, studies, f"ann{i}")["id"] for i in range(12)])
    assert sequences[0] == sequences[1]


def test_two_annotators_never_hold_the_same_and_one_gets_ones_own_again(project):
    studies, strategy = scored(project), strategy_of(project)
    first = ask(strategy, studies)
    assert ask(strategy, studies)["id"] == first["id"]
    assert ask(strategy_of(project, "mean_entropy"), studies)["id"] == first["id"], "whatever the strategy"
    held = {ask(strategy, studies, f"ann{i}")["id"] for i in range(20)}
    assert len(held | {first["id"]}) == 21


def test_threads_at_the_same_moment_never_hold_the_same(project):
    studies, strategy = scored(project, 60), strategy_of(project)
    served = []
    threads = [
        threading.Thread(target=lambda i=i: served.append(ask(strategy, studies, f"a{i}")["id"])) for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(served)) == len(served) == 12


def test_one_annotator_who_asks_many_times_at_once_gets_one_image(project):
    studies, strategy = scored(project, 60), strategy_of(project)
    served = []
    threads = [threading.Thread(target=lambda: served.append(ask(strategy, studies, "ann")["id"])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == 12
    assert len(set(served)) == 1


def test_the_last_image_asked_for_twice_in_a_second(project):
    studies, strategy = scored(project, 11), strategy_of(project)
    assert ask(strategy, studies, "")["id"] == ask(strategy, studies, "")["id"] == "p0010_1"
    assert ask(strategy, studies, "ann") == {}


def test_thousands_of_images_that_were_never_served(project):
    studies = scored(project, 5000)
    assert ask(strategy_of(project), studies)["model_version"] == 1


def test_validation_patients_are_never_served(project):
    studies = scored(project, 30)
    sides = project.journal.assign_splits([image.split("_")[0] for image in studies.images], 0.5, 0)
    served = set()
    while reply := ask(strategy_of(project), studies, f"ann{len(served)}"):
        served.add(reply["id"])
    assert served == {image for image in studies.images[10:] if sides[image.split("_")[0]] == "train"}


def test_coverage_until_the_model_is_good_for_choosing(project):
    studies = Studies(images_of(40))
    rng = np.random.default_rng(0)
    rows = [Score(i, {"image/contrast": 0.5}, rng.normal(size=4).astype(np.float16).tobytes()) for i in studies.images]
    project.journal.put_scores("frame", 0, rows, time.time())
    add_scores(project, studies.images)
    strategy = strategy_of(project)
    add_version(project)
    assert ask(strategy, studies, "a")["kind"] == "coverage", "too few labels"
    for image in studies.images[:10]:
        submit(project, image)
    assert ask(strategy, studies, "b")["model_version"] == 1
    add_version(project, dice=0.3)
    assert ask(strategy, studies, "c")["model_version"] == 1, "the version before was better"


def test_a_new_model_chooses_as_soon_as_it_has_scored_enough(project):
    studies = scored(project, 40)
    add_version(project)
    strategy = strategy_of(project)
    assert ask(strategy, studies, "a")["model_version"] == 1
    add_scores(project, studies.images[:10], 2)
    assert ask(strategy, studies, "b")["model_version"] == 1
    add_scores(project, studies.images[10:30], 2)
    assert ask(strategy, studies, "c")["model_version"] == 2


def test_a_study_that_comes_later_is_served_too(project):
    studies, strategy = scored(project, 11), strategy_of(project)
    assert ask(strategy, studies, "a")["id"] == "p0010_1"
    studies.images.append("p9999_1")
    assert ask(strategy, studies, "b")["id"] == "p9999_1"


def test_the_thread_keeps_the_view(project):
    studies, board = scored(project), board_of(project)
    board.start(studies, warm=["low_contrast"])
    strategy = NextImage("low_contrast", board, 0.0)
    served = []
    for i in range(6):
        served.append(ask(strategy, studies, f"a{i}")["id"])
        submit(project, served[-1], f"a{i}")
    board.stop()
    assert len(set(served)) == 6, "labels since the view was built are looked up at the click"


def test_rules_of_the_switch():
    assert enough_labels(1000, 8, {"polyp": 3}, 1)
    assert not enough_labels(1000, 7, {"polyp": 7}, 1)
    assert not enough_labels(1000, 50, {"polyp": 50, "tool": 2}, 2)
    assert not enough_labels(1000, 50, {"polyp": 50}, 2)
    assert enough_labels(6, 2, {"polyp": 2}, 1)
    cases = {f"c{i}": {"polyp": 0.0 if i < 3 else 0.9, "tool": 0.5} for i in range(10)}
    version = Version("frame", 1, "x", "0", None, 0.4, 10, {"cases": cases}, True, 0.0)
    assert not is_usable(version)


def test_a_miss_needs_something_to_miss():
    def version(cases):
        return Version("frame", 1, "x", "0", None, 0.4, len(cases), {"cases": cases}, True, 0.0)

    def labels(images, *names):
        return {i: Submission(0, i, i, "x", "0", {n: 1 for n in names}, "ann", None, 0.0, None) for i in images}

    cases = {f"c{i}": {"polyp": 0.0 if i < 3 else 0.9, "tool": 0.5} for i in range(10)}
    both = labels(cases, "polyp", "tool")
    assert miss_rates(version(cases), both) == {"polyp": 0.3, "tool": 0.0}
    # a false alarm counts 0 and a rightly empty case 1: neither says how often a polyp is missed
    empty = {"e0": {"polyp": 0.0, "tool": 1.0}, "e1": {"polyp": 1.0, "tool": 1.0}}
    assert miss_rates(version(cases | empty), both | labels(empty)) == {"polyp": 0.3, "tool": 0.0}
    assert miss_rates(version({"c": {"polyp": 0.0}}), both) == {}, "one case is no rate"
    assert miss_rates(version(cases), labels(cases, "tool")) == {"tool": 0.0}


# --- over HTTP


@pytest.fixture
def http(project):
    studies = scored(project)
    app = FastAPI()
    app.include_router(picking_router("frame", studies, project.journal))
    return TestClient(app), studies


def test_skips_over_http(http, project):
    client, studies = http
    strategy = strategy_of(project)
    names = [entry["reason"] for entry in client.get("/loco/skip/reasons").json()["reasons"]]
    assert names == ["unreadable", "irrelevant", "duplicate", "unsure", "later"]
    image = ask(strategy, studies)["id"]
    answer = client.post("/loco/skip", json={"image": image, "client_id": "ann", "reason": "later"})
    assert answer.json() == {"image": image, "reason": "later", "for": "ann"}
    assert ask(strategy, studies)["id"] != image
    assert client.post("/loco/skip", json={"image": image, "client_id": "ann", "reason": "dull"}).status_code == 422
    unknown = client.post("/loco/skip", json={"image": "nothing", "client_id": "ann", "reason": "later"})
    assert (unknown.status_code, "expected the id of a study" in unknown.json()["detail"]) == (404, True)


def test_a_skipped_image_comes_when_nothing_else_is_left(http, project):
    client, studies = http
    strategy = strategy_of(project)
    image = ask(strategy, studies)["id"]
    client.post("/loco/skip", json={"image": image, "client_id": "ann", "reason": "unreadable"})
    served = []
    while reply := ask(strategy, studies, f"bob{len(served)}"):
        served.append(reply)
    assert [reply["id"] for reply in served].index(image) == len(served) - 1 == 29
    assert served[-1]["reason"] == "skipped before: nothing else is left"


def test_leases_over_http(http, project):
    client, studies = http
    image = ask(strategy_of(project), studies)["id"]
    (lease,) = client.get("/loco/leases").json()["leases"]
    assert (lease["image"], lease["client_id"]) == (image, "ann")
    assert 0 < lease["seconds_left"] <= LEASE_S
    assert client.post("/loco/renew", json={"image": image, "client_id": "ann"}).json()["seconds_left"] == LEASE_S
    other = client.post("/loco/renew", json={"image": image, "client_id": "bob"})
    assert (other.status_code, "to be held by bob" in other.json()["detail"]) == (409, True)
    assert client.post("/loco/release", json={"image": image, "client_id": "bob"}).status_code == 409
    assert client.post("/loco/release", json={"image": image, "client_id": "ann"}).json() == {"image": image}
    assert client.get("/loco/leases").json() == {"leases": []}
    (pick,) = client.get("/loco/picks").json()["picks"]
    assert (pick["image"], pick["client"], pick["details"]["stratum"]) == (image, "ann", "polyp/present")


def test_use_renews_a_lease(project):
    journal, now = project.journal, time.time()
    journal.lease(["a"], "ann", 5, now)
    used(journal, {"image": "a", "client_id": "bob"})
    assert journal.leases(now)[0].expires == pytest.approx(now + 5)
    used(journal, {"image": "a", "client_id": "ann"})
    assert journal.leases(now)[0].expires > now + LEASE_S - 5


# --- pins and what is foreseen


def test_a_pinned_study_is_served_first_and_no_name_gets_into_the_log(project, caplog):
    studies = scored(project)
    project.journal.pin("p0039_1", "Dr. Who", time.time())
    with caplog.at_level("INFO", logger="loco.decisions"):
        found = ask(strategy_of(project), studies)
    assert (found["id"], found["kind"]) == ("p0039_1", "pinned")
    assert found["reason"] == "pinned by Dr. Who: wanted before all others"
    assert '"why": "pinned"' in caplog.text
    assert "Who" not in caplog.text
    pick = project.journal.last_pick("p0039_1")
    assert (pick.reason, pick.details["kind"]) == (found["reason"], "pinned")


def test_a_pinned_study_of_a_validation_patient_or_one_that_is_gone_is_not_served(project):
    studies = scored(project)
    with project.journal.write() as connection:
        connection.execute("INSERT INTO splits VALUES ('p0039', 'validation')")
    for image in ("p0039_1", "gone"):
        project.journal.pin(image, "ann", time.time())
    assert ask(strategy_of(project), studies)["kind"] != "pinned"


def test_what_is_foreseen_is_what_is_served_while_nothing_else_happens(project):
    studies = scored(project)
    strategy = strategy_of(project, control_share=0.3)
    foreseen = strategy.forecast(strategy._board.view(studies), 12, time.time())
    served = [ask(strategy, studies, f"annotator {number}") for number in range(12)]
    assert [c.image for c in foreseen] == [s["id"] for s in served]
    assert [c.reason for c in foreseen] == [s["reason"] for s in served]
    assert "random control" in {c.kind for c in foreseen}


def test_no_more_is_foreseen_than_is_left(project):
    studies = scored(project, count=15, labelled=10)
    strategy = strategy_of(project)
    assert len(strategy.forecast(strategy._board.view(studies), 24, time.time())) == 5
