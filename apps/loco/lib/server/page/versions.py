"""The versions of the model: figures, roll-back, and bundles that are made in a process of their own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from fastapi import HTTPException

from lib.core.checkpoint import CheckpointError
from lib.core.methods import note
from lib.decisions import decided
from lib.server.page.desk import Desk
from lib.server.page.models import Bundle, Models, ModelVersion
from lib.server.page.worker import Worker
from lib.store.records import Version
from lib.trainers.publish import KEEP, roll_back

EXPORT = Path(__file__).resolve().parents[3] / "export.py"
FOLDER = "bundles"
"""In the folder of the project."""
_KEPT_BUNDLES = 3
_LIMIT_S = 1800
_SUFFIX = ".zip"
_LAST_WORDS = 300


class Versions:
    """The fifth panel. Exports run one at a time, in a process of their own, since they change PyTorch while they trace."""

    def __init__(self, desk: Desk, place: str) -> None:
        """`place`: `--studies` of the server."""
        self._desk, self._place = desk, place
        self._root = desk.project.folder / FOLDER
        self._worker = Worker("loco-bundles", 1, 10)
        self._started: dict[int, float] = {}
        self._took: dict[int, float] = {}

    def mark(self) -> str:
        """Changes with the state of any bundle."""
        files = sorted(f.name for f in self._root.glob(f"*{_SUFFIX}"))
        return (
            f"{files} {[(v, self._worker.state(str(v)), self._worker.failure(str(v))) for v in sorted(self._started)]}"
        )

    def all(self) -> Models:
        """All versions, newest first."""
        versions = self._desk.journal.versions(self._desk.model)
        counts = self._desk.journal.label_counts()
        shown = [self._shown(v, counts) for v in reversed(versions)]
        live = next((v.version for v in versions if v.live), None)
        return Models(model=self._desk.model, live=live, kept=KEEP, versions=shown)

    def go_live(self, version: int) -> ModelVersion:
        """Let an earlier version serve. Raises `HTTPException` 404 for an unknown one and 409 for one that cannot be used."""
        self._listed(version)
        try:
            roll_back(self._desk.model, self._desk.folder, self._desk.journal, version)
        except CheckpointError as e:
            raise HTTPException(409, f"Version {version} does not go live, the present one goes on. {e}") from e
        decided("rolled back", model=self._desk.model, version=version, why="asked for on the page")
        return self._shown(self._listed(version), self._desk.journal.label_counts())

    def make_bundle(self, version: int) -> Bundle:
        """Begin to make a bundle unless it is there. Raises `HTTPException` 404 or 409 when there is nothing to make it of."""
        self._listed(version)
        known = self.bundle(version)
        if known.state in ("ready", "waiting", "running"):
            return known
        if not self._desk.folder.version(version).is_file():
            raise HTTPException(
                409, f"expected a version whose file is kept, but that of version {version} is gone; choose another"
            )
        self._worker.forgive(str(version))
        self._started[version] = time.monotonic()
        self._worker.ask(str(version), lambda: self._export(version))
        return self.bundle(version)

    def bundle(self, version: int) -> Bundle:
        """How far a bundle is."""
        file, state = self._file(version), self._worker.state(str(version))
        failure = self._worker.failure(str(version))
        if state:
            detail = "begins as soon as no other export runs" if state == "waiting" else "being exported"
            seconds = time.monotonic() - self._started[version]
            return _bundle(version, state, seconds, detail)
        if file.is_file():
            return _bundle(version, "ready", self._took.get(version), "", file)
        return _bundle(version, "failed", None, failure) if failure else _bundle(version, "none", None, "")

    def bundle_file(self, version: int) -> Path:
        """The archive. Raises `HTTPException` 404 when it is not there yet."""
        file = self._file(version)
        if not file.is_file():
            raise HTTPException(
                404, f"expected the bundle of version {version}, but it is not made yet; ask for it first"
            )
        return file

    def _listed(self, version: int) -> Version:
        known = {v.version: v for v in self._desk.journal.versions(self._desk.model)}
        if version not in known:
            names = ", ".join(map(str, known)) or "none yet"
            raise HTTPException(
                404, f"expected a version of the model ({names}), but got {version}; choose one of them"
            )
        return known[version]

    def _file(self, version: int) -> Path:
        return self._root / f"{self._name(version)}{_SUFFIX}"

    def _name(self, version: int) -> str:
        return f"loco_{self._desk.model}_v{version}"

    def _export(self, version: int) -> None:
        """Run the export command. Raises `CheckpointError` with what it said when it fails."""
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._root / self._name(version), ignore_errors=True)  # of an export that was killed
        models = str(self._desk.project.folder.parent.parent)
        command = [
            sys.executable, str(EXPORT), "--studies", self._place, "--to", str(self._root), "--version", str(version),
            "--name", self._name(version), "--app", models, "--zip",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as e:
            raise CheckpointError(f"expected the export to end within {_LIMIT_S // 60} min, but it did not") from e
        if done.returncode != 0:
            words = re.sub(
                r"^Not exported: ", "", done.stderr.strip().splitlines()[-1][:_LAST_WORDS] if done.stderr else ""
            )
            raise CheckpointError(words or f"the export ended with code {done.returncode}")
        self._took[version] = time.monotonic() - self._started[version]
        for old in sorted(self._root.glob(f"*{_SUFFIX}"), key=lambda f: f.stat().st_mtime)[:-_KEPT_BUNDLES]:
            old.unlink(missing_ok=True)

    def _shown(self, version: Version, counts: dict[int, int]) -> ModelVersion:
        file = self._desk.folder.version(version.version)
        run = self._desk.journal.run(version.run_id) if version.run_id is not None else None
        kept, method = file.is_file(), str(run.progress.get("method", "")) if run else ""
        return ModelVersion(
            version=version.version,
            ts=version.ts,
            live=version.live,
            dice=version.dice,
            cases=version.cases,
            per_class=version.details.get("per_class") or {},
            labels=counts.get(version.run_id) if version.run_id is not None else None,
            method=method,
            method_note=note(method),
            network=str(run.progress.get("network", "")) if run else "",
            run=version.run_id,
            reason=str(version.details.get("reason", "")),
            sha256=version.sha256,
            size_bytes=file.stat().st_size if kept else None,
            can_go_live=kept and not version.live,
            bundle=self.bundle(version.version),
        )


def _bundle(version: int, state: str, seconds: float | None, detail: str, file: Path | None = None) -> Bundle:
    return Bundle(
        version=version,
        state=state,
        seconds=round(seconds, 1) if seconds is not None else None,
        detail=detail,
        size_bytes=file.stat().st_size if file else None,
        href=f"/loco/page/models/{version}/bundle.zip" if file else None,
    )
