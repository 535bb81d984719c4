import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run, verify_metadata, verify_net_in_out
from PIL import Image
from unit.helpers import affine_of

from lib.core.bundle import export
from lib.core.bundle.export import MODULES, export_bundle, zip_bundle
from lib.core.cases import load_case
from lib.core.checkpoint import Checkpoint, CheckpointError
from lib.core.networks import build_network
from lib.core.predict import predict
from lib.core.spec import DataSpec, MethodSpec, NetworkSpec, TaskSpec, TrainSpec

LITE0 = "deeplabv3plus_efficientnet_lite0"
CASES = {
    "frame": (DataSpec("frame", (64, 64), 64), LITE0),
    "slice": (DataSpec("slice", (64, 64), 64, (1.5, 1.5)), LITE0),
    "volume": (DataSpec("volume", (32, 32, 32), 0, (1.5, 1.5, 1.5)), "unet3d_small"),
}
REQUIRED = {
    "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
    "task", "description", "authors", "copyright", "network_data_format",
}  # fmt: skip
"""Keys that the MONAI Bundle Specification demands of a metadata file."""


def model(kind, labels):
    """An untrained model that predicts every class somewhere."""
    torch.manual_seed(0)
    data, name = CASES[kind]
    spec = NetworkSpec(name, len(labels) + 1, projection_channels=8, pretrained=False)
    network = build_network(spec, data.spatial_dims).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(20)
        network.classifier.bias.zero_()
    task = TaskSpec(labels, data, spec, MethodSpec(), TrainSpec(1, 1, 1, 1, 0.01, 0.9))
    checkpoint = Checkpoint(task, {}, network.state_dict(), version=3, metrics={"dice": 0.5, "cases": 4})
    return checkpoint, network


