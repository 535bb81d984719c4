import logging
import re

import numpy as np
import pytest
import torch
from unit.helpers import FRAME, VOLUME, Threshold, affine_of, nifti, png

from lib.core.cases import Record
from lib.core.validate import Validation, as_good_as, dice_per_class, goes_live, validate

CPU = torch.device("cpu")


def measured(*dice):
    return Validation({f"case{i}": {"polyp": d} for i, d in enumerate(dice)})


def test_dice_by_hand():
    truth = torch.tensor([[1, 1, 1, 0, 2, 0]])
    prediction = torch.tensor([[1, 1, 0, 0, 0, 0]])
    got = dice_per_class(prediction, truth, {"a": 1, "b": 2, "c": 3})
    assert got == {"a": pytest.approx(2 * 2 / 5), "b": 0.0, "c": 1.0}  # b only in the truth, c in neither


def test_dice_of_a_class_that_is_only_predicted_is_zero():
    assert dice_per_class(torch.tensor([[1, 0]]), torch.tensor([[0, 0]]), {"a": 1}) == {"a": 0.0}


def test_dice_names_follow_the_indices():
    truth = torch.tensor([[0, 3, 3]])
    assert dice_per_class(truth, truth * 0, {"x": 3, "y": 1}) == {"x": 0.0, "y": 1.0}


def test_means():
    result = Validation({"1": {"a": 0.5, "b": 1.0}, "2": {"a": 0.1, "b": 0.4}})
    assert result.mean_dice == pytest.approx(0.5)
    assert result.per_class == pytest.approx({"a": 0.3, "b": 0.7})
    assert Validation({}).mean_dice is None
    assert Validation({}).per_class == {}


@pytest.mark.parametrize(
    ("new", "old", "wins", "reason"),
    [
        ((0.1,), None, True, "first model of its kind"),
        ((), None, True, "first model of its kind"),
        ((0.1, 0.2, 0.3), (), True, "newest model goes live: 0 validation cases"),
        ((0.5,) * 3 + (0.9,), (0.6,) * 3, False, r"Dice 0\.500 against its 0\.600 on the same 3 cases"),
        (
            (0.1, 0.1),
            (0.9, 0.9),
            True,
            r"newest model goes live: 2 validation cases cannot tell models apart \(at least 3\)",
        ),
        ((), (), True, "newest model goes live: 0 validation cases"),
        ((0.5,) * 3, (0.6,) * 3, False, r"kept the live model: Dice 0\.500 against its 0\.600 on the same 3 cases"),
        ((0.6,) * 3, (0.6,) * 3, True, r"Dice 0\.600 against 0\.600 of the live model on the same 3 cases"),
        ((0.7,) * 3, (0.6,) * 3, True, r"Dice 0\.700 against 0\.600 of the live model on the same 3 cases"),
        ((0.9, 0.9, 0.0), (0.6,) * 3, True, "on the same 3 cases"),  # equal in the mean
    ],
)
def test_goes_live(new, old, wins, reason):
    got = goes_live(measured(*new), None if old is None else measured(*old))
    assert got[0] is wins
    assert re.search(reason, got[1])


def test_validation_compares_on_the_voxels_of_the_image(tmp_path, caplog):
    shape = (9, 14, 11)
    array = np.zeros(shape, np.uint8)
    array[1:5, 2:12, 3:6] = 1
    affine = affine_of("LPS", shape, (1.0, 1.0, 2.0))
    image = nifti(tmp_path / "v.nii.gz", array.astype(np.float32) * 50, affine)
    right = nifti(tmp_path / "right.nii.gz", array, affine)
    half = array.copy()
    half[3:5] = 0
    smaller = nifti(tmp_path / "half.nii.gz", half, affine)
    (tmp_path / "zero.nii.gz").touch()
    records = [
        Record("good", image, right, "1"),
        Record("half", image, smaller, "2"),
        Record("bad", str(tmp_path / "zero.nii.gz"), right, "3"),
    ]
    seen = []
    with caplog.at_level(logging.WARNING):
        result = validate(Threshold().eval(), records, VOLUME, {"polyp": 1}, CPU, lambda *case: seen.append(case))
    assert [record.id for record, _, _ in seen] == ["good", "half"]
    assert all(case.label[0].shape == prediction.probs.shape[1:] for _, case, prediction in seen)
    assert list(result.cases) == ["good", "half"]
    assert result.cases["good"]["polyp"] == pytest.approx(1)
    assert result.cases["half"]["polyp"] == pytest.approx(2 * 2 / (2 + 4))
    assert "Left out of validation: zero.nii.gz: expected an image, but the file is empty" in caplog.text


def test_validation_of_pictures(tmp_path):
    rows = np.zeros((21, 33), np.uint8)
    rows[4:10, 5:30] = 255
    record = Record("a", png(tmp_path / "a.png", rows), png(tmp_path / "l.png", rows), "a")
    assert validate(Threshold().eval(), [record], FRAME, {"polyp": 1}, CPU).cases == {"a": {"polyp": pytest.approx(1)}}


def test_no_records_no_cases():
    assert validate(Threshold(), [], FRAME, {"polyp": 1}, CPU) == Validation({})


def over(*dice: float) -> Validation:
    """Dice of one class on cases 0, 1, 2, ..."""
    return Validation({str(i): {"polyp": d} for i, d in enumerate(dice)})


def test_a_later_epoch_counts_unless_the_cases_can_tell_that_it_is_worse():
    best = over(0.9, 0.8, 0.7, 0.6)
    assert as_good_as(best, best)
    assert as_good_as(over(0.95, 0.85, 0.75, 0.65), best)
    assert not as_good_as(over(0.89, 0.79, 0.69, 0.59), best), "a little worse in every case is worse"
    # lost 0.4, 0, 0, -0.2: mean 0.05, standard error 0.25 / 2; lost 0.4, 0.2, 0.2, 0: mean 0.2, standard error 0.16 / 2
    assert as_good_as(over(0.5, 0.8, 0.7, 0.8), best)
    assert not as_good_as(over(0.5, 0.6, 0.5, 0.6), best)


def test_too_few_cases_cannot_tell_epochs_apart():
    assert as_good_as(over(0.1, 0.2), over(0.9, 0.8))
    assert as_good_as(over(), over())
    assert not as_good_as(over(0.1, 0.2, 0.1), over(0.9, 0.9, 0.9))


def test_the_classes_of_a_case_count_together():
    best = Validation({str(i): {"a": 0.8, "b": 0.4} for i in range(3)})
    other = Validation({str(i): {"a": 0.4, "b": 0.8 - 0.1 * i} for i in range(3)})
    assert as_good_as(Validation({str(i): {"a": 0.4, "b": 0.8} for i in range(3)}), best)
    assert not as_good_as(other, best)  # lost 0, 0.05, 0.1: mean 0.05, standard error 0.03
