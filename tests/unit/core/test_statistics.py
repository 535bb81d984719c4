import torch

from lib.core.statistics import ClassDistribution


def test_pooled_updates_equal_one_pass_over_everything():
    vectors = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    running = ClassDistribution(2, 4, limit=10**6)
    for part in vectors.split([10, 35, 15]):
        running.update(part, 1)
    running.update(vectors[:0], 0)
    torch.testing.assert_close(running.mean[1], vectors.mean(0))
    torch.testing.assert_close(running.covariance[1], torch.cov(vectors.T, correction=0))
    assert running.count.tolist() == [0, 60]


def test_large_features_in_half_precision():
    vectors, running = 10 * torch.randn(2000, 4), ClassDistribution(1, 4, limit=10**6)
    with torch.autocast("cpu", dtype=torch.float16):
        running.update(vectors, 0)
    torch.testing.assert_close(running.covariance[0], torch.cov(vectors.T, correction=0))


def test_with_many_features_only_variances_are_kept():
    vectors = torch.randn(50, 70, generator=torch.Generator().manual_seed(0))
    running = ClassDistribution(1, 70, limit=10**6)
    for part in vectors.split([20, 30]):
        running.update(part, 0)
    torch.testing.assert_close(running.covariance[0], vectors.var(0, unbiased=False))


def test_beyond_the_limit_old_pixels_are_forgotten():
    running = ClassDistribution(1, 1, limit=10)
    for value in (0.0, *[1.0] * 20):
        running.update(torch.full((10, 1), value), 0)
    assert float(running.count) == 10
    assert float(running.mean[0, 0]) > 0.99
