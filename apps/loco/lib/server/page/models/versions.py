"""The versions of the model."""

from __future__ import annotations

from typing import Literal

from lib.server.page.models.common import Answer


class Bundle(Answer):
    """A version as a MONAI bundle, made in the background."""

    version: int
    state: Literal["none", "waiting", "running", "ready", "failed"]
    seconds: float | None
    """How long it has been running or took."""
    detail: str
    """What is being done, or why it failed."""
    size_bytes: int | None
    href: str | None
    """Address of the file once it is there."""


class ModelVersion(Answer):
    """A version of the model."""

    version: int
    ts: float
    live: bool
    dice: float | None
    cases: int
    per_class: dict[str, float]
    labels: int | None
    method: str
    method_note: str
    """What must stand beside the method's name, or nothing."""
    network: str
    run: int | None
    reason: str
    """Why it went live or not."""
    sha256: str
    size_bytes: int | None
    """Of its file; null when it is no longer kept."""
    can_go_live: bool
    """It is not live and its file is kept."""
    bundle: Bundle


class Models(Answer):
    """All versions, newest first."""

    model: str
    live: int | None
    kept: int
    """How many of the newest versions keep their files, the live one besides."""
    versions: list[ModelVersion]
