"""Studies of a DICOMweb server: listed as they are, converted once, labels stored there as DICOM SEG."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dicomweb_client.api import DICOMClient
from fastapi import HTTPException
from requests import RequestException

from lib.core.images import CaseError
from lib.decisions import hashed_name, nameless
from lib.server.conversion import ImageCache, write_case
from lib.server.datastores import Studies, unusable_as_sentence
from lib.server.pacsindex import PacsIndex
from lib.server.series import CaseOfSeries
from lib.store.journal import Journal

logger = logging.getLogger(__name__)

_ANY_SYNTAX = (("application/dicom", "*"),)
"""Pixels as they are stored; they are decoded here, which every DICOMweb server can serve."""


class PacsStudies(Studies):
    """Series of a DICOMweb server. A volume has the id of its series, a picture that of its instance (and `_frame`)."""

    looked_at_first = 3
    fetches = True

    def __init__(
        self,
        client: DICOMClient,
        address: str,
        journal: Journal,
        state: Path,
        cache: ImageCache,
        modalities: Collection[str] = (),
    ) -> None:
        """Ask the server what there is.

        Args:
            client: DICOMweb client of a server or of a folder.
            address: what to call it in messages.
            journal: of the project.
            state: folder of the project, for labels.
            cache: for converted images.
            modalities: those to list; empty for all that are images.

        Raises:
            requests.RequestException: the server does not answer as expected.
        """
        super().__init__(journal, state / "labels")
        self.client, self._address, self._cache = client, address, cache
        self.index = PacsIndex(client, modalities, state / "series.json")
        self._converting = threading.Lock()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="loco-prefetch")
        self._wanted: list[Future] = []
        self.index.refresh()

    def list_images(self) -> list[str]:
        """Ids of all cases, sorted."""
        return sorted(self.index.cases)

    def known(self, image_id: str) -> bool:
        """Whether there is such a case; the id of a series stands for its only picture."""
        return self._own_id(image_id) in self.index.cases

    def image_file(self, image_id: str) -> Path:
        """Converted file of a case; fetched from the server when it is not at hand."""
        image_id = self._own_id(image_id)
        self._checked(image_id)
        if (path := self._converted(image_id)) is not None:
            return path
        with self._converting, unusable_as_sentence(image_id):
            return self._converted(image_id) or self._convert(image_id)

    def pictures_of(self, study: str) -> list[str]:
        """Series of a study of pictures with a SEG beside them; empty when one holds a volume or none is a SEG."""
        series = sorted(s.uid for s in self.index.images.values() if s.study == study)
        volume = any(uid in self.index.cases for uid in series)
        return series if not volume and any(s.study == study for s in self.index.segs.values()) else []

    def refresh(self) -> None:
        """Ask the server what there is. Raises `HTTPException` 503 when it does not answer."""
        super().refresh()
        with self.answering():
            self.index.refresh()

    def name(self) -> str:
        """Address of the server."""
        return self._address

    def at_hand(self, image_id: str) -> bool:
        """Whether a case is converted already or there is room for another one."""
        return self._converted(image_id) is not None or self._cache.has_room()

    def prefetch(self, image_ids: list[str]) -> None:
        """Convert cases in the background; what was asked for before and has not begun is dropped."""
        for waiting in self._wanted:
            waiting.cancel()
        self._wanted = [self._ahead.submit(self._quietly, i) for i in image_ids if self._converted(i) is None]

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: images come from the PACS."""
        raise HTTPException(405, "expected no upload, since the studies are those of the PACS; store the image there")

    def remove_image(self, image_id: str) -> None:
        """Refused: this app deletes nothing from a PACS."""
        raise HTTPException(405, "expected no deletion, since the studies are those of the PACS; delete it there")

    def case(self, image_id: str) -> CaseOfSeries:
        """A case with its planes. Raises `HTTPException` 503, or `CaseError` when the series holds no such case."""
        with self.answering():
            case = self.index.case(self._own_id(image_id))
        if case is None:
            raise CaseError(
                image_id, "expected a volume or picture, but its headers tell something else; it is unlisted"
            )
        return case

    def answering(self) -> _Answering:
        """A block in which an error of the network becomes `HTTPException` 503 with a sentence."""
        return _Answering(self._address)

    def _own_id(self, image_id: str) -> str:
        if image_id in self.index.cases or image_id not in self.index.images:
            return image_id
        cases = [case for case, series in self.index.cases.items() if series == image_id]
        return cases[0] if len(cases) == 1 else image_id

    def _facts(self, image_id: str) -> dict[str, Any]:
        image_id = self._own_id(image_id)
        series = self.index.cases[image_id]
        instance, _, frame = image_id.partition("_")
        picture = {} if image_id == series else {"SOPInstanceUID": instance, **({"Frame": frame} if frame else {})}
        name = f"{image_id}{'.nii.gz' if image_id == series else '.png'}"
        path = self._cache.path(name)
        known = {"path": str(path)} if path.exists() else {}
        return {**self.index.images[series].facts, **picture, **known, "name": name}

    def _converted(self, image_id: str) -> Path | None:
        for suffix in (".nii.gz", ".png"):
            if self._cache.touch(f"{image_id}{suffix}"):
                return self._cache.path(f"{image_id}{suffix}")
        return None

    def _convert(self, image_id: str) -> Path:
        case = self.case(image_id)
        name = f"{image_id}{'.png' if case.picture else '.nii.gz'}"
        with tempfile.TemporaryDirectory(prefix="loco-dicom-") as folder:
            with self.answering():
                files = self._download(case, Path(folder))
            write_case(case, files, self._cache.path(name))
        self._cache.make_room(keep=name)
        return self._cache.path(name)

    def _download(self, case: CaseOfSeries, folder: Path) -> dict[str, Path]:
        study = self.index.images[case.series].study
        if case.picture:
            sop = case.grid.planes[0].sop
            instances = [self.client.retrieve_instance(study, case.series, sop, media_types=_ANY_SYNTAX)]
        else:
            instances = self.client.iter_series(study, case.series, media_types=_ANY_SYNTAX)
        files = {}
        for instance in instances:
            sop = str(instance.SOPInstanceUID)
            files[sop] = folder / f"{sop}.dcm"
            instance.save_as(files[sop])
        return files

    def _quietly(self, image_id: str) -> None:
        try:
            self.image_file(image_id)
        except HTTPException as e:
            logger.info("Not fetched ahead: %s: %s", hashed_name(image_id), nameless(e))
        except Exception:  # nobody asks the future how it ended, so that nothing else would tell
            logger.exception("%s could not be fetched ahead", hashed_name(image_id))


class _Answering:
    """See `PacsStudies.answering`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RequestException):
            raise HTTPException(
                503, f"expected the PACS at {self._address} to answer, but: {error}; try again when it does"
            ) from error
