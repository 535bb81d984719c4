import math
from dataclasses import replace

import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, batch_of, gradient

from lib.core.losses import cross_entropy, foreground_dice
from lib.core.memory import outcome_contrast
from lib.core.methods import c3s3
from lib.core.methods.c3s3 import cosine_distance, sharpened
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import C3S3Spec


class TestC3S3(MethodSuite):
    name = "c3s3"
    terms = ("loss_cos", "loss_cp", "loss_iuc")
    spec = replace(SPEC, consistency_weight=1.0, c3s3=C3S3Spec(points=24))

    def constant(self, first, second, **numbers):
        """A method for two classes whose networks find the foreground everywhere with these probabilities."""
        options = C3S3Spec(**{"points": 24, "view_noise": 0.0, "sharpening": 0.5, **numbers})
        method = self.build(spec=replace(self.spec, c3s3=options), classes=2)
        for network, p in ((method.network.student, first), (method.parts["second"], second)):
            with torch.no_grad():
                network.classifier.weight.zero_()
                network.classifier.bias.copy_(torch.tensor([0.0, math.log(p / (1 - p))]))
        return method

    def tenth(self):
        """A batch of which about a tenth of the labelled pixels are foreground."""
        batch = batch_of()
        batch.label_l.zero_()
        batch.label_l[:, :2, :3] = 1
        return batch

    @pytest.mark.parametrize(("first", "second"), [(0.1, 0.3), (0.3, 0.1)])
    @pytest.mark.parametrize("alpha", [0.0, 1.0])
    def test_alpha_decides_who_wins_and_the_winner_teaches(self, first, second, alpha):
        # 0.1 is nearest in cross-entropy (the share of the foreground), 0.3 in Dice (its root)
        logs = self.constant(first, second, alpha=alpha).step(self.tenth(), LATE).logs
        best = 0.1 if alpha == 1 else 0.3
        winner = [first, second].index(best)
        loser = (second, first)[winner]
        target = best**2 / (best**2 + (1 - best) ** 2)
        assert logs["winner"] == winner
        assert float(logs["loss_cp"]) == pytest.approx(2 * (loser - target) ** 2, rel=1e-4)

    def test_the_score_is_that_share_of_cross_entropy_and_the_rest_dice(self):
        f, batch = 6 / 64, self.tenth()

        def score(p, alpha):
            ce = -f * math.log(p) - (1 - f) * math.log(1 - p)
            return alpha * ce + (1 - alpha) * (1 - 2 * p * f / (p * p + f))

        for alpha in (0.2, 0.5, 0.8):
            expected = float(score(0.3, alpha) < score(0.1, alpha))
            assert self.constant(0.1, 0.3, alpha=alpha).step(batch, LATE).logs["winner"] == expected

    @pytest.mark.parametrize(("first", "second"), [(0.1, 0.3), (0.3, 0.1)])
    def test_only_the_loser_learns_from_the_winner(self, first, second):
        biases = []
        for weight in (0.0, 1.0):
            method = self.constant(first, second, alpha=1.0)
            method.spec = replace(method.spec, consistency_weight=weight)
            method.step(self.tenth(), LATE).loss.backward()
            biases.append([n.classifier.bias.grad for n in (method.network.student, method.parts["second"])])
        winner = [first, second].index(0.1)
        torch.testing.assert_close(biases[0][winner], biases[1][winner])
        assert not torch.allclose(biases[0][1 - winner], biases[1][1 - winner])

    def test_the_labels_of_the_winner_by_hand(self):
        method, batch = self.build(spec=replace(self.spec, c3s3=C3S3Spec(points=24, view_noise=0.0))), batch_of()
        images = torch.cat([batch.image_l, batch.image_u_weak])
        with torch.no_grad():
            logits = [n(images).logits for n in (method.network.student, method.parts["second"])]
        logs = method.step(batch, LATE).logs
        sup = [[f(z[:2], batch.label_l) for f in (cross_entropy, foreground_dice)] for z in logits]
        winner = int(0.8 * sup[1][0] + 0.2 * sup[1][1] <= 0.8 * sup[0][0] + 0.2 * sup[0][1])
        q, p = torch.softmax(logits[winner][2:] / 0.1, 1), torch.softmax(logits[1 - winner][2:], 1)
        assert logs["winner"] == winner
        assert float(logs["loss_cp"]) == pytest.approx(2 * float((p - q)[:, :, :-1].square().mean()), rel=1e-4)
        assert float(logs["loss_sup"]) == pytest.approx(float(sum(map(sum, sup))), rel=1e-4)

    def test_the_loss_by_hand(self):
        spec = replace(self.spec, consistency_weight=0.7, ramp_share=0.5, c3s3=C3S3Spec(points=24, contrast_weight=0.3))
        output = self.build(spec=spec).step(batch_of(), 10)
        sup, cos, cp, iuc = (float(output.logs[f"loss_{n}"]) for n in ("sup", "cos", "cp", "iuc"))
        weight = 0.7 * sigmoid_rampup(10, 20)
        assert min(sup, cos, cp, iuc) > 0
        assert output.logs["weight"] == pytest.approx(weight)
        assert float(output.loss.detach()) == pytest.approx(sup + cos + weight * cp + 0.3 * iuc)

    def test_both_networks_learn(self):
        method = self.build()
        method.step(batch_of(), LATE).loss.backward()
        assert gradient(method.network.student) > 0
        assert gradient(method.parts["second"]) > 0

    def test_half_of_the_points_are_near_a_border_and_none_is_padded(self):
        method = self.build(spec=replace(self.spec, c3s3=C3S3Spec(points=40)))
        found = torch.zeros(1, 32, 32, dtype=torch.int64)
        found[:, :, 16:] = 1
        valid = torch.ones(1, 32, 32, dtype=torch.bool)
        valid[:, 24:] = False
        nothing = torch.zeros_like(found)
        points = method._points([[found, nothing], [nothing, found]], valid, 2, torch.Generator().manual_seed(0))
        columns, rows = points % 32, points // 32
        assert len(points) == 40
        assert int(rows.max()) < 24
        assert bool(((columns[:20] >= 14) & (columns[:20] < 18)).all())
        assert bool(((columns[20:] < 14) | (columns[20:] >= 18)).any())
        assert len(points[:20].unique()) == 20
        padded = method._points([[found, found]] * 2, valid & (found == 1), 2, torch.Generator().manual_seed(0))
        assert len(padded) == 40  # no border with padding: all are drawn anywhere
        assert int((padded % 32 < 18).sum()) < 20

    @pytest.mark.parametrize(("points", "expected"), [(24, 24), (10**6, 2 * 7 * 8)])
    def test_few_valid_points_are_all_taken(self, points, expected):
        method = self.build(spec=replace(self.spec, c3s3=C3S3Spec(points=points)))
        valid = torch.ones(2, 8, 8, dtype=torch.bool)
        valid[:, -1] = False
        nothing = torch.zeros(2, 8, 8, dtype=torch.int64)
        found = method._points([[nothing] * 2] * 2, valid, 1, torch.Generator().manual_seed(0))
        assert len(found) == expected
        assert bool(valid.flatten()[found].all())

    @pytest.mark.parametrize(("stride", "reach"), [(1, 3), (2, 2), (4, 1), (8, 1)])
    def test_near_means_three_pixels_on_whatever_grid(self, stride, reach, monkeypatch):
        seen, method, batch = [], self.build(), batch_of(side=16)
        for network in (method.network.student, method.parts["second"]):
            network.pool = torch.nn.AvgPool2d(stride)
        monkeypatch.setattr(c3s3, "near_border", lambda mask, reach, known: seen.append(reach) or mask)
        method.spec = replace(method.spec, c3s3=C3S3Spec(points=4))
        method.step(batch, LATE)
        assert seen == [reach]

    def test_equal_views_agree_as_published(self):
        same = replace(self.spec, c3s3=C3S3Spec(view_noise=0.0))
        assert float(self.build(spec=same).step(batch_of(), LATE).logs["loss_cos"]) == pytest.approx(0, abs=1e-5)


