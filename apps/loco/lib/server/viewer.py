"""OHIF and the images it shows: a PACS through the proxy, or the folder of studies itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.datastore import Datastore
from pydicom.dataset import Dataset

from lib.server.catalogue import DicomFolder, Merged, PresentedImages, StoredSegmentations
from lib.server.dicomweb import dicomweb_router
from lib.server.ohif import ohif_router
from lib.server.proxy import Pacs, proxy_router
from lib.studies import group_of

logger = logging.getLogger(__name__)

SEGMENTATIONS = Path(".loco") / "segmentations"
"""Where segmentations that a viewer stored lie, below the studies."""


class Viewer:
    """Which image of the datastore is which series of the viewer, and the routes that show them."""

    def __init__(self, datastore: Datastore, studies: str, project: str, pattern: str) -> None:
        """`project` names the studies for good; `pattern` tells patients apart by image name."""
        self._datastore, self._studies = datastore, studies
        remote = studies.startswith(("http://", "https://"))
        self._presented = (
            None if remote else PresentedImages(datastore, project, lambda i: group_of(datastore, i, pattern))
        )

    def image_of(self, series: str, instance: str = "") -> str | None:
        """The image that a series is to the server, or one instance of it; None when it is none."""
        known = set(self._datastore.list_images())
        for image in (instance, series):
            if image in known:
                return image
        return self._presented.image_of(series) if self._presented else None

    def located(self, sample: dict[str, Any]) -> dict[str, Any]:
        """A next sample with the identifiers under which OHIF opens it."""
        identity = self._presented.identity(sample["id"]) if self._presented and sample.get("id") else None
        if identity is None:
            return sample
        return {
            **sample,
            "StudyInstanceUID": identity.study,
            "SeriesInstanceUID": identity.series,
            "PatientID": identity.patient,
        }

    def routers(self, seg_stored: Callable[[str], Any]) -> list[APIRouter]:
        """Routes of the pages and the images. `seg_stored` is called with the series of a segmentation that came in."""
        images = (
            self._folder(seg_stored) if self._presented else proxy_router(Pacs.configured(self._studies), seg_stored)
        )
        return [self._lookup(), ohif_router(), images]

    def _folder(self, seg_stored: Callable[[str], Any]) -> APIRouter:
        stored = StoredSegmentations(Path(self._studies) / SEGMENTATIONS)
        catalogue = Merged(DicomFolder(Path(self._studies)), self._presented, stored)

        def store(dataset: Dataset) -> None:
            stored.store(dataset)
            catalogue.forget()
            seg_stored(dataset.SeriesInstanceUID)

        return dicomweb_router(catalogue, store)

    def _lookup(self) -> APIRouter:
        router = APIRouter(dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])

        @router.get(
            "/loco/viewer/image", summary="The image that a DICOM series, or one instance of it, is to this server"
        )
        def image(series: str, instance: str = "") -> dict[str, str]:
            found = self.image_of(series, instance)
            if found is None:
                raise HTTPException(
                    404,
                    f"expected a series of the studies, but {series} is none (derived, or filtered out); open another",
                )
            return {"image": found}

        return router
