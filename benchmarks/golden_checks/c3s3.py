"""C3S3: contrast, competition and ramp."""

from __future__ import annotations

import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, exact, gradient, tensor, value
from torch import Tensor

from lib.core.losses import cross_entropy, foreground_dice, masked_mse
from lib.core.memory import outcome_contrast
from lib.core.methods.c3s3 import cosine_distance, sharpened
from lib.core.regions import as_vectors
from lib.core.schedules import sigmoid_rampup

_PAIRS = (("a1", "b1"), ("a2", "b2"), ("a1", "b2"), ("a2", "b1"))


def _foreground(logits: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == 1).flatten()


def _contrast(logits: dict[str, Tensor], projections: dict[str, Tensor], pair: tuple[str, str], tau: float) -> Tensor:
    vectors = [as_vectors(projections[n]) for n in pair]
    return sum(outcome_contrast(*vectors, *(_foreground(logits[n]) for n in pair), tau))


def check_contrast(case: Arrays) -> Errors:
    """One pair of projections."""
    a, b = (tensor(case, f"proj_{n}", grad=True) for n in "ab")
    found = [_foreground(tensor(case, f"logits_{n}")) for n in "ab"]
    l_int, l_uni = outcome_contrast(as_vectors(a), as_vectors(b), *found, float(case["tau"]))
    grads = torch.autograd.grad(l_int + l_uni, (a, b))
    return {
        "intersection": exact(found[0] & found[1], case["intersection"]),
        "union": exact(found[0] | found[1], case["union"]),
        "l_int_spec": value(l_int, case["l_int_spec"]),
        "l_uni_spec": value(l_uni, case["l_uni_spec"]),
        "loss": value(l_int + l_uni, case["loss"]),
        "grad_a": gradient(grads[0], case["grad_a"]),
        "grad_b": gradient(grads[1], case["grad_b"]),
    }


def check_step(case: Arrays) -> Errors:
    """One step: who wins, what it teaches, the sums of all terms, the contrast counted once."""
    logits = {n: tensor(case, f"logits_{n}") for n in ("a1", "a2", "b1", "b2")}
    projections = {n: tensor(case, f"proj_{n}", grad=True) for n in logits}
    label, labelled = tensor(case, "y"), len(case["y"])
    errors: Errors = {}
    comp = {}
    for net in "ab":
        views = [logits[f"{net}{v}"] for v in (1, 2)]
        ce = sum(cross_entropy(z[:labelled], label) for z in views)
        dice = sum(foreground_dice(z[:labelled], label) for z in views)
        comp[net] = float(case["alpha"]) * ce + (1 - float(case["alpha"])) * dice
        everywhere = torch.ones(views[0].shape[0], *views[0].shape[2:], dtype=torch.bool)
        for name, got in (("ce", ce), ("dice", dice), ("sup", 0.5 * (ce + dice)), ("comp", comp[net])):
            errors[f"{name}_{net}"] = value(got, case[f"{name}_{net}"])
        for name, over in (("published", "last_axis"), ("spec", "classes")):
            got = cosine_distance(*views, everywhere, over)
            errors[f"cos_{net}_{name}"] = value(got, case[f"cos_{net}_{name}"])
    winner = 0 if comp["a"] < comp["b"] else 1
    errors["winner"] = exact(float(winner), case["winner"])
    teacher, pupil = ("a", "b")[winner], ("b", "a")[winner]
    targets = [sharpened(logits[f"{teacher}{v}"][labelled:], float(case["sharpen_T"])) for v in (1, 2)]
    nothing = torch.zeros(targets[0].shape[0], *targets[0].shape[2:])
    pupils = [torch.softmax(logits[f"{pupil}{v}"][labelled:], 1) for v in (1, 2)]
    cp = sum(masked_mse(p, q, nothing) for p, q in zip(pupils, targets, strict=True))
    pairs = [_contrast(logits, projections, pair, float(case["tau"])) for pair in _PAIRS]
    errors |= {f"q{v}": value(q, case[f"q{v}"]) for v, q in zip((1, 2), targets, strict=True)}
    errors |= {"cp": value(cp, case["cp"]), "iuc_pairs": value(torch.stack(pairs), case["iuc_pairs"])}
    errors["iuc"] = value(sum(pairs), case["iuc"])
    grads = torch.autograd.grad(sum(pairs), list(projections.values()))
    for name, grad in zip(projections, grads, strict=True):
        errors[f"grad_proj_{name}_spec"] = gradient(grad, case[f"grad_proj_{name}_spec"])
    return errors


def check_ramp(case: Arrays) -> Errors:
    """Weight over the iterations."""
    weights = [float(case["w_max"]) * sigmoid_rampup(int(t) // 150, int(case["length"])) for t in case["iteration"]]
    return {"w": value(weights, case["w"])}


CHECKERS: dict[str, Check] = {"c3s3/odcl": check_contrast, "c3s3/step_": check_step, "c3s3/ramp": check_ramp}
LEFT_OUT: dict[str, str] = {
    f"c3s3/step_winner_{w}: loss_a, loss_b, grad_*_published": "the published sum counts the contrast's gradient twice"
    for w in "ab"
}
