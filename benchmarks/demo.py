"""The whole loop in one command: demo studies, the real server, and a simulated annotator who labels what it asks for.

    python benchmarks/demo.py [--labels 15] [--keep] [--exit-when-done]

What is shown: which image the server picked and why, labels accumulating, the training that the server starts by
itself, and Dice on held-out images before and after it. At the end the server stays up until Ctrl-C; with
--exit-when-done the exit status is 0 only if the last Dice is above the first. The server's own output is kept in
demo/server.log.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "apps" / "loco")]

import psutil  # noqa: E402
from benchmarks.annotator import Annotator, Limits, sentence_of  # noqa: E402
from benchmarks.demo_data import Studies, make_studies  # noqa: E402
from benchmarks.events import AnnotatorError  # noqa: E402
from benchmarks.show import Show, summary  # noqa: E402
from monailabel.client.client import MONAILabelClient, MONAILabelClientException  # noqa: E402
from rich.console import Console  # noqa: E402

from lib.store.project import JOURNAL, open_project  # noqa: E402

APP = ROOT / "apps" / "loco"
LABEL = "lesion"
_START_S = 300
_STOP_S = 15
_LOOK_S = 30
_IDLE_S, _IDLE_SHARE = 3.0, 0.2
_LOOKED = "for the cold start"
"""Part of the line that the server logs when it has looked at all studies."""
_LOG_LINES = 25
_NOISE = re.compile("nvim(g|age)codec", re.IGNORECASE)


class ServerError(RuntimeError):
    """The server did not start or went away; the message is a sentence for people."""


class Server:
    """The real server as a process of its own; leaving the block stops it and everything it started."""

    def __init__(self, studies: Path, port: int, conf: dict[str, str], log: Path) -> None:
        self.address, self.log = f"http://127.0.0.1:{port}", log
        settings = [part for key, value in conf.items() for part in ("--conf", key, value)]
        tools = Path(sys.executable).parent
        self._command = [str(tools / "monailabel"), "start_server", "--app", str(APP), "--studies", str(studies)]
        self._command += ["--host", "127.0.0.1", "--port", str(port), *settings]
        # MONAI Label looks for dcmqi's tools on the PATH; waiting threads give way, as in the Makefile
        path = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
        self._environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PATH": path}

    def __enter__(self) -> Server:
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self._family()
        for process in family[:1]:
            process.terminate()
        _, alive = psutil.wait_procs(family, timeout=_STOP_S if family else 0)
        for process in {*alive, *self._family()}:
            process.kill()
        psutil.wait_procs(alive, timeout=_STOP_S)
        self._process.wait(timeout=_STOP_S)

    def _family(self) -> list[psutil.Process]:
        """The server and its children, the server first."""
        try:
            server = psutil.Process(self._process.pid)
            return [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_until_it_answers(self) -> None:
        """Raises `ServerError` when it ends or does not answer in time."""
        began = time.monotonic()
        while time.monotonic() - began < _START_S:
            if self._process.poll() is not None:
                raise ServerError(f"the server ended with status {self._process.returncode} before it answered")
            try:
                MONAILabelClient(self.address).info()
                return
            except (OSError, MONAILabelClientException):
                time.sleep(0.5)
        raise ServerError(f"the server did not answer within {_START_S} s")

    def wait_until_it_has_looked(self) -> None:
        """Until it has looked at all studies once, which the first choices rest on; a person takes longer to begin."""
        began = time.monotonic()
        while time.monotonic() - began < _LOOK_S and _LOOKED not in self.log.read_text(errors="replace"):
            time.sleep(0.5)

    def wait_until_idle(self) -> None:
        """Until it has had little to do for a few seconds: it scores the studies with a new model beside other work."""
        began, spent = time.monotonic(), self._cpu_seconds()
        while time.monotonic() - began < _START_S:
            time.sleep(_IDLE_S)
            before, spent = spent, self._cpu_seconds()
            if abs(spent - before) < _IDLE_SHARE * _IDLE_S:  # less than before when a child has ended
                return

    def _cpu_seconds(self) -> float:
        seconds = 0.0
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def wait(self) -> int:
        """Until it ends by itself."""
        return self._process.wait()

    def last_lines(self) -> str:
        """How it ended, if it did, and the end of its log without the lines of libraries that say nothing."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if not _NOISE.search(line)]
        status = self._process.poll()
        ended = [] if status is None else [f"(the server process ended with status {status})"]
        return "\n".join([*lines[-_LOG_LINES:], *ended])


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise ServerError("no port is free on 127.0.0.1")


