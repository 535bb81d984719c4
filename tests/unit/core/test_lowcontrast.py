import numpy as np
import pytest
import torch
from unit.helpers import Threshold

from lib.core import lowcontrast
from lib.core.grid import Grid
from lib.core.lowcontrast import band_radius, confidence, field_of_view, low_contrast_band, score_image
from lib.core.lowcontrast_policy import LowContrastPolicy
from lib.core.pool import Situation, make_pool
from lib.core.predict import Prediction, likeliest

THRESHOLDS = torch.tensor([0.9, 0.9])
LABELS = {"polyp": 1}
RANKED = ("threshold_deficit", "margin", "feature_contrast")


def blob(side, pixels, *, contrast, softness, dims=2):
    """A ball of radius 16 on 0.4 in the middle of a canvas `side` wide, sampled with `pixels` per axis: `1 *S`."""
    axes = np.meshgrid(*[(np.arange(pixels) + 0.5) / pixels * side - side / 2] * dims, indexing="ij")
    distance = np.sqrt(sum(a**2 for a in axes))
    profile = 1 / (1 + np.exp(np.clip((distance - 16) / softness, -50, 50)))
    texture = 1e-3 * sum(np.cos((k + 1) * a) for k, a in enumerate(axes))
    return torch.tensor(0.4 + contrast * profile + texture, dtype=torch.float32)[None]


def predicted(image, spacing=1.0):
    """What a fixed teacher stub says: class 1 above 0.5, sure of itself far from it."""
    output = Threshold(0.5, sharpness=20.0)(image[None])
    shape = tuple(image.shape[1:])
    grid = Grid(shape, tuple(range(len(shape))), (False,) * len(shape), shape, (spacing,) * len(shape))
    return Prediction(output.logits.softmax(1)[0], grid, output.projection[0].half())


def score(image, spacing=1.0, areas=None, picture=True):
    return score_image(predicted(image, spacing), THRESHOLDS, LABELS, areas, field_of_view(image, picture))


def terms_of(image, spacing=1.0, picture=True):
    (entry,) = score(image, spacing, picture=picture).classes
    assert entry.stratum == "polyp/present"
    return entry.terms


