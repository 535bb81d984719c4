"""An uploaded model: read safely, compared with what this server trains, and only then live."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, HTTPException, UploadFile
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.core.checkpoint import CheckpointError
from lib.trainers.publish import import_model


def upload_model(background_tasks: BackgroundTasks, model: str, file: UploadFile, user: User) -> dict[str, Any]:
    """Let a checkpoint of this app serve. The reply is that of MONAI Label.

    Raises:
        HTTPException: 404 for an unknown model; 400 when the file is no checkpoint, would run code, or is of another
            specification; the live model goes on.
    """
    app = app_instance()
    if model not in app._infers:
        raise HTTPException(404, f"expected the model {', '.join(app._infers)}, but got {model[:100]!r}; choose it")
    folder = app._project.model(model)
    with tempfile.TemporaryDirectory() as temporary:
        upload = Path(temporary) / "upload.pt"
        with upload.open("wb") as out:
            shutil.copyfileobj(file.file, out)
        try:
            number, digest = import_model(model, folder, app._project.journal, upload, app._spec)
        except CheckpointError as e:
            raise HTTPException(400, f"The model was not taken over, the live one goes on. {e}") from e
    stamp = folder.version(number).stat().st_mtime
    return {"checksum": f"SHA256:{digest}", "modified_time": int(stamp)}
