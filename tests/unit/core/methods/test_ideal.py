import io
from dataclasses import replace
from math import e, log

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient, optimise

from lib.core.methods.ideal import matches
from lib.core.spec import IDEALSpec


class TestIDEAL(MethodSuite):
    name = "ideal"
    own_form = (0,)
    terms = ("loss_sup_2", "loss_cross")
    spec = replace(SPEC, ideal=IDEALSpec(confidence=0.2, locations=8, queue=6, dimension=4))

    def test_the_contrast_trains_encoder_and_head_and_fills_the_queue(self):
        method = self.build()
        output = method.step(batch_of(), 0)
        output.loss.backward()
        assert {"loss_dense", "loss_global"} <= set(output.logs)
        assert gradient(method.parts["head"]) > 0
        assert gradient(method.parts["key_head"]) == 0
        assert len(method.parts["queue"].vectors) == 2
        assert method.network.student.classifier.weight.grad is None

    def test_after_the_warm_share_the_dense_term_stands_alone(self):
        method = self.build()
        output = method.step(batch_of(), method.pretraining_steps - 1)
        assert float(output.loss.detach()) == float(output.logs["loss_dense"])

    @pytest.mark.parametrize("dims", [2, 3])
    def test_one_image_is_enough_for_the_contrast(self, dims):
        method = self.build(dims, spec=replace(self.spec, ideal=replace(self.spec.ideal, locations=64)))
        for step in (0, method.pretraining_steps - 1):
            method.network.student.zero_grad()
            method.step(batch_of(dims, unlabelled=1), step).loss.backward()
            assert gradient(method.network.student) > 0

    def test_padding_takes_no_part_in_the_contrast(self):
        method, batch = self.build(), batch_of()
        batch.ignore_u[0].fill_(255)
        method.step(batch, 0)
        assert len(method.parts["queue"].vectors) == 1
        batch.ignore_u.fill_(255)
        for step in (0, method.pretraining_steps - 1):
            method = self.build()
            output = method.step(batch, step)
            output.loss.backward()
            assert float(output.loss.detach()) == 0
            assert gradient(method.network.student) == 0
            assert all(bool(torch.isfinite(p.grad).all()) for p in method.parts["head"].parameters())
            assert len(method.parts["queue"].vectors) == 0

    def test_the_dense_contrast_by_hand(self):
        """Six cells in a row, each its own match; the vectors of the last three are at a right angle to the others."""
        options = replace(self.spec.ideal, locations=9, temperature=1.0, dimension=2)
        method = self.build(spec=replace(self.spec, ideal=options))
        key = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])[None]
        query = torch.tensor([[1.0], [0.0]]).expand(2, 6)[None]
        feature, valid = torch.eye(6).view(1, 6, 1, 6), torch.ones(1, 1, 6, dtype=torch.bool)
        dense = lambda: float(method._dense(query, key, feature, feature, valid, 0))  # noqa: E731
        # negatives of 0: 4 and 5, of 1: 5, of 4: 0, of 5: 0 and 1; of 2 and 3 none
        rows = [log(e + 2) - 1, log(e + 1) - 1, 0, 0, log(1 + e), log(1 + 2 * e)]
        assert dense() == pytest.approx(sum(rows) / 6, abs=1e-3)
        method.parts["queue"].push(torch.tensor([[0.0, 1.0]]))
        rows = [log(e + 3) - 1, log(e + 2) - 1, log(e + 1) - 1, log(2), log(2 + e), log(2 + 2 * e)]
        assert dense() == pytest.approx(sum(rows) / 6, abs=1e-5)
        valid[..., 0] = False
        rows = [log(e + 2) - 1, log(e + 1) - 1, log(2), log(2), log(2 + e)]
        assert dense() == pytest.approx(sum(rows) / 5, abs=1e-5)

    def test_cells_of_other_images_are_negatives(self):
        options = replace(self.spec.ideal, locations=9, temperature=1.0, dimension=2)
        method = self.build(spec=replace(self.spec, ideal=options))
        key = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
        feature, valid = torch.ones(2, 3, 1, 1), torch.ones(2, 1, 1, dtype=torch.bool)
        assert float(method._dense(key, key, feature, feature, valid, 0)) == pytest.approx(log(e + 1) - 1)

    def test_the_second_stage_is_the_weighted_sum(self):
        method = self.build(spec=replace(self.spec, ideal=replace(self.spec.ideal, weight=0.5)))
        output = method.step(batch_of(), LATE)
        logs = {k: float(v) for k, v in output.logs.items()}
        total = logs["loss_sup"] + logs["loss_sup_2"] + 0.5 * logs["loss_cross"]
        assert logs["weight"] == 0.5
        assert float(output.loss.detach()) == pytest.approx(total)

    def test_going_on_in_the_first_stage_gives_the_same_next_losses(self):
        batches, method = [batch_of(seed=s) for s in range(4)], self.build()
        optimise(method, batches[:2])
        file = io.BytesIO()
        torch.save({"network": method.network.state_dict(), "method": method.state_dict()}, file)
        expected = optimise(method, batches[2:], 2)
        file.seek(0)
        content, again = torch.load(file, weights_only=True), self.build()
        again.network.load_state_dict(content["network"])
        again.load_state_dict(content["method"])
        assert optimise(again, batches[2:], 2) == expected

    def test_it_works_without_a_queue(self):
        method = self.build(spec=replace(self.spec, ideal=replace(self.spec.ideal, queue=0)))
        method.step(batch_of(), 0).loss.backward()
        assert gradient(method.network.student) > 0

    def test_the_second_decoder_learns_from_the_shared_encoder(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0


def test_locations_match_by_cosine():
    query, key = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.1, 5.0, 0.0], [3.0, 0.0, 1.0]])
    assert matches(query, key).tolist() == [1, 2]
