"""A simulated annotator: asks a running server for the next image, submits the true label, waits for the retraining.

    python benchmarks/annotate.py --server URL --truth FOLDER --labels N [--validation FOLDER] [--out FILE.json]

FOLDER of --truth holds one label file per image, of the same name and any extension. FOLDER of --validation holds
`images` and `labels`; the server segments each image after every training, and the result is compared on the voxels
of the image. Without it the Dice that the server measured itself is shown. Only the public REST API is used, through
monailabel's own client.

Exit status: 0 all labels were submitted, or nothing was left to label; 1 something did not hold (no training came, an
image was served twice, no label could be submitted); 2 it could not start.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.report import write  # noqa: E402
from monailabel.client.client import (  # noqa: E402
    MONAILabelClient,
    MONAILabelClientException,
    MONAILabelUtils,
)
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FOREGROUND = 255
"""Drawing programs save a mask of one class as 0 and 255."""

_ANSWER_S = 600
"""A request that takes longer is given up."""
_POLL_S = 1.0


class AnnotatorError(RuntimeError):
    """The loop cannot go on; the message is a sentence for people."""


# ---- what happens, in the order in which it does ----


@dataclass(frozen=True)
class Connected:
    """The server answered."""

    labels: dict[str, int]
    total: int
    labelled: int


@dataclass(frozen=True)
class Picked:
    """The server chose an image and it was downloaded. `repeated`: it had a label already, which must never happen."""

    number: int
    image: str
    reason: str
    score: float | None
    model_version: int | None
    repeated: bool = False


@dataclass(frozen=True)
class Labelled:
    """A label was submitted; `count` of them in this session."""

    image: str
    count: int


@dataclass(frozen=True)
class Skipped:
    """An image was passed by, or a held-out one left out."""

    image: str
    why: str


@dataclass(frozen=True)
class Waiting:
    """Nothing to do until the server has done something by itself."""

    what: str


@dataclass(frozen=True)
class Training:
    """Where the training is that the server started."""

    run: int
    step: int
    total: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingFailed:
    """A training ended with an error; the server tries again by itself."""

    why: str


@dataclass(frozen=True)
class Trained:
    """A training is done; `live` says whether its model serves now."""

    run: int
    version: int | None
    live: bool | None
    reason: str
    seconds: float


@dataclass(frozen=True)
class Measuring:
    """Held-out images segmented so far."""

    done: int
    total: int


@dataclass(frozen=True)
class Point:
    """One point of the learning curve. Dice is the mean over images and classes, `spread` the deviation over images."""

    labels: int
    version: int | None
    source: Literal["held-out images", "the server's validation cases"]
    dice: float | None
    spread: float | None
    per_class: dict[str, float]
    cases: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Exhausted:
    """Nothing is left to label."""


Event = (
    Connected
    | Picked
    | Labelled
    | Skipped
    | Waiting
    | Training
    | TrainingFailed
    | Trained
    | Measuring
    | Point
    | Exhausted
)


# ---- pure parts ----


def stem_of(name: str) -> str:
    """A file name without its extension, `.nii.gz` and `.seg.nrrd` as a whole.

    >>> stem_of("patient.01.nii.gz")
    'patient.01'
    """
    double = re.fullmatch(r"(.+)\.(?:nii\.gz|seg\.nrrd)", name, re.IGNORECASE)
    return double.group(1) if double else Path(name).stem


def truth_files(folder: Path) -> dict[str, Path]:
    """Files of a folder by stem; of several with the same stem the first by name."""
    if not folder.is_dir():
        raise AnnotatorError(f"expected a folder of label files, but {folder} is none; name another one")
    files = [p for p in sorted(folder.iterdir(), reverse=True) if p.is_file() and not p.name.startswith(".")]
    return {stem_of(p.name): p for p in files}


def label_indices(labels: Mapping[str, Any] | Sequence[str]) -> dict[str, int]:
    """Names to indices from `labels` of /info/, which may be a mere list of names; background left out."""
    if isinstance(labels, Mapping):
        return {str(n): int(i) for n, i in labels.items() if int(i) > 0}
    names = [n for n in labels if n.lower() != "background"]
    return {name: index for index, name in enumerate(names, start=1)}


def label_info(labels: Mapping[str, int]) -> list[dict[str, Any]]:
    """What viewers send with a label: which value is which class."""
    return [{"name": name, "idx": index} for name, index in labels.items()]


def read_mask(path: Path) -> np.ndarray:
    """Whole numbers of a label file: `H W` of a picture, else `X Y Z` turned to the nearest standard orientation."""
    if path.name.lower().endswith(PICTURES):
        array = np.asarray(Image.open(path))
        return array[..., 0] if array.ndim == 3 else array.astype(np.int64)
    if path.name.lower().endswith(".nrrd"):
        from monai.transforms import LoadImage

        loaded = LoadImage(image_only=True)(path)
        volume = nib.Nifti1Image(loaded.numpy().astype(np.int16), loaded.affine.numpy())
    else:
        volume = nib.load(path)
    array = np.asarray(nib.as_closest_canonical(volume).dataobj)
    return np.rint(array).astype(np.int64)


def dice_of_files(prediction: Path, truth: Path, labels: Mapping[str, int]) -> dict[str, float]:
    """Dice per class of two label files on the same voxels; a class absent from both counts 1, from one only 0.

    Raises:
        AnnotatorError: the shapes differ.
    """
    got, wanted = np.squeeze(read_mask(prediction)), np.squeeze(read_mask(truth))
    if got.shape != wanted.shape:
        raise AnnotatorError(
            f"expected the segmentation to have the shape {wanted.shape} of {truth.name}, but got {got.shape}; "
            "give the label file that belongs to this image"
        )
    if len(labels) == 1 and set(np.unique(wanted).tolist()) <= {0, FOREGROUND}:
        wanted = (wanted > 0) * next(iter(labels.values()))
    return {name: _dice(got == index, wanted == index) for name, index in labels.items()}


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def point_of_cases(labels: int, version: int | None, cases: Mapping[str, Mapping[str, float]]) -> Point:
    """Mean and spread of Dice over images, and the mean per class."""
    means = [float(np.mean(list(case.values()))) for case in cases.values()]
    names = next(iter(cases.values()), {})
    per_class = {name: float(np.mean([case[name] for case in cases.values()])) for name in names}
    dice, spread = (float(np.mean(means)), float(np.std(means))) if means else (None, None)
    return Point(labels, version, "held-out images", dice, spread, per_class, {k: dict(v) for k, v in cases.items()})


def point_of_stats(labels: int, stats: Mapping[str, Any]) -> Point:
    """The server's own validation Dice from train_stats; None where it has no validation cases yet."""
    metrics = stats.get("eval", {}).get("metrics", {})
    per_class = {k.removeprefix("val_dice_"): v for k, v in metrics.items() if k.startswith("val_dice_")}
    dice = metrics.get("val_mean_dice")
    return Point(labels, stats.get("version"), "the server's validation cases", dice, None, per_class)


