"""A trained model as a MONAI bundle: configuration, weights and the few modules that it needs, in one folder.

Layout of the MONAI Bundle Specification: `configs/metadata.json`, `configs/inference.json`, `models/model.pt` (state dict of the
teacher), `models/model.ts` (TorchScript), `models/model.onnx`, `scripts/` (code named in the configuration), `docs/README.md`.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import torch
from torch import Tensor

from lib.core.bundle.describe import inference_config, metadata, required_packages
from lib.core.bundle.runtime import LogitsNetwork
from lib.core.checkpoint import Checkpoint, CheckpointError
from lib.core.files import replacing
from lib.core.methods import marked
from lib.core.spec import TaskSpec

logger = logging.getLogger(__name__)

MODULES = (
    "spec", "spec_methods", "spec_reconstructions", "spec_ranges", "pretrained", "depthwise", "networks", "grid", "images",
    "cases", "predict", "bundle/runtime",
)  # fmt: skip
"""Modules of this package that the bundle runs; imports among them are turned to the bundle's `scripts`."""

PARTS = 3
"""Weights with configuration and code, TorchScript, ONNX."""

TOLERANCE = 1e-3
"""Largest difference of logits between the network and its TorchScript or ONNX form."""


@dataclass(frozen=True)
class Exported:
    """What was written: the bundle's folder, and for each extra form of the network None or why it is missing."""

    folder: Path
    left_out: Mapping[str, str | None]


def export_bundle(
    checkpoint: Checkpoint, target: str | Path, name: str, advance: Callable[[], None] = lambda: None
) -> Exported:
    """Write the teacher of `checkpoint` as the bundle `target`/`name`, whole or not at all.

    Args:
        checkpoint: a published model.
        target: existing folder.
        name: of the bundle, used as folder name.
        advance: called after each of the `PARTS` parts.

    Returns:
        The folder, and which of TorchScript and ONNX could not be made.

    Raises:
        CheckpointError: the folder is there already, or the weights do not fit their specification.
    """
    folder = Path(target) / name
    if folder.exists():
        raise CheckpointError(f"expected to create {folder}, but it is there already; remove it or choose another name")
    with tempfile.TemporaryDirectory(dir=target, prefix=f".{name}-") as temporary:
        draft = Path(temporary) / name
        for part in ("configs", "models", "scripts", "docs"):
            (draft / part).mkdir(parents=True)
        network = _network(checkpoint)
        torch.save(network.state_dict(), draft / "models" / "model.pt")
        _write_json(draft / "configs" / "metadata.json", metadata(checkpoint, name))
        _write_json(draft / "configs" / "inference.json", inference_config(checkpoint.spec))
        _copy_scripts(draft / "scripts")
        advance()
        left_out = {}
        for form, write in (("model.ts", _torchscript), ("model.onnx", _onnx)):
            left_out[form] = _tried(write, network, checkpoint.spec, draft / "models" / form)
            advance()
        (draft / "docs" / "README.md").write_text(_readme(checkpoint, name, left_out))
        draft.rename(folder)
    return Exported(folder, left_out)


def zip_bundle(folder: Path) -> Path:
    """The bundle as `<folder>.zip` beside it, with the folder as its root."""
    archive = folder.with_suffix(".zip")
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = shutil.make_archive(str(Path(temporary) / folder.name), "zip", folder.parent, folder.name)
        with Path(made).open("rb") as source, replacing(archive) as file:
            shutil.copyfileobj(source, file)
    return archive


def _network(checkpoint: Checkpoint) -> LogitsNetwork:
    spec = checkpoint.spec
    network = LogitsNetwork(
        spec.network.name, spec.network.classes, spec.network.projection_channels, spec.data.spatial_dims
    )
    try:
        network.network.load_state_dict(dict(checkpoint.teacher))
    except RuntimeError as e:
        raise CheckpointError(
            f"expected the weights of {spec.network.name} with {spec.network.classes} classes, but the file holds others; "
            "export a version that this app trained"
        ) from e
    return network.eval()


