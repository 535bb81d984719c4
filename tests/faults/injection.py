"""Faults at the moments where files are written: what fails, and a child process in which it does."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

KINDS = ("kill", "full disk", "read-only", "i/o error")
_ERRNO = {"full disk": errno.ENOSPC, "read-only": errno.EROFS, "i/o error": errno.EIO}


class FaultyConnection(sqlite3.Connection):
    """An SQLite connection whose statements count as writes."""

    def execute(self, sql, *args):
        if sql.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN")):
            _step()
        return super().execute(sql, *args)


class _Plan:
    """The fault happens at write number `at`, counted from 0; `half` writes part of the bytes before it."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind, self.left, self.done = kind, at, False


_plan: _Plan | None = None


def _step() -> None:
    if _plan is None or _plan.done:
        return
    if _plan.left > 0:
        _plan.left -= 1
        return
    _plan.done = True
    if _plan.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(_ERRNO[_plan.kind], _plan.kind)


@contextmanager
def injected(kind: str, at: int):
    """Within the block, the write number `at` of this process fails in the way `kind`; once."""
    global _plan
    real = {name: getattr(os, name) for name in ("replace", "fsync", "fdopen", "open")}
    connect = sqlite3.connect

    def counted(name):
        def call(*args, **kwargs):
            _step()
            return real[name](*args, **kwargs)

        return call

    _plan = _Plan(kind, at)
    for name in ("replace", "fsync", "fdopen"):
        setattr(os, name, counted(name))
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=FaultyConnection, **kwargs)
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        sqlite3.connect, _plan = connect, None


def until_it_ends(work: Callable[[Callable[[str], None]], None], kind: str) -> tuple[list[str], int]:
    """Run `work(say)`; what it said, and how it ended: 0 well, 3 with an error, -9 killed, for which a child is forked."""
    if kind == "kill":
        return _in_child(work)
    said: list[str] = []
    try:
        work(said.append)
    except Exception:
        return said, 3
    return said, 0


def _in_child(work: Callable[[Callable[[str], None]], None]) -> tuple[list[str], int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 0
        try:
            work(lambda line: os.write(write, f"{line}\n".encode()))
        except BaseException:
            code = 3
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as lines:
        said = lines.read().splitlines()
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def seeded(count: int, steps: int, seed: int = 0) -> list[tuple[int, str, int]]:
    """`count` faults: a number, a kind, and the write at which it happens, below `steps`."""
    rng = random.Random(seed)
    return [(number, rng.choice(KINDS), rng.randrange(steps)) for number in range(count)]


def unfinished(folder: Path) -> list[Path]:
    """Files that a reader could take for whole ones although they are not: none may have a final name."""
    return [p for p in folder.rglob("*.tmp") if not p.name.startswith(".")]
