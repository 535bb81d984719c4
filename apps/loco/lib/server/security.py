"""Puts the doors in: called once, in the server process, when MONAI Label's application is there but has answered nothing yet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI
from monailabel.config import settings
from starlette.middleware import Middleware

from lib.server.auth import Tokens, rule_of, use
from lib.server.guard import GuardSettings, install
from lib.server.login import LoginGate, login_router
from lib.server.stock import guarded_router, remove_stock_routes
from lib.server.web import add_routes


def close_doors(
    app: FastAPI, guard: GuardSettings, conf: Mapping[str, str], uploads: Path, own: Sequence[APIRouter] = ()
) -> None:
    """Guard `app`.

    Args:
        app: MONAI Label's application.
        guard: origins and sizes.
        conf: `--conf`, for the login.
        uploads: folder for temporary files, emptied; no other user of this machine can read it.
        own: further routes of the app, before those of MONAI Label.
    """
    use_private_folder(uploads)
    remove_stock_routes(app)
    routers = [*own, guarded_router()]
    inner = []
    if settings.MONAI_LABEL_AUTH_ENABLE:
        tokens = Tokens(rule_of(conf))
        use(tokens)
        routers.append(login_router(tokens))
        inner.append(Middleware(LoginGate, tokens=tokens))
    add_routes(app, routers)
    install(app, guard, inner)


def use_private_folder(folder: Path) -> None:
    """Let temporary files of this process, uploads above all, lie where nobody else reads; clear what a crash left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    tempfile.tempdir = str(folder)
