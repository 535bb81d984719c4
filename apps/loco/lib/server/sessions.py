"""Sessions whose files cannot leave their folder: no archives, no ids that are paths."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.utils.sessions import SessionInfo, Sessions

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class GuardedSessions(Sessions):
    """MONAI Label's sessions in a folder that only this user can read."""

    def __init__(self, folder: Path, expiry_s: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        super().__init__(str(folder), expiry_s)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """The session, or None; also when the id is not one that `add_session` gives."""
        if not isinstance(session_id, str) or not _ID.fullmatch(session_id):
            return None
        return super().get_session(session_id, update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Remove a session; an id that is none removes nothing."""
        if _ID.fullmatch(session_id):
            super().remove_session(session_id)

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Keep an upload. Raises `HTTPException` 400 for an archive: its members could be written anywhere."""
        if uncompress:
            raise HTTPException(400, "expected image files, but got an archive to unpack; upload the files themselves")
        return super().add_session(data_file, max(0, expiry), False, session_id)

    def remove_expired(self) -> int:
        """Remove what is out of date or damaged. Returns how many."""
        count = 0
        for folder in [p for p in Path(self.store_path).iterdir() if p.is_dir() and _ID.fullmatch(p.name)]:
            try:
                info: Any = self.get_session(folder.name, update_ts=False, fetch_cache=False)
            except (OSError, ValueError):
                info = None
            if info is None or 0 < info.expiry < _age(info):
                self.remove_session(folder.name)
                count += 1
        return count


def _age(info: SessionInfo) -> float:
    return time.time() - info.last_access_ts
