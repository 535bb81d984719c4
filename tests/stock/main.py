"""The smallest app on MONAI Label as it is, to show in tests what this project's app mends."""

from __future__ import annotations

import os
import tempfile

import nibabel as nib
import numpy as np
import torch
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.tasks.train.basic_train import BasicTrainTask


class Toy(InferTask):
    """Marks what is bright."""

    def __init__(self) -> None:
        super().__init__(InferType.SEGMENTATION, {"lesion": 1}, 2, "toy")

    def is_valid(self) -> bool:
        return True

    def get_path(self, validate: bool = True) -> str:
        return os.path.join(os.path.dirname(__file__), "model", "toy.pt")

    def __call__(self, request):
        from PIL import Image

        picture = np.asarray(Image.open(request["image"]).convert("L"))
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
            nib.save(nib.Nifti1Image((picture > 180).astype(np.uint8), np.eye(4)), file.name)
        return file.name, {"label_names": {"lesion": 1}}


class ToyTrainer(BasicTrainTask):
    """Never gets further than its folder."""

    def __init__(self) -> None:
        super().__init__(os.path.join(os.path.dirname(__file__), "model", "toy"), "toy", labels={"lesion": 1})

    def network(self, context):
        return torch.nn.Conv2d(1, 2, 1)

    def optimizer(self, context):
        return torch.optim.SGD(context.network.parameters(), lr=0.1)

    def loss_function(self, context):
        return torch.nn.MSELoss()

    def train_pre_transforms(self, context):
        return []

    def train_post_transforms(self, context):
        return []

    def val_inferer(self, context):
        return None


class StockApp(MONAILabelApp):
    """Everything else is MONAI Label's own."""

    def __init__(self, app_dir: str, studies: str, conf: dict) -> None:
        os.makedirs(os.path.join(app_dir, "model"), exist_ok=True)
        super().__init__(app_dir, studies, conf, name="stock")

    def init_infers(self):
        return {"toy": Toy()}

    def init_trainers(self):
        return {"toy": ToyTrainer()}
