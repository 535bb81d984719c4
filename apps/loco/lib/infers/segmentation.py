"""MONAI Label inference task: the live teacher on one study, the mask on the study's own voxels."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.utils.others.generic import name_to_device
from torch import Tensor

from lib.core.cases import Case, load_case
from lib.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, restore_network
from lib.core.images import PICTURE_SUFFIXES, CaseError, is_picture
from lib.core.lowcontrast import confidence
from lib.core.methods import note
from lib.core.predict import Prediction, likeliest, predict_in_memory
from lib.core.spec import TaskSpec
from lib.core.teacher import StudentTeacher
from lib.maskfile import write_mask
from lib.store.project import ModelFolder

logger = logging.getLogger(__name__)


@dataclass
class LiveModel:
    """A loaded model and the modification time of its file."""

    checkpoint: Checkpoint
    network: StudentTeacher
    stamp: int


class Segmentation(BasicInferTask):
    """Segments a study with the live model; picks up a newly published one by itself."""

    def __init__(self, name: str, spec: TaskSpec, folder: ModelFolder) -> None:
        """`spec` of an untrained model decides labels and dimension; everything else comes from the checkpoint."""
        self._folder = folder
        self._live: dict[str, LiveModel] = {}
        self._one_at_a_time = threading.RLock()
        super().__init__(
            path=str(folder.live),
            network=None,
            type=InferType.SEGMENTATION,
            labels=dict(spec.labels),
            dimension=spec.data.spatial_dims if spec.data.kind == "frame" else 3,
            description=f"Segments {', '.join(spec.labels)}: the teacher of the live {name} model",
        )

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """Load the study with the preprocessing that the live model was trained with."""
        checkpoint = self.live(str(data["device"])).checkpoint
        return [_LoadStudy(checkpoint.spec)]

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> dict[str, Any]:
        """Class probabilities on the study's voxels, and the words that go with them."""
        with self._one_at_a_time:
            live = self.live(device)
            spec = live.checkpoint.spec
            prediction, note = predict_in_memory(live.network.teacher, data["case"], spec.data, torch.device(device))
        mask, data["result"] = described(live, prediction)
        data["result"] |= {"note": note} if note else {}
        data["pred"] = mask.numpy()
        return data

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """Nothing left to do."""
        return []

    def writer(
        self, data: dict[str, Any], extension: str | None = None, dtype: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The mask as a file in the format that the client wishes, and the words that go with it."""
        with tempfile.NamedTemporaryFile(suffix=extension or data["result_extension"], delete=False) as file:
            path = Path(file.name)
        write_mask(
            data["pred"], data["case"].affine, path, dtype or data["result_dtype"], bool(data.get("result_compress"))
        )
        return str(path), data.get(self.output_json_key, {})

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Segment one study; without a wish of the client the mask is a PNG for pictures, NIfTI for volumes, uint8."""
        picture = isinstance(request.get("image"), str) and is_picture(request["image"])
        defaults = {"result_extension": ".png" if picture else ".nii.gz", "result_dtype": "uint8"}
        wishes = {k: v for k, v in request.items() if v not in (None, "")}
        if not picture and str(wishes.get("result_extension", "")).endswith(PICTURE_SUFFIXES):
            raise CaseError(
                request["image"], "expected a volume as .nii.gz or .nrrd, but a picture is wished; ask for one"
            )
        return super().__call__({**defaults, **wishes}, callbacks)

    def look(self, image: str) -> tuple[Case, Prediction, LiveModel]:
        """What the live model sees in a study, for others than viewers; inference for viewers waits for one such pass at most.

        Raises:
            CaseError: the study cannot be read.
            CheckpointError: there is no usable model.
        """
        device = name_to_device("cuda") if torch.cuda.is_available() else "cpu"
        live = self.live(device)
        spec = live.checkpoint.spec
        case = load_case(image, None, spec.data, spec.network.classes)
        with self._one_at_a_time:
            prediction, _ = predict_in_memory(live.network.teacher, case, spec.data, torch.device(device))
        return case, prediction, live

    def live(self, device: str) -> LiveModel:
        """The live model on a device, loaded again when its file changed; a damaged new file leaves the old one serving.

        Raises:
            CheckpointError: there is no usable model.
        """
        known = self._live.get(device)
        stamp = self._folder.live.stat().st_mtime_ns if self._folder.live.exists() else 0
        if known is not None and known.stamp == stamp:
            return known
        try:
            checkpoint = load_checkpoint(self._folder.live)
            network = restore_network(checkpoint).to(device).eval()
        except CheckpointError:
            if known is None:
                raise
            logger.exception("The new model cannot be used; version %d goes on", known.checkpoint.version)
            return known
        self._live[device] = LiveModel(checkpoint, network, stamp)
        return self._live[device]


def described(live: LiveModel, prediction: Prediction) -> tuple[Tensor, dict[str, Any]]:
    """Mask on the study's voxels `*native` uint8, and the words that go with it."""
    probs = prediction.native_probs()
    mask = likeliest(probs)
    return mask, {
        "model_version": live.checkpoint.version,
        "confidence": round(confidence(probs, mask), 4),
        "found": [n for n, i in live.checkpoint.spec.labels.items() if bool((mask == i).any())],
        "method": live.checkpoint.spec.method.name,
        "method_note": note(live.checkpoint.spec.method.name),
    }


class _LoadStudy:
    """`image` (file) to `case`."""

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        data = dict(data)
        data["case"] = load_case(data["image"], None, self._spec.data, self._spec.network.classes)
        return data