# ---- the loop ----


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds: for a training to start, for its end, for the scores, for a silent server."""

    start: float = 300
    training: float = 3600
    scores: float = 600
    silence: float = 60


class Annotator:
    """Labels what the server asks for. `run` yields what happens; `curve`, `served` and `repeats` hold the outcome."""

    def __init__(
        self,
        server: str,
        truth: Path,
        held_out: Path | None = None,
        strategy: str = "low_contrast",
        limits: Limits | None = None,
    ) -> None:
        self._truth, self._strategy, self._limits = truth_files(truth), strategy, limits or Limits()
        self._held_out = _held_out_pairs(held_out) if held_out else {}
        self._server, self._name, self._renamed = server, f"annotator-{secrets.token_hex(3)}", 0
        self._folder = tempfile.mkdtemp(prefix="annotator-")
        self._client = self._new_client()
        self._labels: dict[str, int] = {}
        self._seen_run: int | None = None
        self._done: set[str] = set()
        self._error_seen = ""
        self.curve: list[Point] = []
        self.served: list[Picked] = []
        self.repeats: list[str] = []
        self.submitted = 0

    def close(self) -> None:
        """Remove temporary files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self) -> Connected:
        """Ask the server who it is. Raises `AnnotatorError` when it does not answer."""
        info = self._call(self._client.info, patience=0)
        self._labels = label_indices(info.get("labels") or {})
        if self._strategy not in info.get("strategies", {}):
            known = ", ".join(info.get("strategies", {}))
            raise AnnotatorError(f"expected a strategy, one of {known}, but got {self._strategy!r}; choose one of them")
        stats = _first_stats(info)
        if _is_over(stats) or not self._call(self._client.train_status, True):
            self._seen_run = stats.get("run")
        self._failure()  # what failed before is not ours to report
        objects = self._call(self._client.datastore).get("objects", {})
        self._done = {i for i, entry in objects.items() if "final" in (entry.get("labels") or {})}
        return Connected(self._labels, len(objects), len(self._done))

    def run(self, labels: int, retrain_every: int) -> Iterator[Event]:
        """Submit up to `labels` labels; after each `retrain_every` wait for the training and measure.

        Raises:
            AnnotatorError: the server is gone, or no training came.
        """
        yield self.connect()
        while self.submitted < labels:
            picked = self._next()
            if picked is None:
                yield Exhausted()
                return
            self.served.append(picked)
            yield picked
            if picked.repeated:
                self.repeats.append(picked.image)
                return
            outcome = self._submit(picked.image)
            yield outcome
            if isinstance(outcome, Labelled) and self.submitted % retrain_every == 0:
                yield from self._retraining(more=self.submitted < labels)

    # ---- one image ----

    def _next(self) -> Picked | None:
        reply = self._call(self._client.next_sample, self._strategy, {})
        image = reply.get("id")
        if not image:
            return None
        self._download(image)
        return Picked(
            len(self.served) + 1,
            image,
            str(reply.get("reason") or "no reason given"),
            reply.get("score"),
            reply.get("model_version"),
            image in self._done,
        )

    def _download(self, image: str) -> None:
        """As a viewer does before it shows the image; the client has no method of its own for this."""
        path = f"/datastore/image?image={MONAILabelUtils.urllib_quote_plus(image)}"
        status, body, _, _ = self._call(MONAILabelUtils.http_method, "GET", self._server.rstrip("/"), path)
        if status != 200 or not body:
            raise AnnotatorError(f"expected to download {image}, but the server answered {status}; look at its log")

    def _submit(self, image: str) -> Labelled | Skipped:
        truth = self._truth.get(image)
        if truth is None:
            self._leave()
            return Skipped(image, "there is no label file of that name")
        try:
            self._call(self._client.save_label, image, str(truth), "", {"label_info": label_info(self._labels)})
        except MONAILabelClientException as e:
            self._leave()
            return Skipped(image, sentence_of(e))
        self._done.add(image)
        self.submitted += 1
        return Labelled(image, self.submitted)

    def _leave(self) -> None:
        """An image that is not labelled stays ours until its lease ends; somebody else asks for the next one."""
        self._renamed += 1
        self._client = self._new_client()

    def _new_client(self) -> MONAILabelClient:
        name = f"{self._name}-{self._renamed}" if self._renamed else self._name
        return MONAILabelClient(self._server, tmpdir=self._folder, client_id=name)

    # ---- what the server does by itself ----

    def _retraining(self, more: bool) -> Iterator[Event]:
        yield Waiting("the training that the server starts by itself")
        began, stats = time.monotonic(), {}
        while not (self._is_new(stats) and _is_over(stats)):
            fresh = _first_stats(self._call(self._client.info))
            if self._is_new(fresh) and fresh != stats:
                yield _progress(fresh)
            stats = fresh
            failure = self._failure()
            if failure:
                yield TrainingFailed(failure)
            self._check_time(time.monotonic() - began, self._is_new(stats))
            time.sleep(_POLL_S)
        self._seen_run = stats.get("run")
        live = stats.get("live")
        reason = str(stats.get("reason") or "")
        yield Trained(int(stats["run"]), stats.get("version"), live, reason, time.monotonic() - began)
        yield from self._measure(stats)
        if live and more:
            yield from self._scores()

    def _is_new(self, stats: Mapping[str, Any]) -> bool:
        return stats.get("run") is not None and stats["run"] != self._seen_run

    def _failure(self) -> str:
        """Last line of a training task that ended with an error, once."""
        try:
            task = self._call(self._client.train_status)
        except MONAILabelClientException:  # 404: none was started yet
            return ""
        key = f"{task.get('id')}"
        if task.get("status") != "ERROR" or key == self._error_seen:
            return ""
        self._error_seen = key
        lines = [line for line in task.get("details") or [] if line.strip()]
        return lines[-1].strip() if lines else "look at the server's log"

    def _check_time(self, waited: float, started: bool) -> None:
        if waited > self._limits.training:
            raise AnnotatorError(f"expected the training to end, but it did not within {waited:.0f} s; see its log")
        if not started and waited > self._limits.start and not self._call(self._client.train_status, True):
            raise AnnotatorError(
                f"expected the server to start a training by itself, but none came within {waited:.0f} s; start the "
                "server with --conf auto_retrain true and a --conf retrain_after that is not above --retrain-every"
            )

    def _measure(self, stats: Mapping[str, Any]) -> Iterator[Event]:
        if not self._held_out:
            self.curve.append(point_of_stats(self.submitted, stats))
            yield self.curve[-1]
            return
        model = str(next(iter(self._call(self._client.info)["models"])))
        cases: dict[str, dict[str, float]] = {}
        version = None
        for number, (image, truth) in enumerate(self._held_out.items(), start=1):
            try:
                version, cases[image.name] = self._dice(model, image, truth)
            except (MONAILabelClientException, AnnotatorError, OSError) as e:
                yield Skipped(image.name, sentence_of(e))
            yield Measuring(number, len(self._held_out))
        self.curve.append(point_of_cases(self.submitted, version, cases))
        yield self.curve[-1]

    def _dice(self, model: str, image: Path, truth: Path) -> tuple[int | None, dict[str, float]]:
        extension = ".png" if image.name.lower().endswith(PICTURES) else ".nii.gz"
        wishes = {"result_extension": extension, "result_dtype": "uint8"}
        file, params = self._call(self._client.infer, model, "", wishes, file=str(image))
        if file is None:
            raise AnnotatorError("the server sent no segmentation")
        dice = dice_of_files(Path(file), truth, self._labels)
        Path(file).unlink(missing_ok=True)
        return (params or {}).get("model_version"), dice

    def _scores(self) -> Iterator[Event]:
        """The scoring pass follows a new model at once; a person would still be drawing while it runs."""
        path, began = "/scoring/?check_if_running=true", time.monotonic()
        said = False
        time.sleep(2 * _POLL_S)  # it starts within a second
        while time.monotonic() - began < self._limits.scores:
            status, *_ = self._call(MONAILabelUtils.http_method, "GET", self._server.rstrip("/"), path)
            if status != 200:
                return
            if not said:
                yield Waiting("the new model's look at all unlabelled images")
                said = True
            time.sleep(_POLL_S)

    def _call(self, request: Callable[..., Any], *arguments: Any, patience: float | None = None, **named: Any) -> Any:
        """One request; a server that is silent for a moment, as when it restarts, is asked again."""
        patience = self._limits.silence if patience is None else patience
        began = time.monotonic()
        while True:
            try:
                return request(*arguments, **named)
            except (ConnectionError, TimeoutError, socket.gaierror, http.client.HTTPException) as e:
                if time.monotonic() - began >= patience:
                    raise AnnotatorError(
                        f"expected a MONAI Label server at {self._server}, but it does not answer ({e}); start it first"
                    ) from e
                time.sleep(_POLL_S)


