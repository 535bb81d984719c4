"""Does our code compute what the published code computes? Runs every recorded case of a folder.

    python benchmarks/golden.py [DIR]

Exits 0 when all cases agree, 1 when one does not, 2 when DIR holds no case. Reproduction settings: where the published
code and a cleaner reading differ (quirks 4, 5, 6 and 8 of the specification), the published form.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "apps" / "loco")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from lib.core.confidence import DynamicThreshold  # noqa: E402
from lib.core.contrast import contrast_loss  # noqa: E402
from lib.core.spec import ConfidenceSpec, ContrastSpec  # noqa: E402
from lib.core.uncertainty import (  # noqa: E402
    bald,
    box_mean,
    class_entropy,
    epistemic_entropy,
    epistemic_variance,
    expected_entropy,
    power_beta,
    power_key,
    predictive_entropy,
)

DEFAULT = ROOT.parent / "shared" / "golden"
VALUE, GRADIENT, MAP = 1e-4, 1e-2, 1e-5
"""Tolerances: relative for losses and thresholds, of the largest entry for gradients, absolute for maps."""

Arrays = Mapping[str, np.ndarray]
Errors = dict[str, tuple[float, float]]
"""Quantity to (error, tolerance)."""


def of_maximum(got: np.ndarray, recorded: np.ndarray) -> float:
    """Largest deviation as a share of the largest recorded magnitude (of 1 where all are 0)."""
    recorded = recorded.astype(np.float64)
    return float(np.abs(got - recorded).max() / (np.abs(recorded).max() or 1.0))


def check_contrast(case: Arrays) -> Errors:
    """One call of the contrast loss: value and gradients for both projections."""
    spec = ContrastSpec(
        ice=bool(case["ice"]),
        bce=bool(case["bce"]),
        ice_rate=float(case["ice_rate"]),
        bce_rate=float(case["bce_rate"]),
        temperature=float(case["temperature"]),
        border="zero",
        ignored_is_boundary=True,
        bce_respects_padding=False,
    )
    tensors = {k: torch.from_numpy(case[k]) for k in ("label_l", "logit_u", "ignore_u", "threshold")}
    proj_l, proj_u = (torch.from_numpy(case[k]).requires_grad_() for k in ("proj_l", "proj_u"))
    loss = contrast_loss(
        proj_l, tensors["label_l"], proj_u, tensors["logit_u"], tensors["ignore_u"], tensors["threshold"], spec
    )
    grad_l, grad_u = torch.autograd.grad(loss, (proj_l, proj_u))
    return {
        "loss": (of_maximum(loss.detach().numpy(), case["loss"]), VALUE),
        "grad_proj_l": (of_maximum(grad_l.numpy(), case["grad_proj_l"]), GRADIENT),
        "grad_proj_u": (of_maximum(grad_u.numpy(), case["grad_proj_u"]), GRADIENT),
    }


def check_cdf(case: Arrays) -> Errors:
    """A stream of logits: the thresholds after each update, the worst relative error of all."""
    spec = ConfidenceSpec(
        momentum=float(case["momentum"]),
        init=float(case["init"]),
        power=float(case["power"]),
        cap=float(case["cap"]),
        global_over_padding=True,
    )
    recorded = case["thresholds"].astype(np.float64)
    state = DynamicThreshold(recorded.shape[1], spec)
    got = np.stack([state.update(torch.from_numpy(logits), None).numpy() for logits in case["logits"]])
    return {"thresholds": (float(np.abs(got / recorded - 1).max()), VALUE)}


def largest(got: np.ndarray, recorded: np.ndarray) -> float:
    """Largest absolute deviation."""
    return float(np.abs(got - recorded.astype(np.float64)).max())


def check_uncertainty(case: Arrays) -> Errors:
    """NnActive's maps of uncertainty from the softmax of several models."""
    probs = torch.from_numpy(case["probs"])
    maps = {
        "predictive_entropy": predictive_entropy,
        "expected_entropy": expected_entropy,
        "bald": bald,
        "class_entropy": class_entropy,
    }
    return {name: (largest(make(probs).numpy(), case[name]), MAP) for name, make in maps.items()}


