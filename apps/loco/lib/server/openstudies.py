"""Opens what `--studies` names: a folder, a list of cases or the address of a DICOMweb server."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.utils.others.generic import md5_digest

from lib.server.conversion import ImageCache
from lib.server.datalist import ListedStudies
from lib.server.datastores import Studies
from lib.server.dicomfolder import STATE, FolderClient, holds_dicom
from lib.server.folder import FolderStudies
from lib.server.seginbox import PacsWithSegs
from lib.store.project import Project, state_of_list

_LEAST_CACHE = 10**8
"""Bytes: a study must be a file before it can be read, whatever `cache_gb` says."""


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
    client = DICOMwebClientX(
        url=studies,
        session=create_session_from_user_pass(user, password) if user and password else None,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    cache = ImageCache(_cache_of(studies), max(cache_bytes, _LEAST_CACHE))
    return PacsWithSegs(client, studies, project.journal, project.folder, cache, modalities)


def _cache_of(studies: str) -> Path:
    root = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or Path.home() / ".cache/monailabel/dicom"
    return Path(root) / md5_digest(studies) / "images"
