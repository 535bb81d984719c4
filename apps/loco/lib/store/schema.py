"""Tables of the journal, and the check that a file is one of ours.

Times are unix seconds (REAL), mappings are JSON text, an absent client is the empty string.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

TABLES = (
    """CREATE TABLE submissions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, image TEXT NOT NULL, patient TEXT NOT NULL, label TEXT NOT NULL,
        sha256 TEXT NOT NULL, labels TEXT NOT NULL, client TEXT NOT NULL, model_version INTEGER, ts REAL NOT NULL,
        removed REAL)""",
    "CREATE INDEX submissions_image ON submissions (image, id)",
    "CREATE TABLE splits (patient TEXT PRIMARY KEY, side TEXT NOT NULL CHECK (side IN ('train', 'validation')))",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, reason TEXT NOT NULL,
        last_submission INTEGER NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL, updated REAL NOT NULL,
        ended REAL, status TEXT NOT NULL, detail TEXT NOT NULL, progress TEXT NOT NULL)""",
    """CREATE TABLE versions (
        model TEXT NOT NULL, version INTEGER NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, run_id INTEGER,
        dice REAL, cases INTEGER NOT NULL, details TEXT NOT NULL, live INTEGER NOT NULL, ts REAL NOT NULL,
        PRIMARY KEY (model, version))""",
    "CREATE UNIQUE INDEX versions_one_live ON versions (model) WHERE live = 1",
    """CREATE TABLE scores (
        model TEXT NOT NULL, version INTEGER NOT NULL, image TEXT NOT NULL, stratum TEXT NOT NULL,
        terms TEXT NOT NULL, embedding BLOB, ts REAL NOT NULL, PRIMARY KEY (model, version, image, stratum))""",
    """CREATE TABLE leases (
        image TEXT PRIMARY KEY, client TEXT NOT NULL, since REAL NOT NULL, expires REAL NOT NULL)""",
    "CREATE INDEX leases_client ON leases (client)",
    """CREATE TABLE skips (
        id INTEGER PRIMARY KEY, image TEXT NOT NULL, client TEXT NOT NULL, reason TEXT NOT NULL, ts REAL NOT NULL)""",
    """CREATE TABLE picks (
        id INTEGER PRIMARY KEY, image TEXT NOT NULL, client TEXT NOT NULL, model TEXT NOT NULL,
        version INTEGER NOT NULL, reason TEXT NOT NULL, ts REAL NOT NULL)""",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
"""Version 1. Never edited: what comes later is a migration."""

_PICKING = (
    "DROP TABLE scores",
    """CREATE TABLE scores (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, version INTEGER NOT NULL, images TEXT NOT NULL,
        names TEXT NOT NULL, terms BLOB NOT NULL, embeddings BLOB NOT NULL, ts REAL NOT NULL)""",
    "CREATE INDEX scores_version ON scores (model, version)",
    "ALTER TABLE picks ADD COLUMN strategy TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE picks ADD COLUMN seed INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE picks ADD COLUMN details TEXT NOT NULL DEFAULT '{}'",
    "CREATE INDEX picks_image ON picks (image, id)",
    "ALTER TABLE skips ADD COLUMN for_all INTEGER NOT NULL DEFAULT 0",
)
"""Scores of many images in one row; the next pass makes them again. Picks that can be explained and replayed."""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    2: _PICKING,
    3: (
        "ALTER TABLE submissions ADD COLUMN kept TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE starts (image TEXT NOT NULL, client TEXT NOT NULL, version INTEGER NOT NULL, ts REAL NOT NULL, "
        "PRIMARY KEY (image, client))",
    ),
    4: (
        "CREATE TABLE case_ids (path TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE)",
        "CREATE TABLE notes (kind TEXT NOT NULL, item TEXT NOT NULL, note TEXT NOT NULL, ts REAL NOT NULL, "
        "PRIMARY KEY (kind, item))",
        "CREATE TABLE segs (sop TEXT PRIMARY KEY, series TEXT NOT NULL, image TEXT NOT NULL, "
        "status TEXT NOT NULL CHECK (status IN ('pending', 'own', 'taken', 'refused')), detail TEXT NOT NULL, "
        "ts REAL NOT NULL)",
    ),
    5: (
        "CREATE TABLE pins (image TEXT PRIMARY KEY, client TEXT NOT NULL, ts REAL NOT NULL)",
        "CREATE TABLE comparisons (submission INTEGER PRIMARY KEY, result TEXT NOT NULL, ts REAL NOT NULL)",
    ),
    6: (
        "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, image TEXT NOT NULL, client TEXT NOT NULL, "
        "sha256 TEXT NOT NULL, labels TEXT NOT NULL, model_version INTEGER, ts REAL NOT NULL, kept TEXT NOT NULL)",
        "CREATE INDEX readings_image ON readings (image, id)",
    ),
}
"""Statements that bring a journal of an older version to this one, applied in order to new and old files alike."""

SCHEMA_VERSION = max((1, *MIGRATIONS))
"""Stored in `PRAGMA user_version`."""


class JournalError(RuntimeError):
    """The journal cannot do what was asked; the message says what was expected, what came and what to do."""


def open_connection(path: Path, busy_s: float) -> sqlite3.Connection:
    """Open the journal at `path` in WAL mode, creating its tables when the file is new.

    A file that is not ours is refused before anything in it is changed.

    Args:
        path: File of the journal; its folder must exist. Not on a network share: WAL needs shared memory.
        busy_s: Seconds to wait for another writer.

    Returns:
        A connection without implicit transactions, each commit of which is on disk (synchronous=FULL).

    Raises:
        JournalError: The file is no database, belongs to another program, is of a newer version or cannot be opened.
    """
    try:
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise JournalError(f"expected {path} to be a file we may write, but got: {error}; check the folder") from error
    try:
        connection.row_factory = sqlite3.Row
        _check_or_create(connection, path)
        _switch_to_wal(connection, busy_s)
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise JournalError(
            f"expected {path} to be a journal (an SQLite database), but got: {error}; "
            "move the file away to start a new journal, or restore it from a backup"
        ) from error
    except JournalError:
        connection.close()
        raise
    return connection


def _check_or_create(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file, bring an older one up to date; refuse a newer or a foreign one."""
    if _version(connection) < SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _upgrade(connection, path)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
    version = _version(connection)
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"expected the journal {path} to be of version {SCHEMA_VERSION} or older, but got version {version}; "
            "it was written by a newer release of this app: install that release, or start with another journal file"
        )


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """All steps from the version of the file, read again: another process may have gone them while we waited."""
    version = _version(connection)
    if version == 0:
        _create(connection, path)
    for step in sorted(MIGRATIONS):
        if step > version:
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {max(version, SCHEMA_VERSION):d}")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    foreign = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if foreign:
        raise JournalError(
            f"expected {path} to be a journal of this app, but got a database of another program with the tables "
            f"{', '.join(foreign[:5])}; choose another file"
        )
    for statement in TABLES:
        connection.execute(statement)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _switch_to_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """Set WAL mode, which the file remembers; SQLite may answer 'locked' here without waiting, so wait ourselves."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
