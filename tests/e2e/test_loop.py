"""The whole loop against the real server: next image, submit, retraining by itself, infer, crash, go on."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from requests_toolbelt.multipart.decoder import MultipartDecoder
from server import Server
from studies import write_frames

SETTINGS = {
    "labels": "lesion", "epochs": 2, "iterations": 3, "retrain_after": 3, "retrain_idle": 0, "models": "frame",
    "control_share": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """A server over 12 frames, and the truth of an ideal annotator."""
    root = tmp_path_factory.mktemp("loop")
    write_frames(root / "studies", root / "truth", 12)
    write_frames(root / "held_out", root / "held_out_truth", 1, seed=99)
    server = Server(root / "studies", root / "server.log", **SETTINGS).start()
    yield server, root
    server.stop()


def annotate(server: Server, root: Path, count: int, client: str = "ann", strategy: str = "low_contrast") -> list[dict]:
    """Ask, download, submit the truth, `count` times."""
    replies = []
    for _ in range(count):
        reply = server.post(f"/activelearning/{strategy}", json={"client_id": client}).json()
        assert server.get("/datastore/image", params={"image": reply["id"]}).ok
        info = [{"name": "lesion", "idx": 1}]
        answer = server.submit(reply["id"], root / "truth" / f"{reply['id']}.png", label_info=info, client_id=client)
        assert answer.ok, answer.text
        replies.append(reply)
    return replies


def finished(server: Server, after: int = 0):
    """The train_stats of a run that is over and newer than run `after`."""
    stats = server.stats("frame")
    return stats if stats.get("status") == "done" and stats["run"] > after else None


def test_infer_before_the_first_model_is_a_sentence(loop):
    server, _ = loop
    answer = server.post("/infer/frame", params={"image": "frame_000"})
    assert answer.status_code == 409
    assert "submit labels first" in answer.json()["detail"]


def test_training_without_a_label_says_so(loop):
    server, _ = loop
    assert server.post("/train/frame", json={}).ok

    def ended():
        task = server.get("/train/").json()
        return task if task["status"] in ("DONE", "ERROR") else None

    task = server.wait_for(ended)
    assert task["status"] == "ERROR"
    assert "submit a label first" in " ".join(task["details"])


def test_labels_accumulate_and_the_retraining_starts_by_itself(loop):
    server, root = loop
    replies = annotate(server, root, 3)
    assert all("coverage" in r["reason"] for r in replies)
    stats = server.wait_for(lambda: finished(server))
    assert stats["version"] == 1
    assert stats["labelled"] + stats["validation"] == 3
    assert stats["unlabelled"] == 9
    assert {"loss", "loss_sup", "loss_unsup", "loss_contrast", "mask_ratio"} <= set(stats["train"]["metrics"])
    assert (stats["epoch"], stats["total_epochs"]) == (2, 2)


def test_the_next_image_comes_from_the_model_and_is_never_a_labelled_one(loop):
    server, root = loop
    first = server.stats("frame")["run"]
    labelled = {i for i, o in server.get("/datastore/?output=all").json()["objects"].items() if "final" in o["labels"]}

    def scored():
        reply = server.post("/activelearning/random", json={"client_id": "looking"}).json()
        if reply.get("model_version") == 1:
            return reply
        server.post("/loco/release", json={"image": reply["id"], "client_id": "looking"})  # else it is served again
        return None

    reply = server.wait_for(scored)
    assert reply["id"] not in labelled
    assert any(word in reply["reason"] for word in ("low contrast", "possible miss", "variety"))
    served = [r["id"] for r in annotate(server, root, 3, client="second")]
    assert not labelled & set(served)
    assert reply["id"] not in served, "another annotator holds it"
    assert server.wait_for(lambda: finished(server, first))["version"] == 2


def test_infer_answers_in_every_form_that_viewers_ask_for(loop):
    server, root = loop
    image = {"image": "frame_000"}
    answer = server.post("/infer/frame", params=image, data={"params": "{}"})
    parts = {p.headers[b"Content-Disposition"].split(b'name="')[1].split(b'"')[0]: p
             for p in MultipartDecoder.from_response(answer).parts}  # fmt: skip
    mask = np.array(Image.open(io.BytesIO(parts[b"image"].content)))
    assert mask.shape == (56, 72)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    said = json.loads(parts[b"params"].content)
    assert said["model_version"] == server.stats("frame")["version"] or said["model_version"] >= 1
    assert 0 <= said["confidence"] <= 1
    assert said["label_names"] == {"lesion": 1}

    wishes = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    nrrd = server.post("/infer/frame", params={**image, "output": "image"}, data={"params": json.dumps(wishes)})
    assert nrrd.content.startswith(b"NRRD")
    header, data = nrrd.content.split(b"\n\n", 1)
    assert b"encoding: raw" in header
    assert np.frombuffer(data, np.uint8).reshape(56, 72).tolist() == mask.tolist()

    with (root / "held_out" / "frame_000.png").open("rb") as file:
        upload = server.post("/infer/frame", params={"output": "image"}, files={"file": ("held.png", file)})
    assert np.array(Image.open(io.BytesIO(upload.content))).shape == (56, 72)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.full((56, 72), 7, np.uint8), "expected label values 0 to 1"),
        (np.zeros((10, 10), np.uint8), "expected a label of shape"),
    ],
)
def test_an_unusable_label_is_refused_with_a_sentence_and_changes_nothing(loop, tmp_path, mask, sentence):
    server, _ = loop
    before = server.get("/datastore/?output=all").json()
    Image.fromarray(mask).save(tmp_path / "label.png")
    answer = server.submit("frame_001", tmp_path / "label.png")
    assert answer.status_code == 400
    assert sentence in answer.json()["detail"]
    after = server.get("/datastore/?output=all").json()
    assert {k: v["labels"] for k, v in after["objects"].items()} == {
        k: v["labels"] for k, v in before["objects"].items()
    }


def test_an_empty_file_and_an_unknown_image_are_refused(loop, tmp_path):
    server, root = loop
    (tmp_path / "label.png").write_bytes(b"")
    answer = server.submit("frame_001", tmp_path / "label.png")
    assert (answer.status_code, "0 bytes" in answer.json()["detail"]) == (400, True)
    answer = server.submit("no_such_frame", root / "truth" / "frame_000.png")
    assert answer.status_code == 404


def test_unknown_strategy_and_model_list_what_is_valid(loop):
    server, _ = loop
    answer = server.post("/activelearning/epistemic", json={})
    assert (answer.status_code, "low_contrast" in answer.json()["detail"]) == (404, True)
    answer = server.post("/infer/spleen", params={"image": "frame_000"})
    assert (answer.status_code, "frame" in answer.json()["detail"]) == (404, True)


def test_a_crash_in_training_loses_no_label_and_the_loop_goes_on(loop):
    """kill -9 of training and server at once; after the restart the run goes on and every label is there."""
    server, root = loop
    before = server.stats("frame")["run"]
    answer = server.submit("frame_000", root / "truth" / "frame_000.png")
    assert answer.ok
    for name in ("frame_001", "frame_002", "frame_003", "frame_004", "frame_005"):
        assert server.submit(name, root / "truth" / f"{name}.png").ok

    def in_progress():
        stats = server.stats("frame")
        return stats if stats["run"] > before and stats["status"] == "running" and stats["step"] >= 1 else None

    stats = server.wait_for(in_progress)
    labelled = server.get("/datastore/").json()["completed"]
    child = _training_pid(server)
    os.kill(child, signal.SIGKILL)
    server.stop(kill=True)
    server.start()
    assert server.get("/datastore/").json()["completed"] == labelled
    done = server.wait_for(lambda: finished(server, stats["run"]))
    assert done["labelled"] + done["validation"] == labelled


def _training_pid(server: Server) -> int:
    import psutil

    for child in psutil.Process(server.process.pid).children(recursive=True):
        if "train" in child.cmdline():
            return child.pid
    raise AssertionError("no training process")
