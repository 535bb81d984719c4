"""LoCo. Reproduction settings: where the published code and a cleaner reading differ, the published form."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.golden_checks.common import VALUE, Arrays, Check, Errors, of_maximum

from lib.core.confidence import DynamicThreshold
from lib.core.contrast import contrast_loss
from lib.core.spec import ConfidenceSpec, ContrastSpec

GRADIENT = 1e-2
"""The recorded gradients have half precision."""


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


CHECKERS: dict[str, Check] = {"contrast_": check_contrast, "cdf_": check_cdf}
