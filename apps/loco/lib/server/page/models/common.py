"""What answers of several panels have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Layer = Literal["image", "contour", "band", "label"]


class Answer(BaseModel):
    """Descriptions of the fields are those of the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Changes(Answer):
    """A mark per panel; a panel whose mark is another one than before is asked for again."""

    summary: str
    learning: str
    queue: str
    submissions: str
    models: str


class Waiting(Answer):
    """What is asked for is being made; ask again."""

    detail: str


class LeaseShown(Answer):
    """An image that an annotator holds."""

    image: str
    client: str
    """Empty for an anonymous one."""
    since: float
    until: float


class Pin(Answer):
    """An image that is served before all others."""

    image: str
    client: str
    """Who pinned it; empty for an anonymous one."""
    since: float


class PinRequest(Answer):
    """The image to pin or unpin."""

    image: str = Field(min_length=1, max_length=400)
    """Id of a study."""
    client_id: str = Field("", max_length=200)
    """Who asks; with the login on the name of the user counts instead."""
