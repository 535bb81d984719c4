"""Studies of a MONAI Label datastore as records of the core."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.core.cases import PATIENT_PATTERN, Record, patient_of
from lib.decisions import hashed_name, nameless

logger = logging.getLogger(__name__)


def patient_pattern(conf: Mapping[str, str]) -> str:
    """How patients are told from image names: `--conf patient REGEX`, whose first group is the patient."""
    return str(conf.get("patient") or PATIENT_PATTERN)


def group_of(datastore: Datastore, image_id: str, pattern: str) -> str:
    """Patient of an image: its DICOM PatientID where the datastore knows it, else from the name."""
    patient = datastore.get_image_info(image_id).get("PatientID")
    return str(patient).lower() if patient else patient_of(image_id, pattern)


def image_of(datastore: Datastore, image_id: str) -> str:
    """File of a study; empty, with a warning, when it is gone or cannot be opened."""
    try:
        image = datastore.get_image_uri(image_id)
    except HTTPException as e:
        logger.warning("Left out: %s: %s", hashed_name(image_id), nameless(e))
        return ""
    if not image:
        logger.warning("Left out: %s has no image file", hashed_name(image_id))
    return image


def records_of(datastore: Datastore, pattern: str) -> list[Record]:
    """All studies with the submitted label of those that have one; a study whose file is gone is left out.

    Of a PACS, unlabelled studies are used as far as there is room to keep them: labelled ones come first.
    """
    labelled = set(datastore.get_labeled_images())
    at_hand = getattr(datastore, "at_hand", lambda image_id: True)
    records = []
    for image_id in sorted(datastore.list_images(), key=lambda i: i not in labelled):
        if image_id not in labelled and not at_hand(image_id):
            continue
        image = image_of(datastore, image_id)
        if image:
            label = datastore.get_label_uri(image_id, DefaultLabelTag.FINAL) if image_id in labelled else None
            records.append(Record(image_id, image, label or None, group_of(datastore, image_id, pattern)))
    return records
