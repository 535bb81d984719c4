"""How a trained model goes live: compared on the same cases, written whole, kept, and taken back when asked."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from pathlib import Path

import torch
from filelock import FileLock

from lib.core.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    restore_network,
    save_checkpoint,
    why_not_continue,
)
from lib.core.files import replacing
from lib.core.spec import TaskSpec
from lib.core.validate import Validation, goes_live
from lib.store.journal import Journal
from lib.store.project import ModelFolder

logger = logging.getLogger(__name__)

KEEP = 5
"""Newest versions whose files are kept, the live one always besides."""


def live_checkpoint(folder: ModelFolder) -> Checkpoint | None:
    """The live model, or None when there is none or its file is damaged (with a warning)."""
    if not folder.live.exists():
        return None
    try:
        return load_checkpoint(folder.live)
    except CheckpointError as e:
        logger.warning("The live model cannot be used: %s", e)
        return None


def publish(
    name: str,
    folder: ModelFolder,
    journal: Journal,
    checkpoint: Checkpoint,
    candidate: Validation,
    live: Validation | None,
    run_id: int,
) -> tuple[bool, str]:
    """Keep a trained model as a version and let it serve if it is not worse than the live one on the same cases.

    Args:
        name: model name.
        folder: its files.
        journal: where versions are listed.
        checkpoint: the trained model; its `version` and `metrics` are filled in.
        candidate: its Dice.
        live: Dice of the live model on the same cases; None when there is no live model.
        run_id: the training run.

    Returns:
        Whether it went live, and the reason in words.
    """
    wins, reason = goes_live(candidate, live)
    checkpoint.metrics = {**checkpoint.metrics, "dice": candidate.mean_dice, "cases": len(candidate.cases)}
    details = {"reason": reason, "per_class": candidate.per_class, "cases": candidate.cases}
    with _publishing(folder):
        number = _next_number(name, folder, journal)
        checkpoint.version = number
        path = folder.version(number)
        save_checkpoint(checkpoint, path)
        if wins:
            replace_file(path, folder.live)
        dice, cases = candidate.mean_dice, len(candidate.cases)
        journal.add_version(
            name, str(path), _sha256(path), run_id, dice, cases, details, wins, time.time(), at_least=number
        )
        _forget_old(name, folder, journal)
    return wins, reason


def adopt_live(name: str, folder: ModelFolder, journal: Journal) -> None:
    """List the live model in the journal if a crash came between its file and its entry, or the journal is new."""
    checkpoint = live_checkpoint(folder)
    if checkpoint is None:
        return
    current = journal.live_version(name)
    if current is not None and current.version == checkpoint.version:
        return
    if any(v.version == checkpoint.version for v in journal.versions(name)):
        journal.set_live(name, checkpoint.version)
        return
    if not folder.version(checkpoint.version).exists():
        replace_file(folder.live, folder.version(checkpoint.version))
    metrics = checkpoint.metrics
    journal.add_version(
        name,
        str(folder.version(checkpoint.version)),
        _sha256(folder.live),
        None,
        metrics.get("dice"),
        int(metrics.get("cases") or 0),
        {"reason": "found in the model folder"},
        True,
        time.time(),
        at_least=checkpoint.version,
    )


def import_model(name: str, folder: ModelFolder, journal: Journal, file: Path, spec: TaskSpec) -> tuple[int, str]:
    """Let a model that came from elsewhere serve, as a new version.

    Args:
        name: model name.
        folder: its files.
        journal: where versions are listed.
        file: the checkpoint; it is read without running any code that it may hold.
        spec: what this server trains; labels, network and kind must be the same.

    Returns:
        The number of the version and the SHA-256 of its file.

    Raises:
        CheckpointError: it cannot be read, is of another specification, or its weights do not fit; nothing was changed.
    """
    checkpoint = _foreign_checkpoint(file, spec)
    with _publishing(folder):
        number = _next_number(name, folder, journal)
        checkpoint.version = number
        path = folder.version(number)
        save_checkpoint(checkpoint, path)
        replace_file(path, folder.live)
        digest = _sha256(path)
        metrics = checkpoint.metrics
        dice, cases = metrics.get("dice"), int(metrics.get("cases") or 0)
        details = {"reason": "uploaded"}
        journal.add_version(name, str(path), digest, None, dice, cases, details, True, time.time(), at_least=number)
    return number, digest


def roll_back(name: str, folder: ModelFolder, journal: Journal, version: int) -> None:
    """Let an earlier version serve again. Raises `CheckpointError` when its file is gone or damaged."""
    load_checkpoint(folder.version(version))
    with _publishing(folder):
        replace_file(folder.version(version), folder.live)
        journal.set_live(name, version)


def replace_file(source: Path, target: Path) -> None:
    """Copy beside the target, flush, rename: a reader never sees half a file."""
    with source.open("rb") as read, replacing(target) as write:
        shutil.copyfileobj(read, write)


def _foreign_checkpoint(file: Path, spec: TaskSpec) -> Checkpoint:
    try:
        checkpoint = load_checkpoint(file)
        obstacle = why_not_continue(checkpoint, spec)
        if obstacle:
            raise CheckpointError(f"expected a model of the same specification, but {obstacle}; train one here")
        restore_network(checkpoint)
        finite = all(bool(torch.isfinite(w).all()) for w in checkpoint.teacher.values() if w.is_floating_point())
    except (TypeError, AttributeError, KeyError, IndexError) as e:
        raise CheckpointError(
            f"expected a LoCo checkpoint, but its contents are of other types ({e}); export it again"
        ) from e
    if not finite:
        raise CheckpointError("expected finite weights, but some are not numbers; export the model again")
    return checkpoint


def _publishing(folder: ModelFolder) -> FileLock:
    """Held while versions change: a training, an upload and a roll-back never do so at once, in any process."""
    return FileLock(folder.root / "publish.lock", timeout=60)


def _next_number(name: str, folder: ModelFolder, journal: Journal) -> int:
    """Above every version listed and every file: one that a crash left without its entry is never written over."""
    listed = [v.version for v in journal.versions(name)]
    present = [int(p.stem) for p in folder.version(0).parent.glob("[0-9]*.pt") if p.stem.isdigit()]
    return max([*listed, *present], default=0) + 1


def _forget_old(name: str, folder: ModelFolder, journal: Journal) -> None:
    """Delete the files of old versions, and those that a crash left without an entry."""
    versions = journal.versions(name)
    kept = {folder.version(v.version) for v in versions if v.live} | {
        folder.version(v.version) for v in versions[-KEEP:]
    }
    for file in folder.version(0).parent.glob("[0-9]*.pt"):
        if file not in kept:
            file.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