def padded(image, factor, value=0.0):
    """In the middle of a canvas `factor` times as large per axis."""
    canvas = torch.full((1, *(factor * n for n in image.shape[1:])), value)
    canvas[(slice(None), *(slice((factor - 1) * n // 2, (factor - 1) * n // 2 + n) for n in image.shape[1:]))] = image
    return canvas


def flat(value=0.2, shape=(64, 64)):
    return torch.full((1, *shape), value)


def differences(a, b, names=RANKED):
    return {k: abs(a[k] - b[k]) for k in names}


def largest(a, b):
    return max(differences(a, b).values())


def test_lower_contrast_raises_every_term_and_the_place_in_the_queue():
    """One teacher, the same noise, fainter and fainter objects: each step less sure, less distinct, and sooner chosen."""
    noise = 0.02 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(1))
    contrasts = (0.4, 0.3, 0.2, 0.1)
    images = [
        blob(64, 64, contrast=c, softness=0.3) + 0.1 - c / 2 + noise for c in contrasts
    ]  # around the teacher's 0.5
    scores = [score(image) for image in images]
    terms = [found.classes[0].terms for found in scores]
    for name in RANKED:
        values = [t[name] for t in terms]
        assert values == sorted(values), name
        assert values[0] < values[-1], name
        assert all(0 <= v <= 1 for v in values)
    pool = make_pool("abcd", [found.terms() for found in scores])
    free = Situation(np.ones(4, dtype=bool), np.zeros(4, dtype=bool))
    ranking = LowContrastPolicy(pool).ranking(free).key
    assert ranking.tolist() == sorted(ranking.tolist())
    assert ranking[0] < ranking[-1]


@pytest.mark.parametrize("offset", [0.0, 3.0, 30.0])
def test_features_alike_on_both_sides_of_the_border_are_of_low_contrast(offset):
    """The more they differ the lower, also in the narrow cone in which all features of a young model lie."""
    image = blob(64, 64, contrast=0.4, softness=0.02)
    inside = (image[0] > 0.5).float()
    noise = torch.randn(6, 64, 64, generator=torch.Generator().manual_seed(0))
    axes = torch.eye(6)[:, :, None, None]
    values = []
    for difference in (0.0, 2.0, 6.0):
        prediction = predicted(image)
        features = noise + offset * axes[0] + difference * axes[1] * inside
        prediction = Prediction(prediction.probs, prediction.grid, features)
        values.append(score_image(prediction, THRESHOLDS, LABELS).classes[0].terms["feature_contrast"])
    assert values[0] > values[1] > values[2], values


def test_terms_by_hand():
    probs = torch.zeros(2, 64, 64)
    probs[1] = 0.1
    probs[1, 16:48, 16:48] = 0.8
    probs[0] = 1 - probs[1]
    projection = torch.zeros(2, 64, 64)
    projection[0, 16:48, 16:48], projection[1] = 3.0, 0.0
    projection[1][projection[0] == 0] = 5.0
    grid = Grid((64, 64), (0, 1), (False, False), (64, 64), (1.0, 1.0))
    score = score_image(Prediction(probs, grid, projection.half()), torch.tensor([0.95, 0.9]), LABELS)
    (entry,) = score.classes
    # the rings of one pixel on both sides of the border, and of the outer corners the part within one pixel
    inner, outer = 4 * 31, 4 * 32 + 4 * (2 - 2**0.5)
    deficit = (inner * (0.9 - 0.8) / (0.9 - 0.5) + outer * (0.95 - 0.9) / (0.95 - 0.5)) / (inner + outer)
    margin = (inner * (1 - 0.6) + outer * (1 - 0.8)) / (inner + outer)
    assert entry.terms["threshold_deficit"] == pytest.approx(deficit, abs=1e-4)
    assert entry.terms["margin"] == pytest.approx(margin, abs=1e-4)
    assert entry.terms["feature_contrast"] == pytest.approx(0.5, abs=1e-3)  # at right angles
    assert score.rivals["border"] == pytest.approx((inner + outer) / 2 / 64, abs=1e-4)
    assert score.terms()["polyp/present/margin"] == entry.terms["margin"]
    assert score.embedding.shape == (3 * 2,)


@pytest.mark.parametrize("contrast", [0.5, 0.15])
@pytest.mark.parametrize("softness", [0.05, 2.0])
def test_resampling_twice_as_fine_changes_little(softness, contrast):
    coarse = terms_of(blob(64, 160, contrast=contrast, softness=softness), 0.4)
    fine = terms_of(blob(64, 320, contrast=contrast, softness=softness), 0.2)
    assert largest(coarse, fine) < 0.05


@pytest.mark.parametrize("contrast", [0.5, 0.15])
@pytest.mark.parametrize("softness", [0.02, 2.0])
@pytest.mark.parametrize(("value", "picture"), [(0.0, True), (0.3, True), (0.0, False)])
def test_a_canvas_twice_as_wide_changes_little(softness, contrast, value, picture):
    image = blob(64, 128, contrast=contrast, softness=softness)
    assert largest(terms_of(image, 0.5, picture), terms_of(padded(image, 2, value), 0.5, picture)) < 0.05


@pytest.mark.parametrize("softness", [0.02, 2.0])
def test_an_object_at_the_edge_of_the_field_of_view_is_not_compared_with_the_black_around_it(softness):
    image = blob(64, 128, contrast=0.3, softness=softness)[:, 40:]
    assert largest(terms_of(image, 0.5), terms_of(padded(image, 2), 0.5)) < 0.05


def test_a_padded_picture_that_is_scaled_down_changes_little():
    """What a frame of fixed longest side does when black borders are added."""
    whole = terms_of(blob(64, 320, contrast=0.3, softness=1.0))
    half = terms_of(padded(blob(64, 160, contrast=0.3, softness=1.0), 2))
    assert largest(whole, half) < 0.05


def test_a_padded_volume_changes_little():
    image = blob(48, 32, contrast=0.3, softness=2.0, dims=3)
    assert largest(terms_of(image, 1.5, False), terms_of(padded(image, 2), 1.5, False)) < 0.05


def test_a_slice_and_a_stack_of_it_agree():
    image = blob(64, 64, contrast=0.3, softness=0.02)
    stack = image[..., None].expand(1, 64, 64, 64).contiguous()
    assert largest(terms_of(image), terms_of(stack, picture=False)) < 0.05


def test_the_band_is_as_wide_in_mm_along_every_axis():
    assert band_radius(torch.ones(400, 400, 200, dtype=torch.bool), (1.0, 1.0, 2.0)) == pytest.approx([5, 5, 2.5])
    assert band_radius(torch.ones(40, 40, dtype=torch.bool), (1.0, 1.0)) == [1, 1]


def test_padding_changes_neither_the_candidate_region_nor_the_embedding():
    """A class that was not found is looked for in its usual share of the field of view, not of the canvas."""
    generator = torch.Generator().manual_seed(0)
    image = (0.35 + 0.02 * torch.rand(1, 64, 64, generator=generator)).contiguous()
    image[0, 24:40, 24:40] += 0.06
    whole, wide = score(image, areas={"polyp": 0.06}), score(padded(image, 2), areas={"polyp": 0.06})
    ours, theirs = (found.classes[0] for found in (whole, wide))
    assert ours.stratum == theirs.stratum == "polyp/absent"
    assert max(differences(ours.terms, theirs.terms, ("peak", "feature_contrast")).values()) < 0.05
    assert float(whole.embedding @ wide.embedding) > 0.999


# --- field of view


def test_black_corners_and_padding_are_outside_dark_places_inside_are_not():
    image = padded(flat(0.5, (32, 32)) + 0.01 * torch.rand(1, 32, 32), 2)
    image[0, 30:34, 30:34] = 0.0
    field = field_of_view(image, True)
    assert int(field.sum()) == 32 * 32
    assert bool(field[32, 32])


def test_air_in_a_volume_is_inside_and_uniform_padding_is_not():
    volume = torch.zeros(1, 16, 16, 16)
    volume[0, 4:12, 4:12, 4:12] = 0.01 * torch.rand(8, 8, 8)
    assert int(field_of_view(volume, False).sum()) == 8**3


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_an_image_without_content_is_all_field_of_view(value):
    assert bool(field_of_view(flat(value), True).all())


# --- absent classes


def test_an_absent_class_is_in_its_own_stratum_without_nan():
    found = score(flat() + 0.1 * torch.rand(1, 64, 64), areas={"polyp": 0.05})
    (entry,) = found.classes
    assert entry.stratum == "polyp/absent"
    assert set(entry.terms) == {"feature_contrast", "peak"}
    assert all(0 <= v <= 1 for v in entry.terms.values())
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-3)


def test_a_nearly_found_object_has_a_higher_peak():
    image = flat(0.4)
    image[0, 20:30, 20:30] = 0.49
    peaks = [score(i).classes[0].terms["peak"] for i in (flat(0.4), image)]
    assert peaks[1] > peaks[0] + 0.2
    assert peaks[1] == pytest.approx(float(torch.sigmoid(torch.tensor(-0.4))), abs=1e-3)


def test_a_speck_is_no_finding():
    image = flat()
    image[0, 10, 10:17] = 0.9
    assert score_image(predicted(image), THRESHOLDS, LABELS).classes[0].stratum == "polyp/absent"
    image[0, 10, 10:18] = 0.9
    assert score_image(predicted(image), THRESHOLDS, LABELS).classes[0].stratum == "polyp/present"
    large = {"polyp": 0.5}  # a hundredth of half of 64 x 64 pixels is 20
    assert score_image(predicted(image), THRESHOLDS, LABELS, large).classes[0].stratum == "polyp/absent"


def test_an_all_background_teacher_does_not_tie_all_images():
    images = [flat(0.3) + 0.02 * torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    assert len({score(i).classes[0].terms["peak"] for i in images}) == 4


@pytest.mark.parametrize("value", [0.1, 0.9])
@pytest.mark.parametrize("shape", [(16, 16), (1, 40), (8, 8, 4)])
def test_all_background_and_all_foreground_are_finite(value, shape):
    found = score(flat(value, shape))
    (entry,) = found.classes
    assert entry.stratum == ("polyp/absent" if value < 0.5 else "polyp/present")
    assert all(np.isfinite(v) and v >= 0 for v in found.terms().values())
    assert np.isfinite(found.embedding).all()


def test_every_class_has_an_entry():
    probs = torch.full((4, 32, 32), 0.05)
    probs[0] = 0.85
    probs[:, 8:20, 8:20] = torch.tensor([0.05, 0.05, 0.85, 0.05])[:, None, None]
    grid = Grid((32, 32), (0, 1), (False, False), (32, 32), (1.0, 1.0))
    prediction = Prediction(probs, grid, torch.rand(5, 32, 32).half())
    found = score_image(prediction, torch.full((4,), 0.9), {"a": 1, "b": 2, "c": 3})
    assert [e.stratum for e in found.classes] == ["a/absent", "b/present", "c/absent"]
    assert all(0 <= v <= 1 for e in found.classes for v in e.terms.values())
    assert found.embedding.shape == (5 * 5,)
    assert {"entropy", "margin", "clasp", "clasp a", "clasp b", "clasp c", "feature_cosine", "border"} == set(
        found.rivals
    )


def test_confidence_by_hand():
    probs = torch.tensor([[[0.9, 0.3]], [[0.1, 0.7]]])
    assert confidence(probs, likeliest(probs)) == pytest.approx(0.7)
    empty = torch.tensor([[[0.9, 0.7]], [[0.1, 0.3]]])
    assert confidence(empty, likeliest(empty)) == pytest.approx(0.8)


# --- the band, to be shown


@pytest.mark.parametrize("dims", [2, 3])
def test_the_band_that_is_shown_lies_on_the_border_and_is_stronger_where_contrast_is_lower(dims):
    strength = []
    for contrast in (0.5, 0.15):
        image = blob(64, 40, contrast=contrast, softness=1.0, dims=dims)
        prediction = predicted(image)
        band = low_contrast_band(prediction, LABELS)
        assert band.shape == image.shape[1:]
        assert float(band.min()) == 0.0
        assert float(band.max()) <= 1.0
        axes = np.meshgrid(*[np.arange(40) - 19.5] * dims, indexing="ij")
        distance = torch.tensor(np.sqrt(sum(a**2 for a in axes)))
        radius = (int((prediction.probs.argmax(0)[(19,) * (dims - 1)] == 1).sum())) / 2
        assert float((distance - radius).abs()[band > 0].max()) < 3
        strength.append(float(band[band > 0].mean()))
    assert strength[1] > strength[0]


def test_a_large_band_is_thinned_where_it_is_measured_and_not_where_it_is_shown(monkeypatch):
    prediction = predicted(blob(64, 40, contrast=0.3, softness=1.0, dims=3))
    whole, shown = score_image(prediction, THRESHOLDS, LABELS), low_contrast_band(prediction, LABELS)
    monkeypatch.setattr(lowcontrast, "_MAX_BAND_PIXELS", 500)
    thin = score_image(prediction, THRESHOLDS, LABELS)
    assert thin.rivals["border"] == pytest.approx(whole.rivals["border"], rel=1e-6), "the border is as long as before"
    assert thin.classes[0].terms["margin"] == pytest.approx(whole.classes[0].terms["margin"], abs=0.05)
    assert thin.classes[0].terms != whole.classes[0].terms
    assert torch.equal(low_contrast_band(prediction, LABELS), shown)


def test_of_a_class_that_was_not_found_the_likeliest_place_is_shown():
    image = blob(64, 40, contrast=0.05, softness=1.0)
    prediction = predicted(image)
    assert not bool((prediction.probs.argmax(0) == 1).any())
    found = (low_contrast_band(prediction, LABELS) > 0).nonzero().float()
    assert len(found)
    assert float((found.mean(dim=0) - 19.5).abs().max()) < 2
