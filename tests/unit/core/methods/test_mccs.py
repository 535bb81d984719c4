from dataclasses import replace

import pytest
from unit.core.methods.base import LATE, SPEC, TOTAL, MethodSuite, batch_of, gradient

from lib.core.spec import MCCSSpec


class TestMCCS(MethodSuite):
    name = "mccs"
    terms = ("loss_sup_2", "loss_cross", "loss_pixel", "loss_patch")
    spec = replace(
        SPEC,
        mccs=MCCSSpec(confidence=0.2, contrast_confidence=0.2, queue=16, anchors=8, dimension=4, start=0.5, purity=0.4),
    )

    def test_contrast_starts_later(self):
        method, batch = self.build(), batch_of()
        early = method.step(batch, 1)
        early.loss.backward()
        assert gradient(method.parts["patch"]) == 0
        assert float(early.logs["loss_pixel"]) > 0
        method = self.build()
        late = method.step(batch, TOTAL // 2)
        late.loss.backward()
        assert gradient(method.parts["patch"]) > 0
        logs = {k: float(v) for k, v in late.logs.items()}
        total = logs["loss_sup"] + logs["loss_sup_2"] + logs["weight"] * logs["loss_cross"]
        assert float(late.loss.detach()) == pytest.approx(
            total + 0.1 * (logs["loss_pixel"] + logs["loss_patch"]), rel=1e-4
        )

    def test_a_queue_per_class_is_filled(self):
        method = self.build()
        method.step(batch_of(), LATE)
        assert all(len(q.vectors) > 0 for q in method.parts["queues"])
