"""The simulated annotator: a client of the public REST API that yields what happens."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.events import (
    AnnotatorError,
    Connected,
    Event,
    Exhausted,
    Labelled,
    Measuring,
    Picked,
    Point,
    Skipped,
    Trained,
    Training,
    TrainingFailed,
    Waiting,
)
from benchmarks.masks import (
    dice_of_files,
    held_out_pairs,
    label_indices,
    label_info,
    point_of_cases,
    point_of_stats,
    truth_files,
)
from monailabel.client.client import MONAILabelClient, MONAILabelClientException, MONAILabelUtils

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_POLL_S = 1.0


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
        self._held_out = held_out_pairs(held_out) if held_out else {}
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
            if self._is_new(fresh) and fresh.get("total_steps") and fresh != stats:
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


def _first_stats(info: Mapping[str, Any]) -> dict[str, Any]:
    return next(iter((info.get("train_stats") or {}).values()), None) or {}


def _is_over(stats: Mapping[str, Any]) -> bool:
    return stats.get("status") == "done"


def _progress(stats: Mapping[str, Any]) -> Training:
    metrics = {k: float(v) for k, v in stats.get("train", {}).get("metrics", {}).items()}
    return Training(int(stats["run"]), int(stats.get("step", 0)), int(stats.get("total_steps", 0)), metrics)
