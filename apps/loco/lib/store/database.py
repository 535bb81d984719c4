"""One SQLite file, many threads and processes: a connection per thread, and none across a fork.

SQLite keeps its file locks in process-wide state which a forked child would inherit although the locks themselves stay
with the parent. So before `os.fork` every connection is closed, after the transaction it is in; both sides reopen.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.store.schema import JournalError, open_connection


@dataclass
class _Slot:
    """The connection of one thread; `lock` is held while it is in use."""

    thread: threading.Thread
    lock: threading.RLock = field(default_factory=threading.RLock)  # type: ignore[valid-type]
    connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the connection if there is one; the next use opens another."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Database:
    """Reads, and writes in transactions, from any thread; safe to share and to fork.

    Args:
        path: The file; its folder is made if missing.
        busy_s: Seconds to wait for another writer before a `JournalError`.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_s: float = 30.0) -> None:
        self.path = Path(path).absolute()
        self.busy_s = busy_s
        self._restart()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.read("SELECT 1")  # refuse a wrong file here and not at the first submission
        with _FORK:
            _DATABASES.add(self)

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of one query, a consistent snapshot of what is committed."""
        with self._connection() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A `BEGIN IMMEDIATE` transaction: all of the block is on disk after it, or, if it raises, nothing."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def close(self) -> None:
        """Close the connections of all threads of this process; using the object again reopens them."""
        self._pause()
        self._resume()

    def __getstate__(self) -> dict[str, Any]:
        """A database travels to another process as its path; nothing is opened there before it is used."""
        return {"path": self.path, "busy_s": self.busy_s}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()
        with _FORK:
            _DATABASES.add(self)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        slot = self._slot()
        with slot.lock:
            if slot.connection is None:
                slot.connection = open_connection(self.path, self.busy_s)
            try:
                yield slot.connection
            except sqlite3.Error as error:
                raise JournalError(
                    f"expected the journal {self.path} to take a read or write, but got: {error}; "
                    "check free disk space and permissions, and that no other program holds the file"
                ) from error

    def _slot(self) -> _Slot:
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = _Slot(threading.current_thread())
            with self._lock:
                self._drop_dead_threads()
                self._slots.append(slot)
            self._local.slot = slot
        return slot

    def _drop_dead_threads(self) -> None:
        for slot in self._slots:
            if not slot.thread.is_alive():
                slot.close()
        self._slots = [slot for slot in self._slots if slot.thread.is_alive()]

    def _pause(self) -> None:
        """Wait for the transactions in progress, close every connection and let nobody open one until `_resume`."""
        self._lock.acquire()
        for slot in self._slots:
            slot.lock.acquire()
            slot.close()

    def _resume(self) -> None:
        for slot in self._slots:
            slot.lock.release()
        self._lock.release()

    def _restart(self) -> None:
        """State of a process that has opened nothing yet."""
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []
        self._local = threading.local()


_FORK = threading.Lock()
"""Held from before to after a fork, and while a database is added to `_DATABASES`."""
_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
_PAUSED: list[Database] = []


def _before_fork() -> None:
    _FORK.acquire()
    _PAUSED.extend(_DATABASES)
    for database in _PAUSED:
        database._pause()


def _after_fork_in_parent() -> None:
    for database in _PAUSED:
        database._resume()
    _PAUSED.clear()
    _FORK.release()


def _after_fork_in_child() -> None:
    for database in _PAUSED:
        database._restart()
    _PAUSED.clear()
    _FORK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
