from dataclasses import replace

import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.methods.ideal import matches
from lib.core.spec import IDEALSpec


class TestIDEAL(MethodSuite):
    name = "ideal"
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

    def test_the_second_decoder_learns_from_the_shared_encoder(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.parts["second"]) > 0


def test_locations_match_by_cosine():
    query, key = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.1, 5.0, 0.0], [3.0, 0.0, 1.0]])
    assert matches(query, key).tolist() == [1, 2]
