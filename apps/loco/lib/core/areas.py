"""How much of the field of view a class fills where it is: the size in which a missed one is looked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from lib.core.cases import Record, load_case
from lib.core.images import CaseError
from lib.core.lowcontrast import field_of_view
from lib.core.spec import DataSpec

logger = logging.getLogger(__name__)


def median_areas(records: Sequence[Record], data: DataSpec, labels: Mapping[str, int]) -> dict[str, float]:
    """Median share of the field of view that each class fills, in (0, 1], over the labelled images that contain it.

    A share of the field and not of the image, so that black borders change nothing (active-learning specification 6.2, 6.4).

    Args:
        records: labelled images; one that cannot be read is left out, with a warning that names the file.
        data: how images are brought to the working grid.
        labels: class names and indices, without the background.
    """
    shares: dict[str, list[float]] = {name: [] for name in labels}
    for record in records:
        try:
            case = load_case(record.image, record.label, data, max(labels.values()) + 1)
        except CaseError as e:
            logger.warning("Left out of the usual sizes: %s", e)
            continue
        field, label = field_of_view(case.image, data.kind == "frame"), case.label[0]
        for name, index in labels.items():
            if size := int(((label == index) & field).sum()):
                shares[name].append(size / int(field.sum()))
    return {name: float(np.median(values)) for name, values in shares.items() if values}
