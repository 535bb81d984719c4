"""How a trained model goes live: compared on the same cases, written whole, kept, and taken back when asked."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from pathlib import Path

from lib.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from lib.core.files import replacing
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
    number = max((v.version for v in journal.versions(name)), default=0) + 1
    checkpoint.version = number
    checkpoint.metrics = {**checkpoint.metrics, "dice": candidate.mean_dice, "cases": len(candidate.cases)}
    path = folder.version(number)
    save_checkpoint(checkpoint, path)
    if wins:
        replace_file(path, folder.live)
    details = {"reason": reason, "per_class": candidate.per_class, "cases": candidate.cases}
    journal.add_version(
        name, str(path), _sha256(path), run_id, candidate.mean_dice, len(candidate.cases), details, wins, time.time()
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


def roll_back(name: str, folder: ModelFolder, journal: Journal, version: int) -> None:
    """Let an earlier version serve again. Raises `CheckpointError` when its file is gone or damaged."""
    load_checkpoint(folder.version(version))
    replace_file(folder.version(version), folder.live)
    journal.set_live(name, version)


def replace_file(source: Path, target: Path) -> None:
    """Copy beside the target, flush, rename: a reader never sees half a file."""
    with source.open("rb") as read, replacing(target) as write:
        shutil.copyfileobj(read, write)


def _forget_old(name: str, folder: ModelFolder, journal: Journal) -> None:
    for version in journal.versions(name)[:-KEEP]:
        if not version.live:
            folder.version(version.version).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