def _copy_scripts(scripts: Path) -> None:
    """The modules of the app, imports turned from `lib.core` to `scripts`."""
    core = Path(__file__).resolve().parents[1]
    (scripts / "__init__.py").touch()
    for module in MODULES:
        text = (core / f"{module}.py").read_text()
        (scripts / f"{Path(module).name}.py").write_text(
            text.replace("lib.core.bundle.", "scripts.").replace("lib.core.", "scripts.")
        )


def _tried(
    write: Callable[[LogitsNetwork, TaskSpec, Path], None], network: LogitsNetwork, spec: TaskSpec, path: Path
) -> str | None:
    """None when the form was written and agrees with the network, else why not; nothing is left behind then."""
    try:
        with torch.no_grad():
            write(network, spec, path)
    except Exception as e:  # converters fail in many ways; the bundle is complete without them
        path.unlink(missing_ok=True)
        reason = f"{type(e).__name__}: {e}".splitlines()[0][:200]
        logger.warning("The bundle has no %s: %s", path.name, reason)
        return reason
    return None


def _torchscript(network: LogitsNetwork, spec: TaskSpec, path: Path) -> None:
    traced = torch.jit.trace(network, _example(spec, 1), check_trace=False)
    for size in (1, 2):
        _agree(network, traced, _example(spec, size))
    traced.save(str(path))


def _onnx(network: LogitsNetwork, spec: TaskSpec, path: Path) -> None:
    import onnxruntime

    axes = {i: f"side{i}" for i in range(2, 2 + spec.data.spatial_dims)}
    torch.onnx.export(
        network,
        (_example(spec, 1),),
        str(path),
        input_names=["image"],
        output_names=["pred"],
        dynamic_axes={"image": {0: "batch", **axes}, "pred": {0: "batch", **axes}},
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in (1, 2):
        _agree(network, lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0]), _example(spec, size))


def _agree(network: LogitsNetwork, other: Callable[[Tensor], Tensor], image: Tensor) -> None:
    expected, got = network(image), other(image)
    if expected.shape != got.shape:
        raise ValueError(f"expected logits of shape {tuple(expected.shape)}, but got {tuple(got.shape)}")
    difference = float((expected - got).abs().max())
    if difference > TOLERANCE:
        raise ValueError(f"expected the same logits within {TOLERANCE}, but they differ by {difference:.2g}")


def _example(spec: TaskSpec, size: int) -> Tensor:
    """Random image `1 C H W [D]`, its sides 32 times `size`, the last one more: no two forms may agree by symmetry."""
    sides = [32 * size] * (spec.data.spatial_dims - 1) + [32 * (size + 1)]
    return torch.rand((1, spec.data.channels, *sides), generator=torch.Generator().manual_seed(0))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n")


def _readme(checkpoint: Checkpoint, name: str, left_out: Mapping[str, str | None]) -> str:
    spec = checkpoint.spec
    classes = "\n".join(f"- {i}: {n}" for n, i in spec.labels.items())
    forms = "\n".join(
        f"- `models/{f}`: " + ("the same logits" if why is None else f"left out, {why}") for f, why in left_out.items()
    )
    packages = " ".join(f"{k}=={v}" for k, v in required_packages().items())
    return f"""# {name}

Segments {", ".join(spec.labels)} in {spec.data.kind} studies. Version {checkpoint.version}, method {marked(spec.method.name)},
network {spec.network.name}. Research use; not a medical device.

    pip install monai=={monai.__version__} torch=={torch.__version__.split("+")[0]} {packages}
    cd {name}
    python -m monai.bundle run --config_file configs/inference.json --dataset_dir STUDIES --output_dir MASKS

Every file in STUDIES is segmented; the mask lies on the voxels of its study. Values:

{classes}

Other forms of the network (logits of a batch in [0, 1] whose sides are multiples of 32):

{forms}
"""
