"""The strategies on a real journal and a list of studies: what is served, to whom, and never."""

import threading
import time

import pytest
from unit.activelearning.pools import add_scores, ask, scored, strategy_of, submit

from lib.core.policies import POLICIES
from lib.store.journal import Journal
from lib.store.project import Project


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


@pytest.mark.parametrize("name", ["low_contrast", "random_control"])
def test_what_can_hardly_be_judged_comes_last_unless_it_is_pinned(project, name):
    studies = scored(project, 36, 10)
    blurred, pinned = studies.images[20], studies.images[30]
    sharpness = {image: 0.05 if image in (blurred, pinned) else 1.0 for image in studies.images}
    add_scores(project, studies.images, extra={"quality/sharpness": sharpness})
    project.journal.pin(pinned, "boss", time.time())
    strategy = strategy_of(project, name, 0.2)
    served = []
    while reply := ask(strategy, studies):
        served.append(reply["id"])
        last = reply
        submit(project, reply["id"])
    assert sorted(served) == studies.images[10:], "nothing is lost"
    assert (served[0], served[-1]) == (pinned, blurred)
    assert (last["kind"], last["reason"]) == ("poor image", "blurred: nothing else is left")


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
