"""What viewers are told of a training that could not tell it itself."""

from lib.store.records import Run
from lib.trainers.standing import standing

TOLD = {"run": 3, "status": "running", "epoch": 2, "total_epochs": 8, "step": 40}


def run(number=3, status="running", pid=77):
    return Run(number, "frame", "by hand", 0, pid, 1.0, 2.0, None, status, "", {})


def test_a_running_training_speaks_for_itself():
    assert standing(TOLD, run(), {77}, None) == TOLD
    assert standing({}, None, (), None) == {}


def test_one_that_was_stopped_is_not_running_any_more():
    assert standing(TOLD, run(status="stopped"), (), 4) == {**TOLD, "status": "stopped", "live_version": 4}


def test_a_new_one_does_not_show_the_progress_of_the_last():
    assert standing(TOLD, run(4), {77}, 2) == {"run": 4, "status": "running", "epoch": 0, "step": 0, "live_version": 2}


def test_one_whose_process_is_still_loading_is_starting():
    assert standing({}, None, {90}, None) == {"status": "starting", "epoch": 0, "step": 0}
    told = standing(TOLD, run(status="done"), {90}, 1)
    assert told == {"run": 3, "status": "starting", "epoch": 0, "step": 0, "live_version": 1}


def test_one_that_is_over_goes_on_speaking_while_its_process_ends():
    assert standing({**TOLD, "status": "done"}, run(status="done"), {77}, 1)["epoch"] == 2
