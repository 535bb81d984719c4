"""The real app object on tiny studies of each kind: train, publish, infer, score, choose, all in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from app.running import app_on, infer, stopped_after_the_first_epoch, submit, train
from fastapi import HTTPException
from PIL import Image
from studies import write_frames, write_volumes

from lib.core.checkpoint import load_checkpoint
from lib.decisions import hashed_name

ORIENTATIONS = ("RAS", "LPS", "PIR", "SLA", "IPR", "ASL")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A trained slice app with three classes over volumes of many orientations."""
    root = tmp_path_factory.mktemp("slice")
    ids = write_volumes(root / "studies", root / "truth", 6, (40, 33, 7), (1.5, 1.5, 8.0), ORIENTATIONS, classes=3)
    app = app_on(root, root / "studies", labels="rv,myo,lv")
    submit(app, root / "truth", ids[:3])
    train(app)
    return app, ids, root


def test_thick_slices_choose_the_slice_model_with_all_classes(volumes):
    app, _, _ = volumes
    assert app._task.name == "slice"
    info = app.info()
    assert info["labels"] == {"rv": 1, "myo": 2, "lv": 3}
    assert list(info["models"]) == ["slice"]
    assert list(info["strategies"])[:2] == ["low_contrast", "random"]
    assert {"mean_entropy", "foreground_random", "random_control"} < set(info["strategies"])
    assert set(info["train_stats"]["slice"]["eval"]["metrics"]) <= {
        "val_mean_dice", "val_dice_rv", "val_dice_myo", "val_dice_lv",
    }  # fmt: skip


@pytest.mark.parametrize("index", range(len(ORIENTATIONS)))
@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
def test_masks_lie_on_the_voxels_of_the_image_in_each_orientation(volumes, index, extension):
    """The saved mask has the image's geometry and equals the prediction voxel by voxel."""
    from lib.core.images import read_label

    app, ids, root = volumes
    file, params = infer(app, ids[index], result_extension=extension)
    image = nib.load(root / "studies" / f"{ids[index]}.nii.gz")
    mask = read_label(file)
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    assert tuple(mask.array.shape[1:]) == image.shape
    expected = _prediction(app, root / "studies" / f"{ids[index]}.nii.gz")
    np.testing.assert_array_equal(mask.array[0].numpy(), expected)
    assert params["model_version"] == 1
    assert 0 <= params["confidence"] <= 1


def _prediction(app, path: Path) -> np.ndarray:
    from lib.core.cases import load_case
    from lib.core.checkpoint import restore_network
    from lib.core.predict import predict

    checkpoint = load_checkpoint(app._project.model("slice").live)
    network = restore_network(checkpoint).eval()
    case = load_case(str(path), None, checkpoint.spec.data, checkpoint.spec.network.classes)
    return predict(network.teacher, case, checkpoint.spec.data, torch.device("cpu")).native_label().numpy()


def test_scoring_writes_terms_of_every_class_and_the_strategy_reads_them(volumes):
    app, ids, _ = volumes
    result = app.scoring({"method": "low_contrast", "device": "cpu"})
    assert result["scored"] == 6
    rows = app._project.journal.scores("slice", 1)
    assert [r.image for r in rows] == sorted(ids)
    assert {"rv", "myo", "lv", "image", "quality"} == {name.split("/")[0] for r in rows for name in r.terms}
    assert all(value >= 0 for r in rows for value in r.terms.values())
    assert app.scoring({"method": "low_contrast", "device": "cpu"})["scored"] == 0, "each study once per version"
    reply = app.next_sample({"strategy": "random", "client_id": "a"})
    assert reply["id"] in ids[3:]
    assert (reply["model_version"], reply["why"]["strategy"]) == (1, "low_contrast")
    again = app.next_sample({"strategy": "low_contrast", "client_id": "a"})
    assert {**again, "left": 0} == {**reply, "left": 0}, "one's own open image, for the same reason"
    assert app.next_sample({"strategy": "low_contrast", "client_id": "b"})["id"] != reply["id"]
    pick = app._project.journal.last_pick(reply["id"])
    assert (pick.version, pick.reason, pick.details["terms"]) == (1, reply["reason"], reply["terms"])


def test_labels_whose_values_would_change_their_meaning_are_refused(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 2)
    submit(app_on(tmp_path, tmp_path / "studies", labels="lesion"), tmp_path / "truth", ids)
    with pytest.raises(
        SystemExit, match=r"expected --conf labels to keep .*\(lesion 1\), but got lesion 2; keep their"
    ):
        app_on(tmp_path, tmp_path / "studies", labels="benign,lesion")
    assert app_on(tmp_path, tmp_path / "studies", labels="lesion,benign").labels == {"lesion": 1, "benign": 2}


