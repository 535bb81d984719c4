"""Take a trained model away: `python apps/loco/export.py --studies STUDIES --to FOLDER` writes it as a MONAI bundle."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from pathlib import Path

APP = Path(__file__).resolve().parent
sys.path.insert(0, str(APP))

from lib.core.bundle.export import zip_bundle  # noqa: E402
from lib.core.checkpoint import CheckpointError  # noqa: E402
from lib.store.journal import JournalError  # noqa: E402
from lib.store.project import JOURNAL, open_project, state_of_list  # noqa: E402
from lib.trainers.takeaway import export_version  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Export one version; returns the exit code, 1 with one sentence when it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", required=True, help="folder or DICOMweb address that the server was started with")
    parser.add_argument("--to", required=True, type=Path, help="folder to write the bundle into")
    parser.add_argument("--version", type=int, help="version to export; without it the live one")
    parser.add_argument("--name", help="name of the bundle; without it loco_<kind>_v<version>")
    parser.add_argument("--app", type=Path, default=APP, help="folder of the app that trained the model")
    parser.add_argument("--zip", action="store_true", help="write one archive instead of a folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        remote = options.studies.startswith(("http://", "https://"))
        place = Path(options.studies)
        state = state_of_list(place) if place.suffix.lower() == ".json" else place
        if not remote and not (state / JOURNAL).is_file():
            raise CheckpointError(
                f"expected {options.studies} to be studies that the app has served, but there is no {JOURNAL} in it; "
                "start the server on them and train first"
            )
        bundle = export_version(open_project(options.app, options.studies), options.to, options.version, options.name)
        written = bundle.folder
        if options.zip:
            written = zip_bundle(bundle.folder)
            shutil.rmtree(bundle.folder)
    except (CheckpointError, JournalError, OSError) as e:
        sys.stderr.write(f"Not exported: {e}\n")
        return 1
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
