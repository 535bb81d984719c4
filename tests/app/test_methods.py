"""Every method in the real app: what comes out is an ordinary model, that segments, scores, chooses and is trained again."""

import pytest
from app.running import app_on, infer, submit, train, with_milestones
from studies import write_frames, write_volumes

from lib.core.checkpoint import load_checkpoint, restore_network
from lib.core.methods import METHODS

OF_EVERY_METHOD = [(name, next(k for k in ("slice", "volume") if k in m.kinds)) for name, m in METHODS.items()]


def studies_of(kind, root):
    """Four small studies that ask for a kind of model; their ids."""
    folder, truth = root / "studies", root / "truth"
    if kind == "frame":
        return write_frames(folder, truth, 4)
    if kind == "slice":
        return write_volumes(folder, truth, 4, (40, 33, 7), (1.5, 1.5, 8.0), ("RAS",))
    return write_volumes(folder, truth, 4, (36, 30, 28), (1.0, 1.0, 1.2), ("RAS",))


@pytest.mark.parametrize(("method", "kind"), [*OF_EVERY_METHOD, ("cps", "frame"), ("medl", "frame")], ids=str)
def test_it_trains_publishes_infers_scores_chooses_and_trains_again(tmp_path, method, kind):
    ids = studies_of(kind, tmp_path)
    app = app_on(tmp_path, tmp_path / "studies", method=method, iterations=4)
    assert app._task.name == kind
    submit(app, tmp_path / "truth", ids[:2])
    stats = train(app)
    assert (stats["status"], stats["method"], stats["version"]) == ("done", method, 1)

    live = load_checkpoint(app._project.model(kind).live)
    assert live.spec.method.name == method
    assert set(live.teacher) == set(restore_network(live).teacher.state_dict())
    _, params = infer(app, ids[3])
    assert (params["model_version"], params["method"]) == (1, method)
    assert app.scoring({"method": "low_contrast", "device": "cpu"})["scored"] == len(ids)
    reply = app.next_sample({"strategy": "low_contrast", "client_id": "ann"})
    assert reply["id"] in ids[2:]
    assert reply["model_version"] == 1

    again = train(app)
    assert (again["status"], again["method"]) == ("done", method)
    assert again["epoch"] == again["total_epochs"]


@pytest.mark.parametrize("method", ["aua", "medl"])
def test_a_fresh_network_has_a_rate_and_an_optimiser_of_its_own(tmp_path, method):
    ids = studies_of("slice", tmp_path)
    app = app_on(tmp_path, tmp_path / "studies", method=method, iterations=6)
    submit(app, tmp_path / "truth", ids[:2])
    rates, ages = [], []

    def following(milestones, context):
        done, parameter = milestones.iteration_done, next(context.network.student.parameters())

        def iteration_done():
            done()
            rates.append(context.optimizer.param_groups[0]["lr"])
            ages.append(int(context.optimizer.state[parameter]["step"]))

        milestones.iteration_done = iteration_done

    with_milestones(app, following)
    train(app)
    if method == "aua":
        assert ages == [1, 2, 3, 1, 2, 3]
        assert rates[:3] == rates[3:] == sorted(rates[:3], reverse=True)
    else:
        assert ages == [1, 2, 3, 4, 5, 6]
        assert rates == sorted(set(rates), reverse=True)
