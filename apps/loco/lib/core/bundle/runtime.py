"""What an exported bundle runs: network, preprocessing, inferer and postprocessing for MONAI's configuration files.

The same functions as in the app, behind MONAI's interfaces, so that a bundle gives the app's masks to the last voxel. Export
copies this module, and those it imports, into the bundle's `scripts` folder.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform, SaveImaged
from PIL import Image
from torch import Tensor, nn

from lib.core.cases import Case, load_case
from lib.core.grid import Grid, working_grid
from lib.core.images import SUFFIXES
from lib.core.networks import NetworkOutput, build_network
from lib.core.predict import Prediction, predict
from lib.core.spec import DataSpec, Kind, NetworkSpec


class LogitsNetwork(nn.Module):
    """A network of the app that returns its logits alone: `B C H W [D]` in [0, 1] to float32 `B K H W [D]`."""

    def __init__(self, name: str, classes: int, projection_channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.network = build_network(NetworkSpec(name, classes, projection_channels, pretrained=False), spatial_dims)
        self.divisor = self.network.divisor

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch whose sides are multiples of `divisor`."""
        return self.network(x).logits


class LoadStudyd(MapTransform):
    """Load a study onto the working grid of the model.

    A path becomes a `MetaTensor` `C *working` float32 in [0, 1] whose meta data is that of the study itself:
    `spatial_shape` and `original_affine` (voxel to RAS, mm), by which the mask finds its way back.

    Raises:
        CaseError: the file cannot be used; the message says why.
    """

    def __init__(
        self,
        keys: KeysCollection,
        kind: Kind,
        patch: Sequence[int],
        size: int,
        spacing: Sequence[float] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self._data = DataSpec(kind, tuple(patch), size, tuple(spacing))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with each path replaced by its study."""
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            path = str(loaded[key])
            case = load_case(path, None, self._data, classes=2)
            affine = np.eye(4) if case.affine is None else case.affine
            meta = {
                "filename_or_obj": path,
                "spatial_shape": np.array(case.grid.native_shape),
                "original_affine": affine,
                "affine": affine,
                "original_channel_dim": 0,
            }
            loaded[key] = MetaTensor(case.image, meta=meta)
        return loaded


class StudyInferer(Inferer):
    """Probabilities of one study on its working grid: sliding windows, slice by slice, or at once, as its kind wants."""

    def __init__(self, kind: Kind, patch: Sequence[int], size: int, spacing: Sequence[float] = ()) -> None:
        super().__init__()
        self._data = DataSpec(kind, tuple(patch), size, tuple(spacing))

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """`B C *working` to float32 `B K *working`, on the device of `inputs`."""
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        probs = [self._one(image, network) for image in images]
        return torch.stack(probs).to(images.device)

    def _one(self, image: Tensor, network: nn.Module) -> Tensor:
        shape = tuple(image.shape[1:])
        as_it_is = Grid(shape, tuple(range(len(shape))), (False,) * len(shape), shape, (1.0,) * len(shape))
        return predict(_WithLogits(network), Case(image.cpu(), None, as_it_is), self._data, image.device).probs


class MaskOnStudyd(MapTransform):
    """Probabilities `K *working` to the mask on the study's own voxels: uint8 `*native`, no channel axis."""

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        kind: Kind,
        patch: Sequence[int],
        size: int,
        spacing: Sequence[float] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self._image_key = image_key
        self._data = DataSpec(kind, tuple(patch), size, tuple(spacing))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with each prediction replaced by its mask."""
        finished = dict(data)
        meta = finished[self._image_key].meta
        affine = np.asarray(meta["original_affine"], dtype=np.float64).reshape(4, 4)
        shape = tuple(int(n) for n in np.asarray(meta["spatial_shape"]).reshape(-1))
        grid = working_grid(shape, affine, self._data)
        for key in self.key_iterator(finished):
            probs = torch.as_tensor(finished[key])
            probs = probs.as_tensor() if isinstance(probs, MetaTensor) else probs
            finished[key] = Prediction(probs.float().cpu(), grid).native_label()
        return finished


class SaveMaskd(SaveImaged):
    """Write each mask as `<study>_seg.png` (pictures) or `<study>_seg.nii.gz`, the geometry that of its study.

    A `SaveImaged`, which MONAI Label leaves out of a bundle's postprocessing; but MONAI 1.6 refuses to write volumes of some
    orientations (the first two rows of the affine singular), so the file is written by the libraries below it.
    """

    def __init__(self, keys: KeysCollection, image_key: str, output_dir: str) -> None:
        super().__init__(keys, output_dir=output_dir)
        self._image_key, self._folder = image_key, Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary as it came, its masks written."""
        meta = data[self._image_key].meta
        name = Path(meta["filename_or_obj"]).name
        stem = name[: -len(next(s for s in SUFFIXES if name.lower().endswith(s)))]
        self._folder.mkdir(parents=True, exist_ok=True)
        for key in self.key_iterator(data):
            mask = np.asarray(data[key], dtype=np.uint8)
            if mask.ndim == 2:
                Image.fromarray(mask.T).save(self._folder / f"{stem}_seg.png")
            else:
                affine = np.asarray(meta["original_affine"], dtype=np.float64).reshape(4, 4)
                nib.save(nib.Nifti1Image(mask, affine), self._folder / f"{stem}_seg.nii.gz")
        return dict(data)


class _WithLogits(nn.Module):
    """A network of plain logits as `predict` wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.divisor = getattr(network, "divisor", 16)

    def forward(self, x: Tensor) -> NetworkOutput:
        logits = self.network(x)
        return NetworkOutput(logits, logits)
