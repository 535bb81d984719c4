"""A real MONAI Label server process with the app, for the end-to-end tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import requests

from lib.core.images import LoadedImage, read_label

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 900


class Server:
    """`monailabel start_server --app apps/loco`, on a free port of this machine."""

    def __init__(
        self,
        studies: Path | str,
        log: Path,
        source: Path = ROOT / "apps/loco",
        environment: dict[str, str] | None = None,
        **conf: object,
    ) -> None:
        self.studies, self.log, self.port = studies, log, _free_port()
        app = log.parent / "app"  # a copy, so that models of tests do not pile up in the checkout
        shutil.copytree(source, app, ignore=shutil.ignore_patterns("model", "logs", "__pycache__"))
        self.url = f"http://127.0.0.1:{self.port}"
        options = [part for key, value in conf.items() for part in ("--conf", key, str(value))]
        self._command = [
            sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app),
            "--studies", str(studies), "--host", "127.0.0.1", "--port", str(self.port), *options,
        ]  # fmt: skip
        self.process: subprocess.Popen | None = None
        self.environment = dict(environment or {})

    def start(self) -> Server:
        """Start and wait until it answers; raises with the end of its log when it does not."""
        self.launch()
        return self.wait_until_up()

    def launch(self) -> None:
        """Start; several servers come up faster side by side."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_WAIT_POLICY": "PASSIVE", **self.environment}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self._command, stdout=out, stderr=out, env=environment, cwd=ROOT)

    def wait_until_up(self) -> Server:
        """Wait until it answers."""
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            try:
                if requests.get(f"{self.url}/info/", timeout=30).status_code in (200, 401):  # 401: it wants a login
                    return self
            except requests.RequestException:
                time.sleep(0.2)
        raise RuntimeError(f"the server did not answer:\n{self.tail()}")

    def run_to_exit(self, limit_s: float = START_LIMIT_S) -> str:
        """Start a server that is expected to refuse; returns what it printed."""
        done = subprocess.run(self._command, capture_output=True, text=True, timeout=limit_s, cwd=ROOT, check=False)
        return done.stdout + done.stderr

    def stop(self, kill: bool = False) -> None:
        """End the server and its children; `kill` ends it alone and at once, as a crash would."""
        if self.process is None:
            return
        if kill:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for member in family:
            if member.is_running():
                member.kill()
        self.process.wait()

    def get(self, path: str, **kwargs: object) -> requests.Response:
        """GET."""
        return requests.get(self.url + path, timeout=120, **kwargs)

    def post(self, path: str, **kwargs: object) -> requests.Response:
        """POST."""
        return requests.post(self.url + path, timeout=300, **kwargs)

    def submit(self, image: str, label: Path, tag: str = "", **params: object) -> requests.Response:
        """PUT a label as a viewer does."""
        import json

        query = {"image": image, **({"tag": tag} if tag else {})}
        with label.open("rb") as file:
            return requests.put(
                f"{self.url}/datastore/label",
                params=query,
                data={"params": json.dumps(params)},
                files={"label": (label.name, file)},
                timeout=120,
            )

    def stats(self, model: str) -> dict:
        """The model's train_stats."""
        return self.get("/info/").json()["train_stats"][model]

    def wait_for(self, condition, limit_s: float = 900):
        """Poll until `condition()` is true-ish and return it; raises with the end of the log when it never is."""
        limit = time.monotonic() + limit_s
        while time.monotonic() < limit:
            found = condition()
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(f"it did not happen within {limit_s} s; the server's log ends with:\n{self.tail()}")

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def volume_of(answer: requests.Response) -> LoadedImage:
    """A label volume that the server sent, in whatever format it keeps it: OHIF submits NRRD, others NIfTI."""
    assert answer.ok, answer.text
    with tempfile.NamedTemporaryFile(suffix=".nrrd" if answer.content.startswith(b"NRRD") else ".nii.gz") as file:
        file.write(answer.content)
        file.flush()
        return read_label(file.name)


def voxels_of(answer: requests.Response) -> np.ndarray:
    """Its voxels, X Y Z as stored."""
    return volume_of(answer).array[0].numpy()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