def test_volume_model_trains_resumes_and_segments(tmp_path):
    ids = write_volumes(tmp_path / "studies", tmp_path / "truth", 4, (36, 30, 28), (1.0, 1.0, 1.2), ("RAS", "LPS"))
    app = app_on(tmp_path, tmp_path / "studies", epochs=2)
    assert app._task.name == "volume"
    submit(app, tmp_path / "truth", ids[:2])

    epochs = stopped_after_the_first_epoch(app)
    folder = app._project.model("volume")
    assert load_checkpoint(folder.run).step == 2
    assert not folder.live.exists()
    submit(app, tmp_path / "truth", ids[2:3])
    stats = train(app)
    assert epochs == [1, 2], "the second epoch only"
    assert app._project.journal.last_run().last_submission == 2, (
        "the label that came since starts a training of its own"
    )
    assert (stats["status"], stats["version"], stats["step"]) == ("done", 1, 4)
    assert not folder.run.exists()
    file, _ = infer(app, ids[3])
    assert nib.load(file).shape == (36, 30, 28)


def test_options_of_the_viewers_do_what_they_say(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 4)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids[:1])
    stats = train(app, max_epochs=2, iterations_per_epoch=1, method=["supervised"], train_batch_size=1)
    assert (stats["method"], stats["total_epochs"], stats["total_steps"], stats["labelled"]) == ("supervised", 2, 2, 1)
    with pytest.raises(ValueError, match="expected `max_epochs` to be a whole number from 1"):
        train(app, max_epochs="many")
    with pytest.raises(ValueError, match="one of loco, supervised, mean_teacher, fixmatch"):
        train(app, method="magic")
    with pytest.raises(
        ValueError, match=r"expected a slice model for the method spcl, which compares slices .* a frame model"
    ):
        train(app, method="spcl")
    with pytest.raises(ValueError, match="deeplabv3plus_efficientnet_lite0"):
        train(app, network="unet3d")
    run = app._project.journal.last_run()
    assert run.status == "failed"


def test_everything_labelled_is_plain_supervised_training(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 2)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids)
    stats = train(app)
    assert (stats["unlabelled"], stats["train"]["metrics"]["mask_ratio"]) == (0, 0.0)
    assert app.next_sample({"strategy": "low_contrast"}) == {}


def test_bad_studies_are_skipped_with_a_warning_that_names_their_hashes(tmp_path, caplog):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 5)
    (tmp_path / "studies" / "empty.png").write_bytes(b"")
    (tmp_path / "studies" / "text.jpg").write_text("not a picture")
    app = app_on(tmp_path, tmp_path / "studies", iterations=4)
    submit(app, tmp_path / "truth", ids[:1])
    stats = train(app)
    assert stats["status"] == "done"
    text = " ".join(r.getMessage() for r in caplog.records)
    for name in ("empty", "text"):
        assert f"{hashed_name(name)}: expected" in text
        assert f"{name}." not in text, "a file may be called after its patient"
    with pytest.raises(HTTPException, match="0 bytes"):
        infer(app, "empty")


def test_a_label_dropped_into_the_folder_counts(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 3)
    app = app_on(tmp_path, tmp_path / "studies")
    shutil.copy(tmp_path / "truth" / f"{ids[0]}.png", tmp_path / "studies/labels/final" / f"{ids[0]}.png")
    app.datastore().refresh()
    assert app.datastore().sync_journal() == 1
    assert app._project.journal.labelled_images() == {ids[0]}
    app.datastore().remove_label(ids[0], "final")
    app.datastore().refresh()
    app.datastore().sync_journal()
    assert app._project.journal.labelled_images() == set()


def test_a_share_that_is_not_mounted_for_a_while_removes_no_label(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 2)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids)
    (tmp_path / "studies/labels/final").rename(tmp_path / "away")
    assert app.datastore().sync_journal() == 0
    (tmp_path / "away").rename(tmp_path / "studies/labels/final")
    assert app.datastore().sync_journal() == 0
    assert [s.client for s in app._project.journal.submissions()] == ["ann", "ann"]


def test_a_resubmission_in_another_format_leaves_no_orphan(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 1)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids)
    mask = np.zeros((72, 56), np.uint8)
    mask[20:40, 10:20] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "again.nii.gz")
    app.datastore().save_label(ids[0], str(tmp_path / "again.nii.gz"), "final", {})
    files = sorted(p.name for p in (tmp_path / "studies/labels/final").iterdir())
    assert files == [f"{ids[0]}.nii.gz"]
    assert len(app._project.journal.submissions()) == 2


def test_names_come_from_submitted_labels_when_none_are_given(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 2)
    app = app_on(tmp_path, tmp_path / "studies", labels="tumour")
    submit(app, tmp_path / "truth", ids[:1])
    again = app_on(tmp_path, tmp_path / "studies", labels="")
    assert again.info()["labels"] == {"tumour": 1}


def test_drafts_of_a_pool_are_kept_as_original_labels(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 4)
    app = app_on(tmp_path, tmp_path / "studies")
    submit(app, tmp_path / "truth", ids[:2])
    train(app)
    request = {"model": app._task.name, "images": "unlabeled"}
    reply = app.batch_infer(request)
    assert (reply["label"], reply["error"]) == (2, 0)
    for image_id in ids[2:]:
        draft = Image.open(app.datastore().get_label_uri(image_id, "original"))
        assert draft.size == Image.open(app.datastore().get_image_uri(image_id)).size
    assert app.batch_infer(request)["skipped"] == 2
    assert sorted(app.datastore().get_unlabeled_images()) == ids[2:]
