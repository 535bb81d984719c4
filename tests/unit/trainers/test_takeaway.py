import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from lib import progressbar
from lib.core.bundle import export
from lib.core.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from lib.core.networks import build_network
from lib.core.spec import DataSpec, MethodSpec, NetworkSpec, TaskSpec, TrainSpec
from lib.store.project import open_project
from lib.trainers.takeaway import export_version

APP = Path(__file__).resolve().parents[3] / "apps/loco"


LIB = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "lib"}
"""The modules that this file patches; tests of the app load others of the same names."""


@pytest.fixture
def command(monkeypatch):
    for name, module in LIB.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("export_command", APP / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Studies whose volume model has version 1 and the live version 2; converters, slow, are left out."""
    monkeypatch.setattr(export, "_tried", lambda *a: None)
    (tmp_path / "studies").mkdir()
    project = open_project(tmp_path, str(tmp_path / "studies"))
    torch.manual_seed(0)
    network = NetworkSpec("unet3d_small", 2, 8, pretrained=False)
    weights = build_network(network, 3).state_dict()
    data = DataSpec("volume", (32, 32, 32), 0, (1.5, 1.5, 1.5))
    task = TaskSpec({"atrium": 1}, data, network, MethodSpec(), TrainSpec(1, 1, 1, 1, 0.01, 0.9))
    folder = project.model("volume")
    for version, path in ((1, folder.version(1)), (2, folder.version(2)), (2, folder.live)):
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(Checkpoint(task, weights, weights, version=version), path)
    return project


def test_the_live_version_or_a_chosen_one_is_exported(project, tmp_path):
    live = export_version(project, tmp_path / "out")
    assert live.folder == tmp_path / "out/loco_volume_v2"
    assert (live.folder / "configs/inference.json").is_file()
    assert export_version(project, tmp_path / "out", version=1, name="first").folder.name == "first"
    with pytest.raises(CheckpointError, match=r"one of \[1, 2\], but got 7"):
        export_version(project, tmp_path / "out", version=7)


def test_the_command_tells_how_far_it_is(project, tmp_path, command, capsys, monkeypatch):
    monkeypatch.setattr(progressbar, "LINE_EVERY_S", 0.0)
    assert command(["--studies", str(tmp_path / "studies"), "--app", str(tmp_path), "--to", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Exporting loco_volume_v2, parts: 1 of 3, ")
    assert lines[-1].startswith("Exporting loco_volume_v2, parts: 3 of 3, ")
    assert ", done in " in lines[-1]


def test_the_command_prints_the_folder_or_one_sentence(project, tmp_path, command, capsys):
    options = ["--studies", str(tmp_path / "studies"), "--app", str(tmp_path), "--to", str(tmp_path / "out")]
    assert command(options) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out/loco_volume_v2"), "progress goes to the standard error"
    assert command(options) == 1
    assert "is there already" in capsys.readouterr().err

    (tmp_path / "new").mkdir()
    assert command(["--studies", str(tmp_path / "new"), "--to", str(tmp_path)]) == 1
    assert "no loco.sqlite in it" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_a_project_without_a_model_says_what_to_do(tmp_path):
    (tmp_path / "studies").mkdir()
    with pytest.raises(CheckpointError, match="submit labels and train first"):
        export_version(open_project(tmp_path, str(tmp_path / "studies")), tmp_path)
