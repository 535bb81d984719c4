import stat

import pytest
from fastapi import HTTPException

from lib.server.sessions import GuardedSessions


@pytest.fixture
def sessions(tmp_path):
    return GuardedSessions(tmp_path / "sessions", 3600)


def test_a_file_is_kept_for_a_while(sessions, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    number, info = sessions.add_session(str(tmp_path / "a.nii.gz"))
    assert sessions.get_session(number).image == info.image
    assert sessions.remove_expired() == 0
    info.last_access_ts = 0
    sessions._write_meta_info(number, info)
    assert sessions.remove_expired() == 1
    assert sessions.get_session(number) is None


def test_nobody_else_reads_the_folder(sessions, tmp_path):
    assert stat.S_IMODE((tmp_path / "sessions").stat().st_mode) == 0o700


@pytest.mark.parametrize("number", ["..", "../victim", "/etc", "", "x" * 36, None])
def test_an_id_is_no_path(sessions, tmp_path, number):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/meta.info").write_text('{"image": "/etc/passwd"}')
    assert sessions.get_session(number) is None
    if number:
        sessions.remove_session(number)
    assert (tmp_path / "victim/meta.info").exists()


def test_archives_are_refused(sessions, tmp_path):
    with pytest.raises(HTTPException, match="upload the files themselves"):
        sessions.add_session(str(tmp_path / "a.tar"), uncompress=True)


def test_a_damaged_session_is_removed(sessions, tmp_path):
    folder = tmp_path / "sessions/00000000-0000-0000-0000-000000000000"
    folder.mkdir()
    (folder / "meta.info").write_text("{")
    (tmp_path / "sessions/notes").mkdir()
    assert sessions.remove_expired() == 1
    assert [p.name for p in (tmp_path / "sessions").iterdir()] == ["notes"]
