"""A version of a project's model, written as a MONAI bundle."""

from __future__ import annotations

from pathlib import Path

from lib.core.bundle.export import PARTS, Exported, export_bundle
from lib.core.checkpoint import CheckpointError, load_checkpoint
from lib.core.spec import KINDS
from lib.progressbar import progress
from lib.store.project import ModelFolder, Project


def export_version(project: Project, target: Path, version: int | None = None, name: str | None = None) -> Exported:
    """Export the model of a project.

    Args:
        project: whose model.
        target: folder to write into, made when missing.
        version: number of a kept version; None is the live one.
        name: of the bundle; None is `loco_<kind>_v<version>`.

    Returns:
        The bundle.

    Raises:
        CheckpointError: there is no such version, or the bundle is there already.
    """
    folder = _trained(project)
    path = folder.live if version is None else folder.version(version)
    if not path.is_file():
        kept = sorted(int(p.stem) for p in (folder.root / "versions").glob("*.pt"))
        raise CheckpointError(
            f"expected a version of the {folder.root.name} model, one of {kept}, but got {version}; choose one of them"
        )
    checkpoint = load_checkpoint(path)
    target.mkdir(parents=True, exist_ok=True)
    name = name or f"loco_{checkpoint.spec.data.kind}_v{checkpoint.version}"
    with progress(f"Exporting {name}, parts", PARTS) as advance:
        return export_bundle(checkpoint, target, name, advance)


def _trained(project: Project) -> ModelFolder:
    """Files of the model that was published last."""
    folders = [ModelFolder(project.folder / kind) for kind in KINDS]
    trained = [f for f in folders if f.live.is_file()]
    if not trained:
        raise CheckpointError("expected a trained model, but none is published yet; submit labels and train first")
    return max(trained, key=lambda f: f.live.stat().st_mtime)
