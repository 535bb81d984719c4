"""Files of a request: uploads, each in a folder of its own, and archives; gone when the request ends, however it ends.

MONAI Label writes an upload under a name that another request may be given too, leaves it there when the disk is full, and
never deletes an archive of the studies that somebody asked for.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, HTTPException, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from starlette.background import BackgroundTask


def save_label(
    background_tasks: BackgroundTasks, image: str, params: str, tag: str, label: UploadFile, user: User
) -> dict[str, Any]:
    """Submit a label. The reply is that of MONAI Label, with a `note` when something is left to do."""
    app = app_instance()
    with received([label]) as folder:
        name = app.datastore().save_label(image, str(folder / label.filename), tag, json.loads(params))
    return {**app.on_save_label(image, name), "image": image, "label": name}


def add_image(
    background_tasks: BackgroundTasks, image: str, params: str, file: UploadFile, user: User
) -> dict[str, Any]:
    """Add a study. The reply is that of MONAI Label."""
    info = {**json.loads(params), "user": user.username}
    with received([file]) as folder:
        return {"image": app_instance().datastore().add_image(image, str(folder / file.filename), info)}


def create_session(
    background_tasks: BackgroundTasks, uncompress: bool, expiry: int, files: list[UploadFile], user: User
) -> dict[str, Any]:
    """Keep files for inferences to come. The reply is that of MONAI Label."""
    sessions = app_instance().sessions()
    if sessions is None:
        raise HTTPException(406, "expected sessions to be switched on, but they are off; set MONAI_LABEL_SESSIONS=true")
    with received(files) as folder:
        source = folder if len(files) > 1 else folder / files[0].filename
        session_id, info = sessions.add_session(str(source), expiry)
    return {"session_id": session_id, "session_info": info.to_json()}


def download_dataset(limit_cases: int | None, user: User) -> FileResponse:
    """All labelled studies with their labels as a ZIP file, which is gone when it has been sent."""
    path = app_instance().datastore().get_dataset_archive(limit_cases)
    later = BackgroundTask(Path(path).unlink, missing_ok=True)
    return FileResponse(path, media_type="application/zip", filename="dataset.zip", background=later)


@contextmanager
def received(files: Sequence[UploadFile]) -> Iterator[Path]:
    """A folder with the uploaded files, under their names, which were checked before."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "upload"
        folder.mkdir()
        for file in files:
            with (folder / file.filename).open("wb") as out:
                shutil.copyfileobj(file.file, out)
        yield folder
