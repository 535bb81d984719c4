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
    told = standing(TOLD, run(4), {77}, None)
    assert (told["run"], told["status"], told["epoch"], told["step"]) == (4, "running", 0, 0)


def test_one_whose_process_is_still_loading_is_starting():
    assert standing({}, None, {90}, None)["status"] == "starting"
    told = standing(TOLD, run(status="done"), {90}, 1)
    assert (told["status"], told["epoch"]) == ("starting", 0)
