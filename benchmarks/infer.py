"""What the server adds to the bare network: one inference over REST, and the pre-labelling of a pool.

    python benchmarks/infer.py [--repeats 20] [--frames 240] [--volumes 40] [--threads N] [--no-write]

Starts the real server on generated studies with an untrained model of the default size for this machine: 352 x 352 frames,
then volumes of 180 x 140 x 88 voxels. The bare network gets exactly the tensors that inference gives it (all windows of a
volume), in this process, in turns with the requests. A request counts from the first byte sent to the last received, with
the mask. Pre-labelling is the server's batch inference; its throughput counts from the first study read to the last draft
kept, beside that of the bare network on the same studies.

Goals: the median of a request is at most 1.5 times that of the bare network for the volume and at most 100 ms above it for
the frame; pre-labelling reaches 0.8 of the throughput of the bare network. Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco"), str(ROOT)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import requests  # noqa: E402
import torch  # noqa: E402
from benchmarks.demo import APP, Server, ServerError, free_port  # noqa: E402
from benchmarks.demo_data import make_frame  # noqa: E402
from benchmarks.report import write  # noqa: E402
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from lib.core.cases import load_case  # noqa: E402
from lib.core.checkpoint import Checkpoint  # noqa: E402
from lib.core.images import read_header  # noqa: E402
from lib.core.networks import NetworkOutput, build_network  # noqa: E402
from lib.core.plan import plan_task  # noqa: E402
from lib.core.predict import predict  # noqa: E402
from lib.core.spec import Kind, MethodSpec, TaskSpec  # noqa: E402
from lib.core.teacher import StudentTeacher  # noqa: E402
from lib.core.validate import Validation  # noqa: E402
from lib.progressbar import track  # noqa: E402
from lib.store.project import open_project  # noqa: E402
from lib.trainers.publish import publish  # noqa: E402

FRAME_SIDE, VOLUME_SHAPE = 352, (180, 140, 88)
VOLUME_TIMES, FRAME_ABOVE_MS, THROUGHPUT_SHARE = 1.5, 100.0, 0.8
LABEL = "lesion"
SEED = 0
_WAIT_S = 600
_ACCOUNT = re.compile(r"Pre-labelling ended after (?P<seconds>[0-9.]+) s: \{'label': (?P<label>\d+)")


@dataclass(frozen=True)
class Bare:
    """The network alone, in half precision on a GPU as inference is.

    `network` is in evaluation mode; `inputs` are for each study the tensors that inference gives it.
    """

    network: nn.Module
    inputs: list[list[Tensor]]

    @torch.no_grad()
    def seconds(self, study: int) -> float:
        """Time of all forward passes of one study."""
        started = time.perf_counter()
        for tensor in self.inputs[study]:
            with torch.autocast(tensor.device.type, enabled=tensor.is_cuda):
                output = self.network(tensor)
        if output.logits.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


class Recorder(nn.Module):
    """A network that remembers its inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.divisor = network, network.divisor
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> NetworkOutput:
        """As the network."""
        self.seen.append(x.clone())
        return self.network(x)


def make_studies(kind: Kind, count: int, folder: Path) -> list[Path]:
    """Generated studies of the sizes that the goals speak of."""
    folder.mkdir()
    rng = np.random.default_rng(SEED)
    paths = []
    for number in range(count):
        if kind == "frame":
            paths.append(folder / f"frame_{number:03d}.jpg")
            Image.fromarray(make_frame(rng, FRAME_SIDE, 0.7).image).save(paths[-1], quality=92)
        else:
            paths.append(folder / f"volume_{number:03d}.nii.gz")
            field = gaussian_filter(rng.standard_normal(VOLUME_SHAPE), 6)
            array = (500 + 4000 * field + rng.normal(0, 20, VOLUME_SHAPE)).astype(np.int16)
            nib.save(nib.Nifti1Image(array, np.eye(4)), paths[-1])
    return paths


def publish_untrained(kind: Kind, paths: Sequence[Path], studies: Path) -> tuple[TaskSpec, StudentTeacher, Path]:
    """A live model for the studies; its specification, its network and the folder to remove afterwards."""
    cuda = torch.cuda.is_available()
    spec = plan_task(kind, {LABEL: 1}, [read_header(str(p)) for p in paths], MethodSpec(), cuda)
    torch.manual_seed(SEED)
    network = StudentTeacher(build_network(spec.network, spec.data.spatial_dims)).eval()
    project = open_project(APP, str(studies))
    checkpoint = Checkpoint(spec, network.student.state_dict(), network.teacher.state_dict())
    publish(kind, project.model(kind), project.journal, checkpoint, Validation({}), None, 0)
    return spec, network, project.folder


def bare_network(spec: TaskSpec, network: StudentTeacher, paths: Sequence[Path], device: torch.device) -> Bare:
    """What the network sees of each study."""
    inputs = []
    teacher = network.teacher.to(device)
    for path in paths:
        recorder = Recorder(teacher)
        predict(recorder, load_case(str(path), None, spec.data, spec.network.classes), spec.data, device)
        inputs.append(recorder.seen)
    return Bare(teacher, inputs)


def request_seconds(address: str, kind: Kind, study: str) -> float:
    """One inference over REST, the mask included."""
    started = time.perf_counter()
    reply = requests.post(
        f"{address}/infer/{kind}", params={"image": study, "output": "image"}, data={"params": "{}"}, timeout=_WAIT_S
    )
    reply.raise_for_status()
    return time.perf_counter() - started


