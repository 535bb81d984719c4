"""Confidence-based dynamic filter (CDF): one threshold per class that follows the teacher's confidence.

LoCo, arXiv 2412.02314. `local_c` tracks the mean confidence of the pixels predicted as class c, `global` the mean
confidence of all pixels; t_c = global * (local_c / max_k local_k)^power. An unsure class gets a lower bar.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.core.spec import IGNORE, ConfidenceSpec


class DynamicThreshold:
    """Per-class confidence thresholds and their running means.

    The state is a few float64 numbers on the CPU, whatever the device of the logits, and costs one transfer per update.
    With `spec.adaptive` False the thresholds are `spec.fixed` for ever and `update` changes nothing.
    """

    def __init__(self, classes: int, spec: ConfidenceSpec) -> None:
        if classes < 2:
            raise ValueError(f"expected `classes` to be at least 2, but got {classes}; count the background too")
        self.classes = classes
        self.spec = spec
        self._local = torch.full((classes,), spec.init, dtype=torch.float64)
        self._global = torch.tensor(spec.init, dtype=torch.float64)

    @property
    def thresholds(self) -> Tensor:
        """Present thresholds, (K) float32 on the CPU."""
        if not self.spec.adaptive:
            return torch.full((self.classes,), self.spec.fixed)
        return (self._global * (self._local / self._local.max()) ** self.spec.power).float()

    @torch.no_grad()
    def update(self, logits: Tensor, ignore: Tensor | None) -> Tensor:
        """Move the running means by one batch and return the new thresholds, (K) float32 on the device of `logits`.

        `logits`: `B K H W [D]` float, the teacher's. `ignore`: `B H W [D]` uint8, 255 = padded pixel, or None.
        In distributed training every rank passes the whole batch, so all ranks get the same thresholds.
        Raises `ValueError` on a wrong shape and on logits that are not finite, which would spoil the means for ever.
        """
        _check(logits, ignore, self.classes)
        if self.spec.adaptive:
            sums = batch_sums(logits, ignore, over_padding=self.spec.global_over_padding)
            self._move(sums.cpu().double())
        return self.thresholds.to(logits.device)

    def _move(self, sums: Tensor) -> None:
        if not bool(sums.isfinite().all()):
            raise ValueError(
                "expected `logits` to be finite, but got NaN; look for the step at which training diverged"
            )
        total, count = sums
        mean = torch.where(count > 0, total / count.clamp(min=1), self.spec.init)
        keep = self.spec.momentum
        self._local = keep * self._local + (1 - keep) * mean[:-1]
        self._global = keep * self._global + (1 - keep) * mean[-1].clamp(self.spec.init, self.spec.cap)

    def state_dict(self) -> dict[str, Tensor]:
        """The running means: `local` (K) and `global` (), float64. Safe for `torch.load(weights_only=True)`."""
        return {"local": self._local.clone(), "global": self._global.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`. Raises `ValueError` on anything else, e.g. another number of classes."""
        if set(state) != {"local", "global"}:
            raise ValueError(f"expected the state to hold 'global' and 'local', but got {sorted(state)}")
        local = torch.as_tensor(state["local"])
        if local.shape != (self.classes,):
            raise ValueError(
                f"expected `local` to be of shape ({self.classes},), but got {tuple(local.shape)}; "
                "load a state of a model with the same classes"
            )
        self._local = local.detach().to("cpu", torch.float64, copy=True)
        self._global = torch.as_tensor(state["global"]).detach().to("cpu", torch.float64, copy=True)


def batch_sums(logits: Tensor, ignore: Tensor | None, *, over_padding: bool) -> Tensor:
    """Sums and counts of the confidence max softmax(logits), (2, K + 1) float32 on the device of `logits`.

    Column c: over valid pixels predicted as class c; last column: over all pixels, padding included if `over_padding`.
    """
    confidence, predicted = logits.float().softmax(1).max(1)
    valid = torch.ones_like(predicted, dtype=torch.bool) if ignore is None else ignore != IGNORE
    masks = [(predicted == c) & valid for c in range(logits.shape[1])]
    masks.append(torch.ones_like(valid) if over_padding else valid)
    total = torch.stack([(confidence * m).sum() for m in masks])
    return torch.stack([total, torch.stack([m.sum() for m in masks]).to(total.dtype)])


def _check(logits: Tensor, ignore: Tensor | None, classes: int) -> None:
    if logits.ndim not in (4, 5) or logits.shape[1] != classes:
        raise ValueError(
            f"expected `logits` to be of shape B {classes} H W [D], but got {tuple(logits.shape)}; "
            "pass the teacher's logits before argmax"
        )
    expected = (logits.shape[0], *logits.shape[2:])
    if ignore is not None and ignore.shape != expected:
        raise ValueError(
            f"expected `ignore` to be of shape {expected}, but got {tuple(ignore.shape)}; pass one value per pixel"
        )
