"""A training that torchrun starts beside a running server: two processes, one journal, one published version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from server import Server
from studies import write_frames

SETTINGS = {"labels": "lesion", "models": "frame", "epochs": 1, "iterations": 2}


def test_two_ranks_publish_to_the_running_server(tmp_path: Path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 8)
    server = Server(tmp_path / "studies", tmp_path / "server.log", auto_retrain=False, **SETTINGS).start()
    try:
        for image in ids[:5]:
            info = [{"name": "lesion", "idx": 1}]
            assert server.submit(image, tmp_path / "truth" / f"{image}.png", label_info=info, client_id="ann").ok
        assert server.post("/infer/frame", params={"image": ids[7]}).status_code == 409

        conf = [part for key, value in SETTINGS.items() for part in ("--conf", key, str(value))]
        done = subprocess.run(
            [
                sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                str(tmp_path / "app" / "train.py"), "--studies", str(tmp_path / "studies"), *conf,
            ],
            capture_output=True, text=True, timeout=600, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        assert "Rank 1 of 2 takes part" in done.stderr

        answer = server.post("/infer/frame", params={"image": ids[7], "output": "json"})
        assert answer.ok, answer.text
        assert answer.json()["model_version"] == 1
        stats = server.stats("frame")
        assert (stats["status"], stats["version"], stats["step"]) == ("done", 1, 2)
        assert server.get("/datastore/").json()["completed"] == 5
    finally:
        server.stop()