def prelabel(address: str, kind: Kind) -> dict[str, Any]:
    """Pre-label all studies of the server; its own account of seconds and drafts. Raises `ServerError` when it failed."""
    asked = requests.post(f"{address}/batch/infer/{kind}", params={"images": "all"}, json={}, timeout=_WAIT_S)
    asked.raise_for_status()
    limit = time.monotonic() + _WAIT_S
    while time.monotonic() < limit:
        task = requests.get(f"{address}/batch/infer/", timeout=_WAIT_S).json()
        if task["status"] in ("DONE", "ERROR"):
            return account_of(task)
        time.sleep(0.5)
    raise ServerError(f"expected pre-labelling to end within {_WAIT_S} s, but it did not; read the server's log")


def account_of(task: dict[str, Any]) -> dict[str, Any]:
    """Seconds and drafts of a batch inference, from the last lines of its log. Raises `ServerError` without them."""
    for line in reversed(task.get("details") or []):
        found = _ACCOUNT.search(line)
        if found:
            return {"seconds": float(found["seconds"]), "label": int(found["label"])}
    raise ServerError(
        f"expected the account of a batch inference, but it ended as {task['status']}; read the server's log"
    )


def measure(kind: Kind, count: int, repeats: int, console: Console) -> dict[str, Any]:
    """All figures of one kind of study."""
    with tempfile.TemporaryDirectory(prefix="infer-") as folder:
        studies = Path(folder) / "studies"
        paths = make_studies(kind, count, studies)
        spec, network, models = publish_untrained(kind, paths, studies)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bare = bare_network(spec, network, paths, device)
        port = free_port(8123)
        conf = {"labels": LABEL, "models": kind, "auto_retrain": "false"}
        try:
            with Server(studies, port, conf, Path(folder) / "server.log") as server:
                console.print(f"{kind}: starting the server ...")
                server.wait_until_it_answers()
                server.wait_until_it_has_looked()
                server.wait_until_idle()
                return _measured(server.address, kind, paths, bare, repeats)
        finally:
            for file in sorted(models.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            models.rmdir()


def _measured(address: str, kind: Kind, paths: Sequence[Path], bare: Bare, repeats: int) -> dict[str, Any]:
    ids = [p.name.split(".")[0] for p in paths]
    request_seconds(address, kind, ids[0])  # loads the model
    bare.seconds(0)
    requested, alone = [], []
    for number in track(range(repeats), f"Inferences of a {kind}"):
        study = number % len(ids)
        alone.append(bare.seconds(study))
        requested.append(request_seconds(address, kind, ids[study]))
    before = sum(bare.seconds(i) for i in range(len(ids)))
    account = prelabel(address, kind)
    after = sum(bare.seconds(i) for i in range(len(ids)))
    if account["label"] != len(ids):
        raise ServerError(f"expected {len(ids)} drafts, but the server kept {account['label']}")
    return {
        "rest_ms": _percentiles(requested),
        "bare_ms": _percentiles(alone),
        "times": statistics.median(requested) / statistics.median(alone),
        "above_ms": 1000 * (statistics.median(requested) - statistics.median(alone)),
        "prelabelled": len(ids),
        "prelabel_per_s": len(ids) / account["seconds"],
        "bare_per_s": 2 * len(ids) / (before + after),
        "throughput_share": (before + after) / 2 / account["seconds"],
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{p}": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 95)}


def missed(figures: dict[str, dict[str, Any]]) -> list[str]:
    """The goals that are not met, in words."""
    frame, volume = figures["frame"], figures["volume"]
    found = []
    if volume["times"] > VOLUME_TIMES:
        found.append(f"volume {volume['times']:.2f}x instead of {VOLUME_TIMES}x")
    if frame["above_ms"] > FRAME_ABOVE_MS:
        found.append(f"frame {frame['above_ms']:.0f} ms above instead of {FRAME_ABOVE_MS:.0f}")
    for kind, f in figures.items():
        if f["throughput_share"] < THROUGHPUT_SHARE:
            found.append(f"pre-labelling of {kind}s {f['throughput_share']:.2f} instead of {THROUGHPUT_SHARE}")
    return found


def show(console: Console, figures: dict[str, dict[str, Any]]) -> None:
    """One row per kind of study."""
    table = Table(
        "study", "REST p50 / p95 ms", "bare p50 / p95 ms", "times", "above ms", "drafts / s", "bare / s", "share"
    )
    for kind, f in figures.items():
        pairs = [f"{f[key]['p50']:.0f} / {f[key]['p95']:.0f}" for key in ("rest_ms", "bare_ms")]
        rates = [f"{f[key]:.2f}" for key in ("prelabel_per_s", "bare_per_s", "throughput_share")]
        table.add_row(kind, *pairs, f"{f['times']:.2f}", f"{f['above_ms']:.0f}", *rates)
    console.print(table)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="requests per kind of study")
    parser.add_argument("--frames", type=int, default=240, help="frames of the pool")
    parser.add_argument("--volumes", type=int, default=40, help="volumes of the pool")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the bare network")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=120)
    counts: dict[Kind, int] = {"frame": options.frames, "volume": options.volumes}
    figures = {kind: measure(kind, count, options.repeats, console) for kind, count in counts.items()}
    show(console, figures)
    failures = missed(figures)
    verdict = "goals met" if not failures else f"goal missed: {'; '.join(failures)}"
    line = (
        f"inference: frame {figures['frame']['above_ms']:.0f} ms above the bare network, volume "
        f"{figures['volume']['times']:.2f}x, pre-labelling {min(f['throughput_share'] for f in figures.values()):.2f} "
        f"of its throughput; {verdict}"
    )
    if not options.no_write:
        settings = {"seed": SEED, "repeats": options.repeats, "threads": options.threads, "counts": counts}
        write("infer", settings, {**figures, "line": line})
    print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