def fresh_studies(folder: Path, options: argparse.Namespace) -> Studies:
    """Studies made anew, everything of the last demo removed, its models too; with --keep those that are there."""
    contrast = folder / "contrast.json"
    if options.keep and contrast.exists():
        known = json.loads(contrast.read_text())
        return Studies(folder / "frames", folder / "truth", folder / "held_out", known)
    if (folder / "frames" / JOURNAL).exists():
        shutil.rmtree(open_project(APP, str(folder / "frames")).folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    return make_studies(folder, options.pool, options.held_out, options.size, options.seed)


def show_loop(server: Server, studies: Studies, options: argparse.Namespace, console: Console) -> bool:
    """Annotate until enough labels are in. Returns whether the last Dice is above the first."""
    notes = {image: f"lesion contrast {contrast:.2f}" for image, contrast in studies.contrast.items()}
    show = Show(console, notes)
    annotator = Annotator(server.address, studies.truth, studies.held_out, limits=Limits(silence=20))
    try:
        for event in annotator.run(options.labels, options.retrain_every):
            show(event)
    finally:
        show.stop()
        annotator.close()
    console.rule("What came out")
    summary(annotator, console)
    dice = [point.dice for point in annotator.curve if point.dice is not None]
    better = len(dice) > 1 and dice[-1] > dice[0] and not annotator.repeats
    if dice:
        show.say(f"Dice on held-out images: {dice[0]:.3f} with the first model, {dice[-1]:.3f} with the last.", "bold")
    return better


def demo(options: argparse.Namespace, console: Console) -> int:
    """Everything; the exit status."""
    began = time.monotonic()
    say = Show(console).say
    console.rule("LoCo for MONAI Label: the loop, end to end")
    studies = fresh_studies(options.folder, options)
    say(f"Studies: {len(list(studies.images.glob('*.jpg')))} frames in {studies.images}, none of them real.")
    conf = {
        "labels": LABEL,
        "retrain_after": str(options.retrain_every),
        "retrain_idle": "3",
        "epochs": str(options.epochs),
        "iterations": str(options.iterations),
        "seed": str(options.seed),
    }
    port = free_port(options.port)
    with Server(studies.images, port, conf, options.folder / "server.log") as server:
        try:
            say(f"Starting the server at {server.address} (about half a minute) ...")
            server.wait_until_it_answers()
            server.wait_until_it_has_looked()
            better = show_loop(server, studies, options, console)
        except (ServerError, AnnotatorError, MONAILabelClientException) as e:
            say(f"The demo stopped: {sentence_of(e)}", "red")
            say(f"The last lines of {server.log}:\n{server.last_lines()}")
            return 1
        minutes = (time.monotonic() - began) / 60
        say(f"That took {minutes:.1f} min. Server log: {server.log}")
        if options.exit_when_done:
            return 0 if better else 1
        say(f"Annotate the frames yourself, in a browser: {server.address}/ohif/", "bold")
        say(f"It stays up. Project: {server.address}/loco/ API: {server.address}/openapi.json Ctrl-C ends it.")
        try:
            server.wait()
        except KeyboardInterrupt:
            say("Stopped.")
            return 0
        say(f"The server ended. The last lines of {server.log}:\n{server.last_lines()}", "red")
        return 1


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=15, help="labels to submit")
    parser.add_argument("--retrain-every", type=int, default=5, help="labels after which the server retrains")
    parser.add_argument("--epochs", type=int, default=3, help="of one training")
    parser.add_argument("--iterations", type=int, default=12, help="optimiser steps per epoch")
    parser.add_argument("--pool", type=int, default=60, help="frames to label")
    parser.add_argument("--held-out", type=int, default=32, help="frames to measure on")
    parser.add_argument("--size", type=int, default=256, help="of a frame, pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8000, help="another one is taken if it is in use")
    parser.add_argument("--folder", type=Path, default=ROOT / "demo", help="where studies and log go")
    parser.add_argument("--keep", action="store_true", help="go on with the studies and labels of the last demo")
    parser.add_argument("--exit-when-done", action="store_true", help="stop the server at the end")
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run the demo; Ctrl-C and SIGTERM stop the server and its children."""
    signal.signal(signal.SIGTERM, _interrupt)
    logging.getLogger().setLevel(logging.WARNING)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        return demo(arguments_of(arguments), console)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
