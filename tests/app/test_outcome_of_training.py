"""What becomes of a training: stopped and gone on with, which of its epochs is published, and whether that goes live."""

from __future__ import annotations

import pytest
from app.running import app_on, stopped_after_the_first_epoch, submit, train, with_milestones
from studies import write_frames

from lib.core.checkpoint import load_checkpoint
from lib.core.validate import Validation
from lib.trainers.publish import roll_back


def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    """Also in the network's dropout, which the default network for pictures has."""
    losses = []
    for name in ("whole", "stopped"):
        ids = write_frames(tmp_path / name / "studies", tmp_path / name / "truth", 3)
        app = app_on(tmp_path / name, tmp_path / name / "studies", epochs=2)
        submit(app, tmp_path / name / "truth", ids[:2])
        seen = losses_of(app)
        if name == "stopped":
            stopped_after_the_first_epoch(app)
        train(app)
        losses.append(seen)
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_why_a_stopped_training_does_not_go_on_is_said(tmp_path, caplog):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 3)
    app = app_on(tmp_path, tmp_path / "studies", epochs=2)
    submit(app, tmp_path / "truth", ids[:1])
    stopped_after_the_first_epoch(app)
    train(app, max_epochs=1)
    assert "its options were others: training.epochs 2, now 1" in caplog.text


def losses_of(app) -> list[float]:
    """The losses of all steps from now on."""
    losses = []

    def noting(milestones, context):
        done = milestones.iteration_done

        def iteration_done():
            losses.append(float(context.trainer.state.output[0]["loss"]))
            done()

        milestones.iteration_done = iteration_done

    with_milestones(app, noting)
    return losses


def test_a_stopped_training_is_not_gone_on_with_when_it_shall_start_anew(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 3)
    app = app_on(tmp_path, tmp_path / "studies", epochs=2)
    submit(app, tmp_path / "truth", ids[:1])
    epochs = stopped_after_the_first_epoch(app)
    train(app, pretrained=False)
    assert epochs == [1, 1, 2]


def test_a_model_of_another_network_goes_live_only_if_it_is_not_worse(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 15)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids)
    train(app)
    train(app, network="deeplabv3plus_resnet50")
    reasons = [v.details["reason"] for v in app._project.journal.versions("frame")]
    assert reasons[0] == "first model of its kind"
    assert reasons[1].endswith("on the same 3 cases")


def test_a_model_that_went_live_during_a_training_is_what_its_result_is_compared_with(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 15)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids)
    for _ in range(2):
        train(app)
    journal, folder = app._project.journal, app._project.model("frame")
    roll_back("frame", folder, journal, 1)
    seen = []

    def meanwhile(milestones, context):
        by_now = milestones._live_by_now

        def after_another_went_live():
            roll_back("frame", folder, journal, 2)
            before = app._trainers["frame"]._state.live
            assert before is not None
            seen.extend([by_now().cases, before.cases])
            return by_now()

        milestones._live_by_now = after_another_went_live

    with_milestones(app, meanwhile)
    train(app)
    now, before = seen
    assert now.keys() == before.keys()
    assert now == journal.versions("frame")[1].details["cases"]


@pytest.mark.parametrize(("second", "published"), [((0.9, 0.8, 0.5), 4), ((0.6, 0.5, 0.4), 2)])
def test_a_later_epoch_is_published_unless_it_is_measurably_worse(tmp_path, second, published):
    """Dice of three cases: 0.75, 0.74, 0.73 after the first epoch."""
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 4)
    app = app_on(tmp_path, tmp_path / "studies", epochs=2)
    submit(app, tmp_path / "truth", ids[:3])
    epochs = [(0.75, 0.74, 0.73), second]

    def measuring(milestones, context):
        milestones._measured = lambda *_: Validation(
            {i: {"lesion": d} for i, d in zip(ids, epochs.pop(0), strict=False)}
        )

    with_milestones(app, measuring)
    stats = train(app)
    live = load_checkpoint(app._project.model("frame").live)
    assert live.step == published
    assert stats["best_metric"] == pytest.approx(live.metrics["dice"])
