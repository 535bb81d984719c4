import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from unit.core.methods.base import LATE, SPEC, MethodSuite, network_of
from unit.core.test_ellipse import CRESCENT, disc
from unit.helpers import FRAME, VOLUME, png, spec_of

from lib.core.batch import Batch
from lib.core.cases import Record
from lib.core.losses import foreground_loss, supervised_loss
from lib.core.methods import ersr
from lib.core.methods.ersr import ERSR
from lib.core.ranking import best_of
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import ERSRSpec, SpecError


def ellipses(count, seed, side=24):
    """Bright ellipses on dark noise, `B 1 H W`, and their masks `B H W`."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    masks = []
    for shift in torch.rand(count, 2, generator=generator):
        cx, cy = (side / 2 - 2 + 4 * shift).tolist()
        masks.append(((x - cx) / 8) ** 2 + ((y - cy) / 5) ** 2 <= 1)
    mask = torch.stack(masks)
    image = 0.6 * mask.unsqueeze(1) + 0.3 * torch.rand(count, 1, side, side, generator=generator)
    return image, mask.to(torch.uint8)


@functools.cache
def trained_state():
    """Weights of a network that finds the ellipses."""
    network = network_of(2, 2)
    image, mask = ellipses(4, seed=9)
    optimizer = torch.optim.SGD(network.student.parameters(), lr=0.5, momentum=0.9)
    for step in range(60):
        loss = supervised_loss(network(image).logits, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.update_teacher(step, 0.5)
    return {k: v.clone() for k, v in network.state_dict().items()}


class TestERSR(MethodSuite):
    name = "ersr"
    own_form = (LATE,)
    terms = ("loss_seg", "loss_aug", "loss_mir")
    spatial = (2,)
    classes = 2
    spec = replace(SPEC, ersr=ERSRSpec(floor=1.0))

    def build(self, dims=None, **kwargs):
        method = super().build(dims, **kwargs)
        method.network.load_state_dict(trained_state())
        with torch.no_grad():
            method.network.student.classifier.weight.mul_(0.5)  # still something to learn
        return method

    def batch(self, dims=None, labelled=2, unlabelled=2, seed=0):
        image_l, label = ellipses(labelled, seed)
        image_u, _ = ellipses(unlabelled, seed + 50)
        label[0, 0] = 255
        ignore = torch.zeros(image_u.shape[0], *image_u.shape[2:], dtype=torch.uint8)
        ignore[:, -1] = 255
        return Batch(image_l, label, image_u, image_u.clone(), ignore)

    def test_maps_without_an_ellipse_are_left_out(self):
        method, batch = self.build(), self.batch()
        with torch.no_grad():
            method.network.teacher.classifier.bias.copy_(torch.tensor([50.0, -50.0]))
        output = method.step(batch, LATE)
        assert output.logs["mask_ratio"] == 0
        assert float(output.loss.detach()) == float(output.logs["loss_sup"])

    @pytest.mark.parametrize("step", [10, 20, LATE])
    def test_the_loss_by_hand(self, step):
        spec = replace(self.spec, ramp_share=0.5, ersr=replace(self.spec.ersr, weight=2.0))
        output = self.build(spec=spec).step(self.batch(), step)
        weight = 2 * sigmoid_rampup(step - 10, 0.5 * 30)  # the first 10 of 40 steps are pre-training
        sup, *terms = (float(output.logs[n]) for n in ("loss_sup", *self.terms))
        assert output.logs["weight"] == pytest.approx(weight)
        assert float(output.loss.detach()) == pytest.approx(sup + weight * sum(terms))

    @pytest.mark.parametrize(("step", "length"), [(10, 0), (25, 15), (40, 30)])
    def test_the_share_that_is_kept_rises_from_the_end_of_pretraining_on(self, monkeypatch, step, length):
        shares = []
        monkeypatch.setattr(ersr, "best_of", lambda scores, seen, share, floor: shares.append(share) or [0])
        self.build().step(self.batch(), step)
        assert shares == [pytest.approx(0.5 + 0.5 * sigmoid_rampup(length, 30))]

    def test_the_smooth_map_is_kept_and_not_an_empty_one(self):
        method = self.build(spec=replace(self.spec, ersr=ERSRSpec(floor=0.25)))
        maps = torch.zeros(4, 1, 48, 64)
        maps[0, 0] = torch.from_numpy(CRESCENT).float()
        maps[1, 0] = torch.from_numpy(disc((30, 24), 15)).float()
        maps[1, 0, 5:43:2, 13:47] *= 0.2  # in strips
        maps[2, 0] = torch.from_numpy(disc((30, 24), 15)).float()
        assert method._kept(maps, 10)[:1] == [2]
        assert 3 not in method._kept(maps, 10)

    def test_the_border_as_published_is_a_choice(self, monkeypatch):
        seen, original = [], ersr.roughness
        monkeypatch.setattr(ersr, "roughness", lambda prob, border: seen.append(border) or original(prob, border))
        for spec in (self.spec, replace(self.spec, ersr=replace(self.spec.ersr, border="zero"))):
            self.build(spec=spec).step(self.batch(), LATE)
        assert seen == ["replicate", "zero"]

    def test_the_way_to_compose_is_a_choice(self):
        added = replace(self.spec, ersr=replace(self.spec.ersr, compose="add"))
        loss, other = (float(self.build(spec=s).step(self.batch(), LATE).logs["loss_aug"]) for s in (self.spec, added))
        assert loss != other

    def test_scores_are_remembered_over_steps_and_saved(self):
        method = self.build()
        for step in range(3):
            method.step(self.batch(seed=step), LATE + step)
        assert int(method.parts["seen"].scores.isfinite().sum()) == 6
        assert "seen.scores" in method.state_dict()["parts"]


def test_the_best_share_of_all_scores_is_kept_and_refilled_to_the_floor():
    assert best_of([3.0, 1.0], [3.0, 1.0, 2.0, 4.0], share=0.5, floor=0.0) == [1]
    assert best_of([3.0, 1.0, 9.0, 8.0], [3.0, 1.0, 9.0, 8.0], share=0.25, floor=0.75) == [1, 0, 3]
    assert best_of([5.0], [1.0, 5.0], share=0.1, floor=0.0) == [0]


def test_the_labelled_loss_by_hand():
    logit = torch.zeros(1, 1, 1, 3)
    label = torch.tensor([[[1, 0, 255]]], dtype=torch.uint8)
    # ln 2, and Dice 1 - 2 * 0.5 / (0.5 + 0.5 + 1)
    assert float(foreground_loss(logit, label)) == pytest.approx(0.5 * (0.6931 + 1 / 2), abs=1e-4)
    assert float(foreground_loss(logit, torch.full_like(label, 255))) == 0


def test_it_wants_one_object_in_the_plane():
    ERSR.check(spec_of(FRAME, method="ersr"))
    with pytest.raises(SpecError, match=r"one ellipse per image, but got 2 \(a, b\)"):
        ERSR.check(spec_of(FRAME, method="ersr", labels={"a": 1, "b": 2}))
    with pytest.raises(SpecError, match="fits ellipses in the plane"):
        ERSR.check(spec_of(VOLUME, method="ersr"))


def labelled(folder, masks):
    """A study for each mask, its label on disk."""
    paths = [png(folder / f"{i}.png", m.astype(np.uint8)) for i, m in enumerate(masks)]
    return [Record(p, p, p, p) for p in paths]


def test_it_wants_an_oval_object_before_the_training_starts(tmp_path):
    oval = [disc((30, 24), r) for r in (9, 12, 15)]
    nothing = [Record("u", "u.png", None, "u"), *labelled(tmp_path, [np.zeros((8, 8))])]
    for masks in (oval, [*oval, CRESCENT, CRESCENT]):
        ERSR.check(spec_of(FRAME, method="ersr"), labelled(tmp_path, masks))
    ERSR.check(spec_of(FRAME, method="ersr"), nothing)
    with pytest.raises(SpecError) as refused:
        ERSR.check(spec_of(FRAME, method="ersr"), labelled(tmp_path, [*oval[:1], CRESCENT, CRESCENT]))
    assert str(refused.value).startswith(
        "expected an oval object for the method ersr, which fits an ellipse to it with an"
    )
    assert str(refused.value).endswith("in 3; choose another method")


def test_it_looks_at_some_labels_of_many(tmp_path, monkeypatch):
    looked_at = []
    monkeypatch.setattr(ersr, "likenesses", lambda paths, data: looked_at.extend(paths) or [])
    for count in (1, 20, 21, 800):
        looked_at.clear()
        ERSR.check(spec_of(FRAME, method="ersr"), [Record(str(i), "", str(i), "") for i in range(count)])
        assert min(count, 10) <= len(looked_at) <= 20
        assert len(set(looked_at)) == len(looked_at)
