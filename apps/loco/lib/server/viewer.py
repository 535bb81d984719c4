"""OHIF and the images it shows: a PACS through the proxy, or the folder of studies itself."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fastapi import APIRouter, Depends, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from PIL import Image
from pydicom.dataset import Dataset

from lib.core.images import CaseError
from lib.server.catalogue import Merged, PresentedImages, StoredSegmentations
from lib.server.datastores import Studies
from lib.server.dicomfolder import SEGMENTATIONS, STATE, FolderClient
from lib.server.dicomseg import read_seg, seg_header
from lib.server.dicomweb import dicomweb_router
from lib.server.labelfiles import FINAL
from lib.server.ohif import ohif_router
from lib.server.proxy import Pacs, proxy_router
from lib.server.seginbox import PacsWithSegs
from lib.server.series import cases_of
from lib.store.project import state_of_list
from lib.studies import group_of

logger = logging.getLogger(__name__)

_SERIES_IN_ADDRESS = 40


class Viewer:
    """Which image of the studies is which series of the viewer, and the routes that show them."""

    def __init__(self, studies: Studies, place: str, project: str, labels: dict[str, int], pattern: str) -> None:
        """Look at nothing yet.

        Args:
            studies: the datastore.
            place: `--studies`: a folder, a datalist or the address of a DICOMweb server.
            project: name of the project, from which identifiers are made.
            labels: classes and their indices.
            pattern: tells patients apart by image name.
        """
        self._studies, self._place, self._labels = studies, place, labels
        dicom = isinstance(studies, PacsWithSegs)
        self._stored: StoredSegmentations | None = None
        self._presented = None if dicom else PresentedImages(studies, project, lambda i: group_of(studies, i, pattern))

    def image_of(self, series: str, instance: str = "") -> str | None:
        """The image that a series is to the server, or one instance of it; None when it is none."""
        if self._presented is not None:
            return self._presented.image_of(series)
        return next((image for image in (instance, series) if image and self._studies.known(image)), None)

    def located(self, sample: dict[str, Any]) -> dict[str, Any]:
        """A next sample with the identifiers under which OHIF opens it; of DICOM studies the datastore knows them."""
        if self._presented is None or not sample.get("id"):
            return sample
        identity = self._presented.identity(sample["id"])
        return {**sample, "StudyInstanceUID": identity.study, "SeriesInstanceUID": identity.series}

    def pictures_of(self, study: str) -> list[str]:
        """Series by which OHIF opens a study of pictures that has a SEG beside them: with the SEG it cannot open it.

        Empty when it can open the study as it is. Not more series than fit into an address.
        """
        if self._presented is None:
            found = self._studies.pictures_of(study)
        elif self._stored is None or study not in {e.header.StudyInstanceUID for e in self._stored.series().values()}:
            found = []
        else:
            found = self._presented.pictures_of(study)
        return found[:_SERIES_IN_ADDRESS]

    def routers(self) -> list[APIRouter]:
        """Routes of the pages and the images."""
        return [self._lookup(), ohif_router(), self._images()]

    def _images(self) -> APIRouter:
        studies = self._studies
        if not isinstance(studies, PacsWithSegs):
            return self._pictures()
        if not isinstance(studies.client, FolderClient):
            return proxy_router(Pacs.configured(self._place), studies.seg_stored)
        client = studies.client

        def store(dataset: Dataset, who: str) -> None:
            client.store_instances([dataset])
            refused = [o.reason for o in studies.seg_stored(str(dataset.SeriesInstanceUID), who) if not o.taken]
            if refused:
                raise ValueError(refused[0])

        return dicomweb_router(client.catalogue, store)

    def _pictures(self) -> APIRouter:
        place = Path(self._place)
        state = state_of_list(place) if place.suffix.lower() == ".json" else place / STATE
        self._stored = stored = StoredSegmentations(state / SEGMENTATIONS)
        catalogue = Merged(self._presented, stored)

        def store(dataset: Dataset, who: str) -> None:
            self._take(dataset, who)
            stored.store(dataset)
            catalogue.forget()

        return dicomweb_router(catalogue, store)

    def _take(self, seg: Dataset, who: str) -> None:
        """A segmentation drawn on a presented image is its label. Raises `ValueError` with a sentence when it cannot be."""
        header = seg_header(seg)
        image = self._presented.image_of(header.image_series)
        if image is None:
            raise CaseError(f"SEG {header.sop}", "expected it to refer to an image of this server; store it elsewhere")
        cases, _ = cases_of(header.image_series, self._presented.instances(image))
        reading = read_seg(seg, cases[0].grid, self._labels)
        with tempfile.TemporaryDirectory(prefix="loco-seg-") as folder:
            file = Path(folder) / ("label.png" if cases[0].picture else "label.nii.gz")
            if cases[0].picture:
                Image.fromarray(np.ascontiguousarray(reading.classes[:, :, 0].T)).save(file)
            else:
                nib.save(nib.Nifti1Image(reading.classes, cases[0].grid.affine()), file)
            try:
                client = who or header.creator or "ohif"
                self._studies.save_label(image, str(file), FINAL, {"client_id": client, "source": "ohif"})
            except HTTPException as e:
                raise ValueError(str(e.detail)) from e

    def _lookup(self) -> APIRouter:
        router = APIRouter(dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])

        @router.get(
            "/loco/viewer/image", summary="The image that a DICOM series, or one instance of it, is to this server"
        )
        def image(series: str, instance: str = "") -> dict[str, str]:
            found = self.image_of(series, instance)
            if found is None:
                raise HTTPException(
                    404, "expected an image to segment, but this series is none of the studies; open another"
                )
            return {"image": found}

        @router.get(
            "/loco/viewer/pictures", summary="Series to open of a study of pictures that OHIF cannot open with its SEG"
        )
        def pictures(study: str) -> dict[str, list[str]]:
            return {"series": self.pictures_of(study)}

        return router
