"""Where the state of one project lives: its journal, and the folder of its models."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from lib.store.journal import Journal, JournalError

JOURNAL = "loco.sqlite"


@dataclass(frozen=True)
class ModelFolder:
    """Files of one model."""

    root: Path

    @property
    def live(self) -> Path:
        """The model that serves; replaced as a whole."""
        return self.root / "live.pt"

    @property
    def run(self) -> Path:
        """State of the run in progress, from which a stopped one goes on."""
        return self.root / "run.pt"

    @property
    def best(self) -> Path:
        """Best teacher of the run in progress."""
        return self.root / "candidate.pt"

    @property
    def lock(self) -> Path:
        """Held by the one process that trains."""
        return self.root / "train.lock"

    @property
    def stats(self) -> Path:
        """What MONAI Label shows as train_stats."""
        return self.root / "train_stats.json"

    def version(self, number: int) -> Path:
        """A kept version."""
        return self.root / "versions" / f"{number:04d}.pt"


@dataclass(frozen=True)
class Project:
    """The studies of one server: `journal` and the folder that holds the models trained on them."""

    journal: Journal
    folder: Path

    @property
    def cache(self) -> Path:
        """Loaded cases that trainings share; may be deleted at any time."""
        return self.folder / "cache"

    def model(self, name: str) -> ModelFolder:
        """Files of the model `name`, its folder made when missing."""
        root = self.folder / name
        root.mkdir(parents=True, exist_ok=True)
        return ModelFolder(root)


def open_project(app_dir: str | Path, studies: str) -> Project:
    """The journal lies in the studies, beside a datalist, or in the app's model folder when they are a DICOMweb address.

    Models live in `<app>/model/<project>/`, where the project's name is remembered in the journal: two folders of studies
    never share a model, and a folder that is moved keeps its own. A copy of a folder begins with a copy of its models.
    """
    models = Path(app_dir) / "model"
    if re.match(r"https?://", studies):
        name = _slug(studies) + "-" + hashlib.sha256(studies.rstrip("/").encode()).hexdigest()[:8]
        folder = models / name
        folder.mkdir(parents=True, exist_ok=True)
        return Project(Journal(folder / JOURNAL), folder)
    studies_folder = Path(studies).resolve()
    if studies_folder.suffix.lower() == ".json":
        studies_folder = state_of_list(studies_folder)
        studies_folder.mkdir(parents=True, exist_ok=True)
    if not os.access(studies_folder, os.W_OK):
        raise PermissionError(
            f"expected to write the journal {JOURNAL} and the labels into {studies_folder}, but it is read-only; "
            "allow writing or copy the studies"
        )
    journal = Journal(studies_folder / JOURNAL)
    return Project(journal, models / _project_name(journal, models))


def state_of_list(listed: Path) -> Path:
    """Folder beside a datalist JSON for its journal and the labels submitted to it."""
    return listed.resolve().with_suffix(".loco")


def _project_name(journal: Journal, models: Path) -> str:
    """The name in the journal; a new one for a new journal, and for one that was copied with its studies."""
    here = journal.path.parent
    name, home = journal.get("project"), journal.get("folder")
    if home is None:
        journal.make_labels_relative()
    known = name is not None and not (home and _is_copy(Path(home), here, name))
    if not known:
        copied, name = name, f"{_slug(here.name)}-{secrets.token_hex(4)}"
        if copied is not None and (models / copied).is_dir():
            _copy_models(models / copied, models / name)
        journal.set("project", name)
    if home != str(here):
        journal.set("folder", str(here))
    return name


def _is_copy(home: Path, here: Path, name: str) -> bool:
    """Whether the project `name` still lives in `home`, another folder than `here`."""
    try:
        if not (home / JOURNAL).is_file() or home.samefile(here):
            return False
        journal = Journal(home / JOURNAL)
        try:
            return journal.get("project") == name
        finally:
            journal.close()
    except (OSError, JournalError):  # nothing of ours, or nothing that can be looked at
        return False


def _copy_models(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.lock", "*.tmp", "cache", "uploads"))
    except OSError as e:
        shutil.rmtree(target, ignore_errors=True)
        raise JournalError(
            f"expected to copy the models of {source.name}, whose studies were copied, but: {e}; make room and start again"
        ) from e


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "studies"