def study(kind, folder):
    rng = np.random.default_rng(1)
    folder.mkdir()
    if kind == "frame":
        picture = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(picture).resize((90, 70), Image.Resampling.BICUBIC).save(folder / "one.png")
        return folder / "one.png"
    spacing = (8.0, 1.4, 1.4) if kind == "slice" else (1.2, 1.2, 1.2)
    shape = (5, 60, 50) if kind == "slice" else (50, 40, 36)
    array = rng.normal(size=[n // 4 + 1 for n in shape]).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    array = array[: shape[0], : shape[1], : shape[2]].astype(np.float32)
    nib.save(nib.Nifti1Image(array, affine_of("SPL", shape, spacing)), folder / "one.nii.gz")
    return folder / "one.nii.gz"


def read_mask(path):
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).T, None
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


@pytest.fixture(scope="module", params=list(CASES))
def exported(request, tmp_path_factory):
    """kind, bundle folder, study, the app's own mask."""
    kind = request.param
    root = tmp_path_factory.mktemp(kind)
    labels = {"lesion": 1} if kind == "frame" else {"rv": 1, "lv": 2}
    checkpoint, network = model(kind, labels)
    image = study(kind, root / "studies")
    case = load_case(str(image), None, checkpoint.spec.data, len(labels) + 1)
    mask = predict(network, case, checkpoint.spec.data, torch.device("cpu")).native_label().numpy()
    assert set(np.unique(mask)) == set(range(len(labels) + 1))
    return kind, export_bundle(checkpoint, root, f"loco_{kind}"), image, mask


@pytest.fixture
def here(exported, monkeypatch):
    """The bundle as the working directory, its scripts importable, as `python -m monai.bundle` has them."""
    folder = exported[1].folder
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [m for m in sys.modules if m.split(".")[0] == "scripts"]:
        del sys.modules[name]


def assert_same_mask(written, image, mask):
    got, affine = read_mask(next(written.glob("one_seg.*")))
    np.testing.assert_array_equal(got, mask)
    if affine is not None:
        np.testing.assert_allclose(affine, nib.load(image).affine, atol=1e-4)


def test_running_the_bundle_gives_the_mask_of_the_app(exported, here, tmp_path):
    _, _, image, mask = exported
    run(config_file="configs/inference.json", dataset_dir=str(image.parent), output_dir=str(tmp_path))
    assert_same_mask(tmp_path, image, mask)


def test_the_bundle_runs_where_there_is_no_app(exported, tmp_path):
    kind, bundle, image, mask = exported
    for script in (bundle.folder / "scripts").glob("*.py"):
        assert "lib." not in script.read_text(), script
    if kind == "volume":  # one process is enough to see it
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        options = ["--config_file", "configs/inference.json", "--dataset_dir", image.parent, "--output_dir", tmp_path]
        done = subprocess.run(
            [sys.executable, "-m", "monai.bundle", "run", *map(str, options)],
            cwd=bundle.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert_same_mask(tmp_path, image, mask)


def test_monai_verifies_metadata_and_network(exported, here, tmp_path):
    schema = tmp_path / "schema.json"  # in the place of the published one, so that nothing is fetched
    schema.write_text(json.dumps({"type": "object", "required": sorted(REQUIRED)}))
    verify_metadata(meta_file="configs/metadata.json", filepath=str(schema))
    verify_net_in_out(
        "network_def", meta_file="configs/metadata.json", config_file="configs/inference.json", device="cpu", n=2
    )


def test_other_forms_of_the_network_give_the_same_logits(exported, here):
    import onnxruntime

    kind, bundle, _, _ = exported
    assert bundle.left_out == {"model.ts": None, "model.onnx": None}
    script = torch.jit.load("models/model.ts")
    session = onnxruntime.InferenceSession("models/model.onnx", providers=["CPUExecutionProvider"])
    shape = (2, 1, 32, 64, 32) if kind == "volume" else (2, 3 if kind == "frame" else 1, 128, 96)
    image = torch.rand(shape)
    with torch.no_grad():
        first = script(image)
    second = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    assert first.shape[2:] == image.shape[2:]
    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


def test_the_stock_app_for_bundles_gives_the_same_mask(exported, tmp_path):
    from monailabel.interfaces.utils.app import app_instance, clear_cache

    _, bundle, image, mask = exported
    app_dir = tmp_path / "app"
    shutil.copytree(stock_app(), app_dir)
    shutil.copytree(bundle.folder, app_dir / "model" / bundle.folder.name)
    studies = tmp_path / "studies"
    shutil.copytree(image.parent, studies)
    clear_cache()
    # the app of the tests has a package `lib` too
    own = {m: sys.modules.pop(m) for m in list(sys.modules) if m.split(".")[0] == "lib"}
    try:
        conf = {"models": bundle.folder.name, "zoo_source": "ngc", "skip_trainers": "true", "sam2": "false"}
        app = app_instance(app_dir=str(app_dir), studies=str(studies), conf=conf)
        wish = {"result_extension": "".join(image.suffixes), "result_dtype": "uint8", "device": "cpu"}
        reply = app.infer({"model": bundle.folder.name, "image": "one", **wish})
    finally:
        for name in [m for m in sys.modules if m.split(".")[0] in ("lib", "scripts")]:
            del sys.modules[name]
        sys.modules.update(own)
        clear_cache()
    got, _ = read_mask(Path(reply["file"]))
    np.testing.assert_array_equal(got, mask)


def stock_app():
    """MONAI Label's sample app, wherever its wheel was unpacked."""
    places = [Path(sys.prefix), *Path(torch.__file__).parents[1].glob("monailabel-*.data/data")]
    return next(p for p in (place / "monailabel/sample-apps/monaibundle" for place in places) if p.is_dir())


def test_an_archive_holds_the_bundle_and_a_folder_is_not_overwritten(exported):
    _, bundle, _, _ = exported
    archive = zip_bundle(bundle.folder)
    with zipfile.ZipFile(archive) as file:
        names = set(file.namelist())
    assert f"{bundle.folder.name}/configs/metadata.json" in names
    checkpoint, _ = model("frame", {"lesion": 1})
    with pytest.raises(CheckpointError, match="is there already"):
        export_bundle(checkpoint, bundle.folder.parent, bundle.folder.name)


def test_a_failed_export_leaves_nothing_and_a_failed_converter_leaves_a_reason(tmp_path, monkeypatch):
    checkpoint, _ = model("volume", {"rv": 1})
    other, _ = model("volume", {"rv": 1, "lv": 2})
    with pytest.raises(CheckpointError, match="with 2 classes, but the file holds others"):
        export_bundle(replace(checkpoint, teacher=other.teacher), tmp_path, "wrong")
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    bundle = export_bundle(checkpoint, tmp_path, "partial")
    assert "expected the same logits" in bundle.left_out["model.onnx"]
    assert sorted(p.name for p in (bundle.folder / "models").iterdir()) == ["model.pt"]
    assert "left out" in (bundle.folder / "docs/README.md").read_text()


def test_every_module_that_a_script_imports_is_copied():
    core = Path(export.__file__).parents[1]
    copied = {Path(m).name for m in MODULES}
    for module in MODULES:
        for line in (core / f"{module}.py").read_text().splitlines():
            if line.startswith("from lib.core."):
                assert line.split()[1].split(".")[-1] in copied, line
