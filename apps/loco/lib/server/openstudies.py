"""Opens what `--studies` names: a folder, a list of cases or the address of a DICOMweb server."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.utils.others.generic import md5_digest
from requests.adapters import HTTPAdapter

from lib.server.conversion import ImageCache
from lib.server.datalist import ListedStudies
from lib.server.datastores import Studies
from lib.server.dicomfolder import STATE, FolderClient, holds_dicom
from lib.server.folder import FolderStudies
from lib.server.seginbox import PacsWithSegs
from lib.store.project import Project, state_of_list

_LEAST_CACHE = 10**8
"""Bytes: a study must be a file before it can be read, whatever `cache_gb` says."""
_TIMEOUT_S = (5.0, 60.0)
"""To connect to a PACS, and between two pieces of its answer; without a limit, one that hangs would hang this server too."""


def open_studies(studies: str, project: Project, modalities: Collection[str], cache_bytes: int) -> Studies:
    """Datastore of `--studies`. Raises `requests.RequestException` when a DICOMweb server does not answer."""
    if studies.startswith(("http://", "https://")):
        return open_pacs(studies.rstrip("/"), project, modalities, cache_bytes)
    if studies.lower().endswith(".json"):
        return ListedStudies(Path(studies), project.journal, state_of_list(Path(studies)))
    if holds_dicom(Path(studies)):
        root = Path(studies).resolve()
        cache = ImageCache(_cache_of(str(root)), max(cache_bytes, _LEAST_CACHE))
        return PacsWithSegs(FolderClient(root), studies, project.journal, root / STATE, cache, modalities)
    return FolderStudies(studies, project.journal)


def open_pacs(studies: str, project: Project, modalities: Collection[str], cache_bytes: int) -> PacsWithSegs:
    """Datastore of a DICOMweb server. Raises `requests.RequestException` when it does not answer."""
    logging.getLogger("dicomweb_client").setLevel(logging.WARNING)
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    session = create_session_from_user_pass(user, password) if user and password else requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _GivesUp())
    client = DICOMwebClientX(
        url=studies,
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    # it would try five times within half a minute, while annotators wait; the watcher tries again anyway
    client.set_http_retry_params(retry=False)
    cache = ImageCache(_cache_of(studies), max(cache_bytes, _LEAST_CACHE))
    return PacsWithSegs(client, studies, project.journal, project.folder, cache, modalities)


class _GivesUp(HTTPAdapter):
    """Connections that wait only so long for an answer."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        return super().send(request, **{**options, "timeout": options.get("timeout") or _TIMEOUT_S})


def _cache_of(studies: str) -> Path:
    root = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or Path.home() / ".cache/monailabel/dicom"
    return Path(root) / md5_digest(studies) / "images"
