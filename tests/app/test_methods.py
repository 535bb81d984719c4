"""A method that needs more than a student and its teacher trains in the real app; what comes out is an ordinary model."""

from app.test_app import app_on, infer, submit, train
from studies import write_frames

from lib.core.checkpoint import load_checkpoint, restore_network


def test_a_method_with_two_networks_trains_publishes_infers_and_trains_again(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 4)
    app = app_on(tmp_path, tmp_path / "studies", method="cps", iterations=2)
    submit(app, tmp_path / "truth", ids[:2])
    stats = train(app)
    assert (stats["status"], stats["method"], stats["version"]) == ("done", "cps", 1)
    live = load_checkpoint(app._project.model("frame").live)
    assert live.spec.method.name == "cps"
    assert set(live.teacher) == set(restore_network(live).teacher.state_dict())
    infer(app, ids[3])
    assert train(app)["status"] == "done"