def sentence_of(error: Exception) -> str:
    """What a failed request says, for people: the server's own `detail` where it sent one."""
    text = error.msg if isinstance(error, MONAILabelClientException) else str(error)
    detail = re.search(r'\{"detail":.*\}', text)
    try:
        return str(json.loads(detail.group(0))["detail"]) if detail else text
    except ValueError:
        return text


def _held_out_pairs(folder: Path) -> dict[Path, Path]:
    labels = truth_files(folder / "labels")
    images = [p for p in sorted((folder / "images").iterdir()) if p.is_file() and not p.name.startswith(".")]
    pairs = {image: labels[stem_of(image.name)] for image in images if stem_of(image.name) in labels}
    if not pairs:
        raise AnnotatorError(
            f"expected images and labels of the same name in {folder}, but found none; name another folder"
        )
    return pairs


def _first_stats(info: Mapping[str, Any]) -> dict[str, Any]:
    return next(iter((info.get("train_stats") or {}).values()), None) or {}


def _is_over(stats: Mapping[str, Any]) -> bool:
    return stats.get("status") == "done"


def _progress(stats: Mapping[str, Any]) -> Training:
    metrics = {k: float(v) for k, v in stats.get("train", {}).get("metrics", {}).items()}
    return Training(int(stats["run"]), int(stats.get("step", 0)), int(stats.get("total_steps", 0)), metrics)


