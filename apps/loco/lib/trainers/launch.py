"""A training from the command line, in one process or in those that torchrun has started, for a running server or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.utils.app import app_instance

from lib.trainers.ranks import follow, launched


def launch(app_dir: Path, studies: str, conf: Mapping[str, str]) -> dict[str, Any]:
    """Train the project of `studies` once.

    Rank 0 alone opens the studies' list and the journal, plans the run, holds the lock and publishes; the others are
    told what to do and only read images. A server on the same studies notices the new version by itself.

    Args:
        app_dir: folder of the app, which holds the models.
        studies: folder or DICOMweb address, as the server has it.
        conf: settings, as `--conf` of the server.

    Returns:
        What viewers see as train_stats; empty on the other ranks.
    """
    if launched() and int(os.environ["RANK"]) > 0:
        follow()
        return {}
    app = app_instance(app_dir=str(app_dir), studies=studies, conf=dict(conf))
    (name,) = app.info()["trainers"]
    app.train({"model": name, "reason": "started from the command line"})
    return app.info()["train_stats"][name]
