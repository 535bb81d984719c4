from math import log

import pytest
import torch

from lib.core.batch import Batch
from lib.core.crossed import crossed


def test_each_network_learns_from_labels_and_from_what_the_other_is_sure_of_by_hand():
    """One labelled and one unlabelled image of two pixels; of the latter each network is sure of one."""
    label, padding = torch.zeros(1, 1, 2, dtype=torch.uint8), torch.zeros(1, 1, 2, dtype=torch.uint8)
    image = torch.zeros(1, 1, 1, 2)
    batch = Batch(image, label, image, image, padding)
    unknown = torch.zeros(1, 2, 1, 2)
    first = torch.tensor([[0.0, 0.0], [log(9), log(3)]]).view(1, 2, 1, 2)  # sure of 1; 0.25 for 0
    second = torch.tensor([[0.0, log(9)], [0.0, 0.0]]).view(1, 2, 1, 2)  # 0.5 for 1; sure of 0
    both = crossed(torch.cat([unknown, first]), torch.cat([unknown, second]), batch, confidence=0.8, weight=0.5)
    sup = 0.5 * log(2) + 0.5 * (1 - 0.4)  # Dice of two pixels at 0.5: 2 / 2.5 and 0
    assert [y[0, 0].tolist() for y in both.labels] == [[1, 255], [255, 0]]
    assert float(both.logs["loss_sup"]) == pytest.approx(sup, abs=1e-4)
    assert float(both.logs["loss_cross"]) == pytest.approx(log(4) + log(2), rel=1e-5)
    assert float(both.loss) == pytest.approx(2 * sup + 0.5 * (log(4) + log(2)), abs=1e-4)
    assert float(both.logs["mask_ratio"]) == 0.5
