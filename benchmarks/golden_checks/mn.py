"""M&N: the loss of a step, the order of the slices, and the share of unlabelled volumes."""

from __future__ import annotations

import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, exact, of_maximum, tensor, value

from lib.core.losses import one_hot
from lib.core.methods.mn import slices_of, soft_loss, unlabelled_count


def check_step(case: Arrays) -> Errors:
    """One step of either network."""
    logits = tensor(case, "logits", grad=True)
    taught = torch.softmax(tensor(case, "logits_teacher"), dim=1)
    target = torch.cat([taught, one_hot(tensor(case, "y_l"), logits.shape[1])])
    loss = soft_loss(logits, target, torch.ones(len(logits), *logits.shape[2:], dtype=torch.bool))
    (grad,) = torch.autograd.grad(loss, logits)
    errors = {
        "target": value(target, case["target"]),
        "loss": value(loss, case["loss"]),
        "grad": (of_maximum(grad, case["grad_logits"]), 1e-2),
    }
    if "slices" in case:
        errors["slices"] = exact(slices_of(tensor(case, "image")), case["slices"])
    return errors


def check_share(case: Arrays) -> Errors:
    """Unlabelled volumes per batch, epoch by epoch."""
    first, total = int(case["transition"]), int(case["epochs"])
    errors = {}
    for size in (1, 2, 3, 5, 8):
        ours = [int(unlabelled_count(int(e), first, total, size)) for e in case["epoch"]]
        errors[f"batch {size}"] = exact(torch.tensor(ours), case[f"n_u_batch{size}"])
    ours = [int(unlabelled_count(e, 50, 400, 5)) for e in range(400)]
    return errors | {"batch 5, 400 epochs": exact(torch.tensor(ours), case["n_u_batch5_transition50_epochs400"])}


CHECKERS: dict[str, Check] = {"mn/step_": check_step, "mn/lrg": check_share}
LEFT_OUT = {
    "mn/learning_rate": "all methods share the app's optimiser and schedule",
    "mn/sliding": "all methods share the app's sliding window, which averages probabilities",
    "mn/split": "all methods share the app's split by patient",
}
