"""The two files that describe a bundle: what the model is, and how it is run."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import monai
import numpy as np
import torch

from lib.core.checkpoint import Checkpoint
from lib.core.methods import marked
from lib.core.spec import DataSpec, TaskSpec

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""What `monai.bundle verify_metadata` checks the metadata against."""

_PACKAGES = ("segmentation-models-pytorch", "timm", "nibabel", "pynrrd", "Pillow")


def required_packages() -> dict[str, str]:
    """Packages beside MONAI and PyTorch that a bundle needs, with the versions installed here."""
    return {p.lower(): importlib.metadata.version(p) for p in _PACKAGES}


def metadata(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """The bundle's `metadata.json`."""
    spec = checkpoint.spec
    dims, channels = spec.data.spatial_dims, spec.data.channels
    channel_def = {"0": "background", **{str(i): n for n, i in spec.labels.items()}}
    shape = ["32*n"] * dims
    measured = {
        k: checkpoint.metrics[k] for k in ("dice", "cases", "labelled", "unlabelled") if k in checkpoint.metrics
    }
    version = f"0.{checkpoint.version}.0"
    return {
        "schema": SCHEMA,
        "version": version,
        "changelog": {version: f"version {checkpoint.version} of the {spec.data.kind} model"},
        "monai_version": monai.__version__.split("+")[0],
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": required_packages(),
        "name": name,
        "task": f"Segmentation of {', '.join(spec.labels)}",
        "description": (
            f"{spec.network.name} trained semi-supervised with the method {marked(spec.method.name)} "
            f"on {spec.data.kind} studies"
        ),
        "authors": "not stated",
        "copyright": "not stated",
        "intended_use": "Research. Not a medical device; every result needs the eye of an expert.",
        "eval_metrics": {k: v for k, v in measured.items() if v is not None},
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "rgb" if channels == 3 else "magnitude",
                    "modality": "n/a",
                    "num_channels": channels,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": spec.data.kind == "volume",
                    "channel_def": {str(c): n for c, n in enumerate(_channel_names(channels))},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": spec.network.classes,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": spec.data.kind == "volume",
                    "channel_def": channel_def,
                }
            },
        },
    }


def inference_config(spec: TaskSpec) -> dict[str, Any]:
    """The bundle's `inference.json`: `run` segments every file of `dataset_dir` that is an image into `output_dir`."""
    data = _data_arguments(spec.data)
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/datasets'",
        "output_dir": "$@bundle_root + '/eval'",
        "images": "$sorted(p for p in glob.glob(os.path.join(@dataset_dir, '*')) if os.path.isfile(p))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "scripts.runtime.LogitsNetwork",
            "name": spec.network.name,
            "classes": spec.network.classes,
            "projection_channels": spec.network.projection_channels,
            "spatial_dims": spec.data.spatial_dims,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "scripts.runtime.LoadStudyd", "keys": "image", **data}],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @images]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "scripts.runtime.StudyInferer", **data},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "scripts.runtime.MaskOnStudyd", "keys": "pred", "image_key": "image", **data},
                {
                    "_target_": "scripts.runtime.SaveMaskd",
                    "keys": "pred",
                    "image_key": "image",
                    "output_dir": "@output_dir",
                },
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', False)"],
        "run": ["$@evaluator.run()"],
    }


def _data_arguments(data: DataSpec) -> dict[str, Any]:
    return {"kind": data.kind, "patch": list(data.patch), "size": data.size, "spacing": list(data.spacing)}


def _channel_names(channels: int) -> tuple[str, ...]:
    return ("red", "green", "blue") if channels == 3 else ("image",)