def check_box(case: Arrays) -> Errors:
    """The exact box mean; the published one, by FFT, has small negative values."""
    values = torch.from_numpy(case["u"].astype(np.float64))
    if "box_mean_spec" in case:
        got = box_mean(values, case["window"].tolist(), [1] * values.ndim).numpy()
        return {
            "box_mean": (largest(got, case["box_mean_spec"]), 1e-7),
            "below zero": (max(0.0, -float(got.min())), 0.0),
        }
    got = box_mean(values, case["window"].tolist(), case["stride"].tolist()).numpy()
    return {"box_mean": (largest(got, case["box_mean"]), MAP)}


def check_power_noise(case: Arrays) -> Errors:
    """Keys of the noisy ranking from recorded draws; a score of 0 is -inf in both."""
    errors: Errors = {}
    for name in (key for key in case if key.startswith("key_")):
        got = power_key(case["score"].astype(np.float64), case[name.replace("key", "gumbel")])
        finite = np.isfinite(case[name])
        same = np.array_equal(finite, np.isfinite(got))
        errors[name] = (largest(got[finite], case[name][finite]) if same else np.inf, MAP)
    return errors


def check_beta(case: Arrays) -> Errors:
    """The exponential schedule; the sigmoid ones are ablations that this app does not have."""
    errors: Errors = {}
    for name in (key for key in case if key.startswith("exp_")):
        steps = int(name.removeprefix("exp_"))
        got = np.array([power_beta(step, steps) for step in range(steps)])
        errors[name] = (float(np.abs(got / case[name] - 1).max()), 1e-9)
    return errors


def check_epistemic(case: Arrays) -> Errors:
    """MONAI Label's entropy and variance of stochastic passes, and their means."""
    probs = torch.from_numpy(case["probs"])
    entropy, variance = epistemic_entropy(probs), epistemic_variance(probs)
    return {
        "entropy": (largest(entropy.numpy(), case["entropy"]), MAP),
        "variance": (largest(variance.numpy(), case["variance"]), MAP),
        "score": (float(abs(entropy.mean() / float(case["score"]) - 1)), VALUE),
        "score_variance": (float(abs(variance.mean() / float(case["score_variance"]) - 1)), VALUE),
    }


CHECKERS: dict[str, Callable[[Arrays], Errors]] = {
    "contrast_": check_contrast,
    "cdf_": check_cdf,
    "nnactive/uncertainty_": check_uncertainty,
    "nnactive/box_": check_box,
    "nnactive/power_noise": check_power_noise,
    "nnactive/beta": check_beta,
    "monailabel/epistemic_": check_epistemic,
}
"""Beginning of a recorded file's path below DIR, e.g. `cps/step_`, to the function that checks it."""


def checker_of(name: str) -> Callable[[Arrays], Errors] | None:
    """Checker of a file by its path below DIR; None if there is none."""
    return next((check for prefix, check in CHECKERS.items() if name.startswith(prefix)), None)


def main(arguments: list[str]) -> int:
    """Check all cases and print one line each; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", nargs="?", type=Path, default=DEFAULT)
    folder = parser.parse_args(arguments).dir
    console = Console(width=100)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.npz"))}
    known = {name: path for name, path in files.items() if checker_of(name)}
    if not known:
        console.print(
            f"expected {folder} to hold recorded cases ({', '.join(CHECKERS)}*.npz), but found none; name the folder"
        )
        return 2
    table = Table("case", "quantity", "error", "tolerance", "")
    failures = 0
    for name, path in known.items():
        check = checker_of(name)
        assert check is not None
        with np.load(path) as case:
            errors = check(case)
        for quantity, (error, tolerance) in errors.items():
            agrees = error <= tolerance  # NaN does not
            failures += not agrees
            table.add_row(name, quantity, f"{error:.1e}", f"{tolerance:.0e}", "ok" if agrees else "[red]differs[/red]")
    console.print(table)
    missing = sorted({Path(name).parent.as_posix() if "/" in name else name for name in files if name not in known})
    for name in missing:
        console.print(f"{name}: not implemented yet")
    console.print(f"{len(known)} cases, {failures} quantities differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
