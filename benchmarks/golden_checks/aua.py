"""AUA: head, losses of both stages, statistics, prototypes. The near-boundary contrast in its mended form."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.common import AVERAGE, Arrays, Check, Errors, exact, of_maximum, tensor, value
from torch import Tensor

from lib.core.class_contrast import boundary_contrast, prototype_contrast
from lib.core.losses import cross_entropy, foreground_dice
from lib.core.regions import near_boundary
from lib.core.schedules import sigmoid_rampup, warm_decay
from lib.core.statistics import ClassStatistics
from lib.core.stochastic import GaussianHead, antithetic, energy_distance, negative_log_likelihood


def _gradient(got: Tensor, recorded: np.ndarray) -> tuple[float, float]:
    return of_maximum(got, recorded), 1e-2


def _near_zero(got: Tensor, recorded: np.ndarray) -> tuple[float, float]:
    """Relative, and absolute near 0."""
    return float(np.abs(got.detach().numpy() - recorded).max() / max(np.abs(recorded).max(), 1e-2)), 1e-4


def check_head(case: Arrays) -> Errors:
    """Covariance inside the body, and samples from the recorded one."""
    f, body = tensor(case, "f"), tensor(case, "mask").bool().unsqueeze(1)
    classes, rank = case["w_mean"].shape[0], int(case["rank"])
    head = GaussianHead(f.shape[1], classes, rank, 3)
    for layer, n in ((head.log_diagonal, "log_diag"), (head.factor, "factor")):
        layer.weight.data, layer.bias.data = tensor(case, f"w_{n}"), tensor(case, f"b_{n}")
    diagonal, factor = head(f)
    size = diagonal.shape[1:]
    recorded_d = tensor(case, "cov_diag").view(-1, *size)
    recorded_f = tensor(case, "cov_factor").movedim(-1, 1).reshape(-1, rank, *size)
    noise = tensor(case, "eps_diag").view(-1, *recorded_d.shape)
    samples = antithetic(tensor(case, "mu"), recorded_d, recorded_f, tensor(case, "eps_factor"), noise)
    return {
        "cov_diag": value(diagonal * body, (recorded_d * body).numpy()),
        "cov_factor": value(factor * body.unsqueeze(1), (recorded_f * body.unsqueeze(1)).detach().numpy()),
        "samples": value(samples, case["samples"]),
    }


def check_supervised(case: Arrays) -> Errors:
    """Supervised loss of stage 1."""
    mu, samples, y = tensor(case, "mu", grad=True), tensor(case, "samples", grad=True), tensor(case, "y")
    nll, dice = negative_log_likelihood(samples, y), foreground_dice(mu, y)
    loss = 0.5 * (nll + dice)
    grad_mu, grad_samples = torch.autograd.grad(loss, (mu, samples))
    return {
        "nll": value(nll, case["nll"]),
        "dice": value(dice, case["dice"]),
        "loss": value(loss, case["loss"]),
        "grad_mu": _gradient(grad_mu, case["grad_mu"]),
        "grad_samples": _gradient(grad_samples, case["grad_samples"]),
    }


def check_distance(case: Arrays) -> Errors:
    """Distance of two sets of samples."""
    samples, taught = tensor(case, "samples", grad=True), tensor(case, "teacher_samples")
    valid = torch.ones(samples.shape[1], *samples.shape[3:], dtype=torch.bool)
    each = energy_distance(samples, taught, valid)
    (grad,) = torch.autograd.grad(each.mean(), samples)
    largest = np.abs(case["grad_samples"]).max()
    return {
        "ged_per_image": _near_zero(each, case["ged_per_image"]),
        "ged": _near_zero(each.mean(), case["ged"]),
        "grad": _gradient(grad, case["grad_samples"]) if largest > 1e-7 else (float(grad.abs().max()), 1e-6),
    }


def check_boundary(case: Arrays) -> Errors:
    """Band and contrast as specified. Ours normalises: the recorded gradient without its part along the vector."""
    z, y = tensor(case, "z", grad=True), tensor(case, "y")
    loss = boundary_contrast(z, y, float(case["temperature"]), 10**6, torch.Generator())
    (grad,) = torch.autograd.grad(loss, z)
    recorded, unit = case["grad_z_spec"], case["z"]
    across = recorded - (recorded * unit).sum(1, keepdims=True) * unit
    return {
        "near_boundary_spec": exact(near_boundary(y), case["near_boundary_spec"]),
        "loss_spec": value(loss, case["loss_spec"]),
        "grad_z_spec": _gradient(grad, across),
    }


def check_ramp(case: Arrays) -> Errors:
    """Weight of the distance, and the averages of the teacher."""
    steps = [int(t) for t in case["iteration"]]
    errors = {
        f"lam_g_{n}": value([w * sigmoid_rampup(t // 150, 40) for t in steps], case[f"lam_g_{n}"])
        for n, w in (("0_15", 0.15), ("0_1", 0.1))
    }
    teacher, worst = tensor(case, "teacher_before"), 0.0
    for step, student, recorded in zip(case["ema_iteration"], case["student"], case["teacher"], strict=True):
        teacher = teacher.lerp(torch.from_numpy(student), 1 - warm_decay(int(step), float(case["ema_decay"])))
        worst = max(worst, float((teacher - torch.from_numpy(recorded)).abs().max()))
    return errors | {"teacher": (worst, AVERAGE)}


def check_statistics(case: Arrays) -> Errors:
    """Running mean, variance and count after each batch."""
    classes, features = case["mean"].shape[1:]
    statistics, errors = ClassStatistics(classes, features), {}
    batches = zip(*(tensor(case, k).split(case["batch_length"].tolist()) for k in ("f", "y")), strict=True)
    for i, (f, y) in enumerate(batches):
        statistics.update(f, y)
        for name, got in (("mean", statistics.mean), ("var", statistics.variance), ("count", statistics.count)):
            errors[f"{name} {i}"] = value(got, case[name][i])
    errors["mean_all_at_once"] = value(statistics.mean, case["mean_all_at_once"])
    return errors | {"var_all_at_once": value(statistics.variance, case["var_all_at_once"])}


def check_prototypes(case: Arrays) -> Errors:
    """Contrast with the statistics."""
    f = tensor(case, "f", grad=True)
    loss = prototype_contrast(
        f, tensor(case, "y"), tensor(case, "mean"), tensor(case, "var"), float(case["tau2"]), int(case["ignore"])
    )
    (grad,) = torch.autograd.grad(loss, f)
    return {"loss": value(loss, case["loss"]), "grad": _gradient(grad, case["grad_f"])}


def check_second(case: Arrays) -> Errors:
    """Supervised loss of stage 2."""
    mu, y = tensor(case, "mu", grad=True), tensor(case, "y")
    loss = 0.5 * (cross_entropy(mu, y) + foreground_dice(mu, y))
    (grad,) = torch.autograd.grad(loss, mu)
    return {"loss": value(loss, case["loss"]), "grad": _gradient(grad, case["grad_mu"])}


CHECKERS: dict[str, Check] = {
    "aua/head": check_head,
    "aua/sup_": check_supervised,
    "aua/ged": check_distance,
    "aua/bcl": check_boundary,
    "aua/ramp_ema": check_ramp,
    "aua/statistics": check_statistics,
    "aua/pcl": check_prototypes,
    "aua/stage2_sup": check_second,
}
LEFT_OUT = {
    "aua/head: mu": "the mean is the network's own classifier, so that the model needs no layer of the method",
    "aua/head: outside the body": "studies bring no body mask",
    "aua/bcl: published": "vectors scrambled and a half-sided band, by mistake",
}
