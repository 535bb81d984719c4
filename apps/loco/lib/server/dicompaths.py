"""DICOMweb paths: which resource is asked for. What is not one of these is not answered and not sent on to a PACS."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastapi import HTTPException

PREFIX = "/proxy/dicom"
"""Where OHIF looks for images: `<PREFIX>/<qido|wado|stow>/<path>`."""
SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
"""SOP classes of segmentations: binary or fractional, and label maps."""

_UID = r"[0-9]+(?:\.[0-9]+)*"
_RESOURCE = re.compile(
    rf"studies(?:/(?P<study>{_UID}))?(?:/series(?:/(?P<series>{_UID}))?)?(?:/instances(?:/(?P<instance>{_UID}))?)?"
    rf"(?:/frames/(?P<frames>[0-9]+(?:,[0-9]+)*))?"
    r"(?:/(?P<part>metadata|rendered|thumbnail|bulk(?:data)?/[0-9A-Za-z]+(?:/[0-9A-Za-z]+)*))?"
)
_ROOTS = re.compile(r"(?:series|instances)")
_UID_LENGTH = 64


@dataclass(frozen=True)
class Resource:
    """One DICOMweb resource. `search` names the level of a search: studies, series or instances; None is a retrieval."""

    path: str
    search: str | None
    study: str | None = None
    series: str | None = None
    instance: str | None = None
    frames: tuple[int, ...] = ()
    part: str | None = None

    @property
    def stores(self) -> bool:
        """Instances may be sent here."""
        return self.search == "studies" or (self.study is not None and self.path == f"studies/{self.study}")


def resource_of(path: str) -> Resource:
    """The resource of a decoded path below the service's root.

    Raises:
        HTTPException: 404, no DICOMweb resource: other services of a PACS, `..`, whole addresses, encoded tricks.
    """
    path = path.strip("/")
    if _ROOTS.fullmatch(path):
        return Resource(path, search=path)
    match = _RESOURCE.fullmatch(path)
    if match is None or any(len(p) > _UID_LENGTH for p in match.groupdict().values() if p and p[0].isdigit()):
        raise HTTPException(404, "expected a DICOMweb path such as studies/<uid>/series; nothing else is answered here")
    groups = match.groupdict()
    frames = tuple(int(f) for f in (groups.pop("frames") or "").split(",") if f)
    last = path.rsplit("/", 1)[-1]
    search = last if last in ("studies", "series", "instances") else None
    found = Resource(path, search, frames=frames, **groups)
    if search is None and _has_gap(found):
        raise HTTPException(404, f"expected a DICOMweb path, but {path!r} leaves out a level; name study and series")
    return found


def _has_gap(resource: Resource) -> bool:
    """A level without the one above it, or frames of no instance."""
    known = [level is not None for level in (resource.study, resource.series, resource.instance)]
    return not known[0] or known != sorted(known, reverse=True) or (bool(resource.frames) and not known[2])
