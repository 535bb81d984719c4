"""ERSR: filter, ellipses, mirror images, losses, ramp and average."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.common import Arrays, Check, Errors, check_average, exact, gradient, tensor, value

from lib.core.ellipse import corners, ellipse_of, outer_contour, refined
from lib.core.losses import foreground_loss
from lib.core.ranking import best_of
from lib.core.schedules import sigmoid_rampup
from lib.core.symmetry import Mirror, roughness, symmetry_losses

_ELLIPSE, _PIXELS = 1e-3, 5e-3
_CPU = torch.device("cpu")


def check_filter(case: Arrays) -> Errors:
    """Scores of an epoch of four batches, and what they keep."""
    scores = [roughness(p, border="zero") for p in tensor(case, "P")]
    length = 10000
    kept, seen = [], []
    for t, published in zip(case["iteration"], case["score_published"], strict=True):
        seen += published.tolist()
        share = 0.5 + 0.5 * sigmoid_rampup(int(t), length)
        found = best_of(published.tolist(), seen, share, float(case["floor"]))
        kept.append(found + [-1] * (len(published) - len(found)))
    return {
        "s_edge": value(torch.stack([s for s, _ in scores]), case["s_edge"]),
        "s_edt_exact_outside_spec": (
            value(torch.stack([s for _, s in scores]), case["s_edt_exact_outside_spec"])[0],
            1e-3,
        ),
        "kept": exact(np.array(kept), case["kept"]),
    }


def check_ellipse(case: Arrays) -> Errors:
    """Contours, ellipses and refined labels."""
    errors: Errors = {}
    found = [ellipse_of(p[0], float(case["threshold"])) for p in case["P"]]
    errors["without"] = exact([e is None for e in found], np.array([False] * 3 + [True] * 2))
    fitted = [e for e in found if e is not None]
    errors["centre"] = (value(np.array([e.centre for e in fitted]), case["centre"])[0], _ELLIPSE)
    errors["axes"] = (value(np.array([e.axes for e in fitted]), case["axes"])[0], _ELLIPSE)
    angles = np.degrees([e.angle for e in fitted]) % 180
    errors["angle_degrees"] = (value(angles, case["angle_degrees"][: len(fitted)] % 180)[0], _ELLIPSE)
    height, width = case["P"].shape[2:]
    levels = np.stack([e.level(height, width) for e in fitted])
    better = refined(case["P"][: len(fitted), 0].astype(np.float64), levels, float(case["threshold"]))
    errors["rho_spec"] = (value(levels, case["rho_spec"])[0], _ELLIPSE)
    errors["refined_spec"] = (value(better, case["refined_spec"])[0], _ELLIPSE)
    errors["yhat"] = (exact(better > float(case["threshold"]), case["yhat"][: len(fitted), 0])[0], _PIXELS)
    points = [set(map(tuple, p[p[:, 0] >= 0].tolist())) for p in case["contour_points"]]
    own = [set(map(tuple, corners(outer_contour(p[0] > 153 / 255)).tolist())) for p in case["P"][: len(fitted)]]
    errors["contour_points"] = (float(sum(len(a ^ b) for a, b in zip(points, own, strict=True))), 0.0)
    return errors


def _mirrors(case: Arrays) -> list[Mirror]:
    size = case["yhat"].shape[2:]
    return [Mirror(*size, (x, y), float(np.arctan2(s, c)), _CPU) for x, y, c, s in case["symmetry_axis"]]


def check_mirror(case: Arrays) -> Errors:
    """Halves and mirror images of labels and of a map; completed images as published."""
    errors: Errors = {}
    mirrors = _mirrors(case)
    for name, source in (("label", "yhat"), ("map", "map")):
        halves = [m.halves(v) for m, v in zip(mirrors, tensor(case, source).float(), strict=True)]
        for side, position in (("left", 0), ("right", 1)):
            own = torch.stack([h[position] for h in halves])
            mirrored = torch.stack([m(h[position]) for m, h in zip(mirrors, halves, strict=True)])
            errors[f"{name}_{side}"] = value(own, case[f"{name}_{side}"])
            errors[f"{name}_{side}_mirrored"] = value(mirrored, case[f"{name}_{side}_mirrored"])
    label, image = tensor(case, "yhat").float(), tensor(case, "x")
    completed = [m.completed(v) for m, v in zip(mirrors, label, strict=True)]
    for position, (operator, result) in enumerate((("SL", "X_L"), ("SR", "X_R"))):
        errors[operator] = exact(torch.stack([c[position] for c in completed]), case[operator])
        halves = [x * m.halves(v)[position] for m, x, v in zip(mirrors, image, label, strict=True)]
        whole = [h + m(h) for m, h in zip(mirrors, halves, strict=True)]
        errors[result] = value(image * (1 - label) + torch.stack(whole), case[result])
    return errors


def check_losses(case: Arrays) -> Errors:
    """The three unlabelled terms and their gradients."""
    logits = [tensor(case, f"logits_{n}", grad=True) for n in ("plain", "X_L", "X_R")]
    label = tensor(case, "yhat").float()
    terms = symmetry_losses(*(torch.sigmoid(z) for z in logits), label, _mirrors(case), torch.ones_like(label))
    errors: Errors = {"sum": value(sum(terms), case["sum"])}
    for name, term in zip(("seg", "aug", "mir"), terms, strict=True):
        grads = torch.autograd.grad(term, logits, retain_graph=True, allow_unused=True)
        stacked = torch.cat([torch.zeros_like(z) if g is None else g for g, z in zip(grads, logits, strict=True)])
        errors[f"L_{name}"] = value(term, case[f"L_{name}"])
        errors[f"grad_{name}"] = gradient(stacked, case[f"grad_{name}"])
    return errors


def check_supervised(case: Arrays) -> Errors:
    """The labelled loss in its mended form."""
    return {"L_sup_spec": value(foreground_loss(tensor(case, "logits"), tensor(case, "y")[:, 0]), case["L_sup_spec"])}


def check_ramp(case: Arrays) -> Errors:
    """Weight and share kept over the iterations."""
    ramp = np.array([sigmoid_rampup(int(t), int(case["length"])) for t in case["iteration"]])
    return {
        "w": value(float(case["w_max"]) * ramp, case["w"]),
        "keep_ratio": value(0.5 + 0.5 * ramp, case["keep_ratio"]),
    }


def check_ema(case: Arrays) -> Errors:
    """The teacher's warm average over weights and statistics."""
    steps = sorted({int(k[1:].split("_")[0]) for k in case if k.startswith("t")})
    return {
        f"t{t}": check_average(case, (f"t{t}_student_", f"t{t}_before_", f"t{t}_after_"), t, warm=True, buffers=True)
        for t in steps
    }


CHECKERS: dict[str, Check] = {
    "ersr/ema": check_ema,
    "ersr/filter": check_filter,
    "ersr/ellipse": check_ellipse,
    "ersr/mirror": check_mirror,
    "ersr/losses": check_losses,
    "ersr/supervised": check_supervised,
    "ersr/ramp": check_ramp,
}
LEFT_OUT: dict[str, str] = {
    "ersr/supervised: L_sup_published": "the published focal term is fed with probabilities",
    "ersr/filter: distance_published": "a convolution cascade that approximates the exact distance used here",
}