def test_outcome_contrast_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[3.0, 0.0], [1.0, 0.0]])  # cosines 1 and 0
    l_int, l_uni = outcome_contrast(a, b, torch.tensor([True, True]), torch.tensor([True, False]), tau=1.0)
    # I = (1, 0): sum_j e^((1-I_j) s_j) = e^0 + e^0; U = (1, 1): sum_j e^(U_j s_j) = e + 1, own terms e^0
    assert float(l_int) == pytest.approx((math.log(2 + math.e) - 1 + math.log(3)) / 2)
    assert float(l_uni) == pytest.approx(math.log(math.e + 2))


def test_sharpening_raises_the_largest_and_has_no_gradient():
    logits = torch.log(torch.tensor([0.6, 0.4])).view(1, 2, 1, 1).requires_grad_()
    q = sharpened(logits, 0.5)
    assert q.flatten().tolist() == pytest.approx([0.36 / 0.52, 0.16 / 0.52])
    assert not q.requires_grad


def test_dice_of_the_foreground_leaves_the_background_and_ignored_pixels_out():
    logits = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 50.0]]).view(1, 2, 1, 3)
    label = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    assert float(foreground_dice(logits, label)) == pytest.approx(0, abs=1e-5)
    assert float(foreground_dice(-logits, label)) == pytest.approx(1, abs=1e-4)


def test_distance_over_classes_is_not_that_over_space():
    first = torch.tensor([[9.0, 0.0], [0.0, 9.0]]).view(1, 2, 1, 2)
    everywhere, nowhere = torch.ones(1, 1, 2, dtype=torch.bool), torch.zeros(1, 1, 2, dtype=torch.bool)
    assert float(cosine_distance(first, first.flip(1), everywhere, "classes")) > 0.99
    assert float(cosine_distance(first, first.flip(1), nowhere, "classes")) == 0
    assert float(cosine_distance(first, first + 9, everywhere, "classes")) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(first, first + 9, everywhere, "last_axis")) > 0.1
