import torch

from lib.core.displace import donor_box, mean_classes, unsure_box


def test_the_largest_unsure_region_is_boxed_and_small_ones_are_left_alone():
    confidence = torch.ones(32, 32)
    confidence[8:16, 4:20] = 0.5
    confidence[28:, 28:] = 0.1
    assert unsure_box(confidence, 0.8, cap=1.0) == (slice(8, 16), slice(4, 20))
    assert unsure_box(confidence, 0.05, cap=1.0) is None
    assert unsure_box(confidence, 0.3, cap=1.0, smallest=17) is None


def test_a_box_beyond_the_cap_stays_around_the_least_sure_point():
    confidence = torch.full((32, 32), 0.5)
    confidence[24:28, 24:28] = 0.1
    rows, columns = unsure_box(confidence, 0.8, cap=0.25)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (8, 8)
    assert rows.start <= 24 < rows.stop
    assert columns.start <= 24 < columns.stop


def test_the_donor_is_sure_and_alike():
    probs = torch.full((2, 32, 32), 0.5)
    probs[:, :8, :8] = torch.tensor([0.99, 0.01]).view(2, 1, 1)
    probs[:, 16:24, 8:16] = torch.tensor([0.01, 0.99]).view(2, 1, 1)
    boxes = [donor_box(probs, torch.tensor(t), (8, 8), candidates=2) for t in ([0.9, 0.1], [0.2, 0.8])]
    assert boxes == [(slice(0, 8), slice(0, 8)), (slice(16, 24), slice(8, 16))]
    torch.testing.assert_close(mean_classes(probs, boxes[0]), torch.tensor([0.99, 0.01]))
