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

DEFAULT = ROOT.parent / "shared" / "golden"
VALUE, GRADIENT = 1e-4, 1e-2
"""Tolerances: relative for losses and thresholds, of the largest entry for gradients."""

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


CHECKERS: dict[str, Callable[[Arrays], Errors]] = {
    "contrast_": check_contrast,
    "cdf_": check_cdf,
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
