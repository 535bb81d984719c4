"""C3S3: contrast, competition and ramp."""

from __future__ import annotations

import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, exact, gradient, tensor, value
from torch import Tensor, nn

from lib.core.batch import Batch
from lib.core.losses import cross_entropy, foreground_dice
from lib.core.memory import outcome_contrast
from lib.core.methods.base import StepOutput
from lib.core.methods.c3s3 import C3S3, sharpened
from lib.core.networks import NetworkOutput
from lib.core.regions import as_vectors
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import C3S3Spec, MethodSpec

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


class _Recorded(nn.Module):
    """A network that has been recorded: its outputs in the order of the calls."""

    def __init__(self, outputs: list[NetworkOutput]) -> None:
        super().__init__()
        self._outputs = iter(outputs)

    def forward(self, image: Tensor) -> NetworkOutput:
        return next(self._outputs)


def _step(case: Arrays, contrast_weight: float, cosine: str) -> tuple[StepOutput, dict[str, Tensor]]:
    """A step of the method on recorded outputs; the gradients of these by name."""
    found = {
        f"{k}_{n}": tensor(case, f"{k}_{n}", grad=True) for n in ("a1", "a2", "b1", "b2") for k in ("logits", "proj")
    }
    first, second = (
        _Recorded([NetworkOutput(found[f"logits_{net}{v}"], found[f"proj_{net}{v}"]) for v in (1, 2)]) for net in "ab"
    )
    label, everything = tensor(case, "y"), found["logits_a1"]
    image = torch.zeros(len(everything), 1, *everything.shape[2:])
    labelled, unlabelled = image.split([len(label), len(image) - len(label)])
    batch = Batch(labelled, label, unlabelled, unlabelled, torch.zeros(unlabelled.shape, dtype=torch.uint8)[:, 0])
    options = C3S3Spec(
        alpha=float(case["alpha"]),
        sharpening=float(case["sharpen_T"]),
        temperature=float(case["tau"]),
        contrast_weight=contrast_weight,
        view_noise=0.0,
        points=everything.numel(),
        cosine=cosine,
    )
    spec = MethodSpec(
        "c3s3",
        labelled_loss="own",
        batch_statistics="joint",
        consistency_weight=float(case["w"]),
        ramp_share=0.0,
        c3s3=options,
    )
    output = C3S3(first, spec, everything.shape[1], 1, second=second).unlabelled_step(batch, 0)
    output.loss.backward()
    return output, {k: v.grad for k, v in found.items()}


def check_step(case: Arrays) -> Errors:
    """One step of the method: as published (the contrast twice), and with the contrast once and the classes compared."""
    both = {
        k: case[k.format("a")] + case[k.format("b")] for k in ("sup_{}", "cos_{}_published", "cos_{}_spec", "loss_{}")
    }
    published, grads = _step(case, 2.0, "last_axis")
    spec, grads_spec = _step(case, 1.0, "classes")
    errors: Errors = {
        "winner": exact(published.logs["winner"], case["winner"]),
        "sup": value(published.logs["loss_sup"], both["sup_{}"]),
        "cos_published": value(published.logs["loss_cos"], both["cos_{}_published"]),
        "cos_spec": value(spec.logs["loss_cos"], both["cos_{}_spec"]),
        "cp": value(published.logs["loss_cp"], case["cp"]),
        "iuc": value(published.logs["loss_iuc"], case["iuc"]),
        "loss_a + loss_b": value(published.loss, both["loss_{}"]),
    }
    for name, grad in grads.items():
        errors[f"grad_{name}_published"] = gradient(grad, case[f"grad_{name}_published"])
        if name.startswith("proj"):
            errors[f"grad_{name}_spec"] = gradient(grads_spec[name], case[f"grad_{name}_spec"])
    return errors | _parts(case)


def _parts(case: Arrays) -> Errors:
    """The score of each network, the sharpened targets and the four pairs of the contrast."""
    logits = {n: tensor(case, f"logits_{n}") for n in ("a1", "a2", "b1", "b2")}
    projections = {n: tensor(case, f"proj_{n}") for n in logits}
    label, labelled, alpha = tensor(case, "y"), len(case["y"]), float(case["alpha"])
    errors: Errors = {}
    for net in "ab":
        views = [logits[f"{net}{v}"][:labelled] for v in (1, 2)]
        ce = sum(cross_entropy(z, label) for z in views)
        dice = sum(foreground_dice(z, label) for z in views)
        for name, got in (("ce", ce), ("dice", dice), ("comp", alpha * ce + (1 - alpha) * dice)):
            errors[f"{name}_{net}"] = value(got, case[f"{name}_{net}"])
    teacher = "ab"[int(case["winner"])]
    for v in (1, 2):
        errors[f"q{v}"] = value(sharpened(logits[f"{teacher}{v}"][labelled:], float(case["sharpen_T"])), case[f"q{v}"])
    pairs = [_contrast(logits, projections, pair, float(case["tau"])) for pair in _PAIRS]
    return errors | {"iuc_pairs": value(torch.stack(pairs), case["iuc_pairs"])}


def check_ramp(case: Arrays) -> Errors:
    """Weight over the iterations."""
    weights = [float(case["w_max"]) * sigmoid_rampup(int(t) // 150, int(case["length"])) for t in case["iteration"]]
    return {"w": value(weights, case["w"])}


CHECKERS: dict[str, Check] = {"c3s3/odcl": check_contrast, "c3s3/step_": check_step, "c3s3/ramp": check_ramp}
