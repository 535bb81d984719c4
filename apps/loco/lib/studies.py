"""Studies of a MONAI Label datastore as records of the core."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.core.cases import PATIENT_PATTERN, Record, patient_of

logger = logging.getLogger(__name__)


def patient_pattern(conf: Mapping[str, str]) -> str:
    """How patients are told from image names: `--conf patient REGEX`, whose first group is the patient."""
    return str(conf.get("patient") or PATIENT_PATTERN)


def group_of(datastore: Datastore, image_id: str, pattern: str) -> str:
    """Patient of an image: its DICOM PatientID where the datastore knows it, else from the name."""
    patient = datastore.get_image_info(image_id).get("PatientID")
    return str(patient).lower() if patient else patient_of(image_id, pattern)


def records_of(datastore: Datastore, pattern: str) -> list[Record]:
    """All studies with the submitted label of those that have one; a study whose file is gone is left out."""
    labelled = set(datastore.get_labeled_images())
    records = []
    for image_id in datastore.list_images():
        image = datastore.get_image_uri(image_id)
        if not image:
            logger.warning("Left out: %s has no image file", image_id)
            continue
        label = datastore.get_label_uri(image_id, DefaultLabelTag.FINAL) if image_id in labelled else None
        records.append(Record(image_id, image, label or None, group_of(datastore, image_id, pattern)))
    return records