# ---- for people ----


class Show:
    """Prints events in plain words; in a terminal the training and the measuring are bars, elsewhere lines."""

    def __init__(self, console: Console, notes: Mapping[str, str] | None = None) -> None:
        """`notes`: something to add when an image is picked, by image."""
        self._console, self._notes = console, notes or {}
        self._bar: Progress | None = None
        self._task: Any = None
        self._kind = ""
        self._quarter = -1
        self._before: Point | None = None

    def __call__(self, event: Event) -> None:
        """Print one event."""
        name = type(event).__name__.lower()
        if name not in (self._kind, "skipped"):
            self.stop()
        getattr(self, f"_on_{name}")(event)

    def stop(self) -> None:
        """End a bar that is on the screen."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._kind, self._quarter = None, "", -1

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _on_connected(self, event: Connected) -> None:
        names = ", ".join(event.labels)
        self.say(f"Connected: {event.total} studies, {event.labelled} of them labelled. To outline: {names}.")

    def _on_picked(self, event: Picked) -> None:
        by = f"model version {event.model_version}" if event.model_version else "no model yet"
        note = f" [{self._notes[event.image]}]" if event.image in self._notes else ""
        self.say(f"{event.number:>3}. next image: {event.image}{note}", "bold")
        self.say(f"     why: {event.reason} ({by})")
        if event.repeated:
            self.say("     this image is labelled already and must not be served again: stopping", "red")

    def _on_labelled(self, event: Labelled) -> None:
        self.say(f"     label submitted, {event.count} so far", "green")

    def _on_skipped(self, event: Skipped) -> None:
        self.say(f"     {event.image} was left out: {event.why}", "yellow")

    def _on_waiting(self, event: Waiting) -> None:
        self.say(f"Waiting for {event.what} ...", "cyan")

    def _on_training(self, event: Training) -> None:
        terms = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in event.metrics.items())
        self._advance("training", f"training: step {event.step} of {event.total}", event.step, event.total, terms)

    def _on_trainingfailed(self, event: TrainingFailed) -> None:
        self.say(f"A training failed: {event.why}. The server tries again by itself.", "yellow")

    def _on_trained(self, event: Trained) -> None:
        state = {True: "is live", False: "is kept, the live one goes on", None: "is done"}[event.live]
        self.say(f"Trained: version {event.version} {state} after {event.seconds:.0f} s. {event.reason}", "green")

    def _on_measuring(self, event: Measuring) -> None:
        self._advance("measuring", "held-out images segmented through REST", event.done, event.total, "")

    def _on_point(self, event: Point) -> None:
        before = "no model" if self._before is None else _number(self._before.dice)
        classes = ", ".join(f"{k} {v:.3f}" for k, v in event.per_class.items()) if len(event.per_class) > 1 else ""
        after = f"{_number(event.dice)}" + (f" ± {event.spread:.3f}" if event.spread is not None else "")
        self.say(f"Dice on {event.source}: before {before}, now {after} {classes}".rstrip(), "bold green")
        self._before = event

    def _on_exhausted(self, event: Exhausted) -> None:
        self.say("Nothing is left to label: every image has a label, or somebody else holds it.")

    def _advance(self, kind: str, text: str, done: int, total: int, detail: str) -> None:
        if not self._console.is_terminal:
            quarter = 4 * done // max(1, total)
            if quarter != self._quarter and (detail or done == total):
                self.say(f"     {text}: {detail}" if detail else f"     {text}: {done} of {total}")
            self._kind, self._quarter = kind, quarter
            return
        if self._bar is None:
            columns = (TextColumn("     {task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=self._console)
            self._bar.start()
            self._task, self._kind = self._bar.add_task(text, total=total, detail=detail), kind
        self._bar.update(self._task, description=text, completed=done, total=total, detail=detail)


def curve_table(curve: Sequence[Point]) -> Table:
    """The learning curve."""
    classes = list(curve[0].per_class) if curve else []
    table = Table("labels", "model version", "Dice", *classes, title=f"Dice on {curve[0].source}" if curve else None)
    for point in curve:
        dice = _number(point.dice) + (f" ± {point.spread:.3f}" if point.spread is not None else "")
        row = [_number(point.per_class.get(name)) for name in classes]
        table.add_row(str(point.labels), str(point.version or "-"), dice, *row)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def summary(annotator: Annotator, console: Console) -> None:
    """Curve, order of the images, and whether a labelled image was served again."""
    if annotator.curve:
        console.print(curve_table(annotator.curve))
    images = [picked.image for picked in annotator.served]
    console.print("Served in this order: " + (", ".join(images) or "none"), markup=False, highlight=False)
    if len(images) > 1:
        same = images == sorted(images)
        console.print(f"This is {'the same as' if same else 'not'} the alphabetical order.", markup=False)
    if annotator.repeats:
        console.print(f"A labelled image was served again: {', '.join(annotator.repeats)}", style="red", markup=False)
    elif images:
        console.print(f"No labelled image was served again ({len(images)} requests).", markup=False, highlight=False)


def figures_of(annotator: Annotator) -> dict[str, Any]:
    """What --out keeps."""
    return {
        "curve": [asdict(point) for point in annotator.curve],
        "served": [asdict(picked) for picked in annotator.served],
        "submitted": annotator.submitted,
        "repeated": annotator.repeats,
    }


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address")
    parser.add_argument("--truth", type=Path, required=True, help="folder of label files")
    parser.add_argument("--labels", type=int, required=True, help="how many to submit")
    parser.add_argument("--validation", type=Path, help="folder with images and labels to measure on")
    parser.add_argument("--strategy", default="low_contrast")
    parser.add_argument("--retrain-every", type=int, default=5, help="labels after which to wait for a training")
    parser.add_argument("--start-limit", type=float, default=Limits.start, help="seconds to wait for one to start")
    parser.add_argument("--training-limit", type=float, default=Limits.training, help="seconds to wait for its end")
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Label, print, write; the exit status."""
    options = arguments_of(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    logging.getLogger().setLevel(logging.WARNING)
    socket.setdefaulttimeout(_ANSWER_S)
    try:
        limits = Limits(options.start_limit, options.training_limit)
        annotator = Annotator(options.server, options.truth, options.validation, options.strategy, limits)
        annotator.connect()
    except (AnnotatorError, MONAILabelClientException, OSError) as e:
        console.print(sentence_of(e), style="red", markup=False, highlight=False)
        return 2
    show, failed = Show(console), False
    try:
        for event in annotator.run(options.labels, options.retrain_every):
            show(event)
    except (AnnotatorError, MONAILabelClientException) as e:
        show.stop()
        console.print(sentence_of(e), style="red", markup=False, highlight=False)
        failed = True
    finally:
        show.stop()
        annotator.close()
    summary(annotator, console)
    if options.out:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k != "out"}
        settings["seeds"] = "the server's --conf seed; the annotator itself draws no random numbers"
        console.print(f"Written: {write(options.out.stem, settings, figures_of(annotator), options.out.parent)}")
    return 1 if failed or annotator.repeats or annotator.submitted == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
