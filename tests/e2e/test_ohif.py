"""Annotating in OHIF in a real browser: a PACS (Orthanc), and a folder of pictures without one.

Screenshots lie in the test's temporary folder under `shots`, or in $LOCO_SHOTS.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from browser import needs_chromium, ohif
from orthanc import Orthanc, needs_orthanc
from PIL import Image
from server import Server
from studies import write_frames, write_volumes

from lib.core.images import read_image, read_label
from lib.server.asdicom import Identity, datasets_of

SETTINGS = {"labels": "lesion", "epochs": 2, "iterations": 2, "retrain_after": 2, "retrain_idle": 0}
pytestmark = needs_chromium


def shots(root: Path, name: str) -> Path:
    """Where screenshots go."""
    return Path(os.environ.get("LOCO_SHOTS", root / "shots")) / name


def trained(server: Server) -> dict | None:
    """train_stats of a finished first training."""
    (stats,) = server.get("/info/").json()["train_stats"].values()
    return stats if stats.get("version") else None


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A server over coloured frames, with the truth of each."""
    root = tmp_path_factory.mktemp("ohif_frames")
    write_frames(root / "studies", root / "truth", 5, size=(160, 120))
    server = Server(root / "studies", root / "server.log", **SETTINGS).start()
    yield server, root
    server.stop()


def test_frames_of_a_folder_are_annotated_without_a_pacs(frames):
    server, root = frames
    labels = root / "studies" / "labels" / "final"
    with ohif(server.url, shots(root, "frames")) as viewer:
        viewer.studies()
        viewer.page.get_by_text("frame_002", exact=True).first.click()
        viewer.page.get_by_text("Annotate with LoCo").wait_for()
        viewer.shot("1 study list")
        viewer.page.get_by_text("Annotate with LoCo").click()
        viewer.ready()
        assert viewer.part("image").inner_text() == "frame_002"
        viewer.press("run", "submit labels first")

        viewer.stroke((0.4, 0.5))
        painted = viewer.labelmap().reshape(120, 160)
        assert painted.sum() > 100
        viewer.part("eraser").click()
        viewer.stroke((0.43, 0.5), 0.03)
        drawn = viewer.labelmap().reshape(120, 160)
        assert 0 < drawn.sum() < painted.sum()
        viewer.shot("2 drawn and erased")
        viewer.press("submit", "was submitted")
        np.testing.assert_array_equal(np.array(Image.open(labels / "frame_002.png")), drawn)

        viewer.part("next").click()
        viewer.part("reason").get_by_text("Chosen because").wait_for()
        viewer.ready()
        second = viewer.part("image").inner_text()
        assert second != "frame_002"
        viewer.shot("3 next and why")
        viewer.stroke((0.5, 0.4))
        viewer.press("submit", "was submitted")

        server.wait_for(lambda: trained(server))
        viewer.part("model").get_by_text("model version 1").wait_for()
        viewer.press("run", "This is what the model sees")
        answer = server.post("/infer/frame", params={"image": second, "output": "image"}, data={"params": "{}"})
        (root / "mask.png").write_bytes(answer.content)
        np.testing.assert_array_equal(viewer.labelmap().reshape(120, 160), np.array(Image.open(root / "mask.png")))
        viewer.shot("4 the model's mask")
        assert viewer.errors == []


def test_label_maps_keep_their_voxels_between_any_two_orders_of_axes(frames):
    server, root = frames
    rng = np.random.default_rng(0)
    with ohif(server.url, shots(root, "order")) as viewer:
        viewer.page.goto(f"{server.url}/ohif/loco/panel.css")
        for _ in range(8):
            shape, order, flips = rng.integers(2, 5, 3), rng.permutation(3), rng.integers(0, 2, 3)
            values = rng.integers(0, 9, shape)
            turned = values.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
            axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 4, 3)[:, None]
            origin = rng.normal(size=3)
            there = [(-1 if f else 1) * axes[a] for a, f in zip(order, flips, strict=True)]
            start = origin + sum((shape[a] - 1) * axes[a] for a, f in zip(order, flips, strict=True) if f)
            result = viewer.page.evaluate(
                "async ([data, from, to]) => { const { reordered } = await import('/ohif/loco/nrrd.js');"
                " return Array.from(reordered(Uint8Array.from(data), from, to)); }",
                [
                    values.ravel(order="F").tolist(),
                    {"dimensions": shape.tolist(), "origin": origin.tolist(), "axes": axes.tolist()},
                    {"dimensions": list(turned.shape), "origin": start.tolist(), "axes": np.array(there).tolist()},
                ],
            )
            assert result == turned.ravel(order="F").tolist()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """A server on a real PACS with three MR volumes."""
    root = tmp_path_factory.mktemp("ohif_pacs")
    ids = write_volumes(root / "volumes", root / "truth", 4, (48, 40, 10), (1.2, 1.2, 4.0), ("LPS", "PIR"), seed=5)
    orthanc = Orthanc(root / "orthanc").start()
    series = {}
    for name in ids:
        path = root / "volumes" / f"{name}.nii.gz"
        identity = Identity.of("e2e", name, name.split("_")[0])
        orthanc.store(datasets_of(identity, path, read_image(path)))
        series[name] = identity
    server = Server(orthanc.address, root / "server.log", **SETTINGS, pacs_poll=3).start()
    yield server, orthanc, root, series
    server.stop()
    orthanc.stop()


@needs_orthanc
def test_volumes_of_a_pacs_are_annotated_and_segmentations_stored_by_ohif_count(pacs):
    server, orthanc, root, series = pacs
    first, second = series["patient000_frame01"], series["patient001_frame01"]
    with ohif(server.url, shots(root, "pacs")) as viewer:
        viewer.studies("?mrn=patient001")
        viewer.page.get_by_text("patient001_frame01").first.wait_for()
        assert viewer.page.get_by_text("patient000_frame01").count() == 0
        viewer.shot("1 filtered list")

        viewer.annotate(first.study)
        viewer.stroke((0.45, 0.5))
        drawn = viewer.labelmap()
        assert drawn.sum() > 10
        viewer.press("submit", "was submitted")
        assert len(orthanc.segs()) == 1
        viewer.shot("2 submitted")

        viewer.annotate(second.study)
        viewer.stroke((0.5, 0.5))
        viewer.page.evaluate(
            "() => { window.commandsManager.runCommand('storeSegmentation', {"
            " segmentationId: 'loco', dataSource: window.extensionManager.getActiveDataSource()[0] }); }"
        )
        save = viewer.page.get_by_role("button", name="Save")
        save.wait_for()
        viewer.shot("3 storing with OHIF's own export")
        save.click()
        server.wait_for(lambda: len(orthanc.segs()) == 2)
        server.wait_for(lambda: server.get("/info/").json()["datastore"]["completed"] == 2)

        stats = server.wait_for(lambda: trained(server))
        assert stats["labelled"] + stats["validation"] == 2
        viewer.part("next").click()
        viewer.part("reason").get_by_text("Chosen because").wait_for()
        viewer.ready()
        assert viewer.opened_study() not in (first.study, second.study)
        viewer.press("run", "This is what the model sees")
        viewer.shot("4 the model's mask")
        assert viewer.errors == []


@needs_orthanc
def test_the_mask_lies_on_the_voxels_that_the_model_meant(pacs):
    """The truth, sent as the model's answer, covers exactly the bright voxels in OHIF, and comes back unchanged."""
    server, _, root, series = pacs
    with ohif(server.url, shots(root, "voxels")) as viewer:
        for name in ("patient002_frame01", "patient003_frame01"):
            truth = write_nrrd(root / "truth" / f"{name}.nii.gz", root)
            viewer.page.unroute_all()
            viewer.page.route("**/infer/**", partial(answer_with, truth))
            viewer.annotate(series[name].study)
            viewer.press("run", "This is what the model sees")
            mask, image = viewer.labelmap() > 0, viewer.image()
            assert mask.sum() == len(places(root / "truth" / f"{name}.nii.gz"))
            assert image[mask].min() > image[~mask].max()
            viewer.shot(name)
            viewer.press("submit", "was submitted")
            (kept,) = root.glob(f"app/model/*/labels/final/{series[name].series}.*")
            assert places(kept) == places(root / "truth" / f"{name}.nii.gz")


def answer_with(body: bytes, route) -> None:
    """Answer a request of the page in the server's place."""
    route.fulfill(body=body)


def places(label: Path) -> set[tuple[float, ...]]:
    """Where the labelled voxels lie: RAS, to a tenth of a mm."""
    loaded = read_label(label)
    voxels = np.argwhere(loaded.array[0].numpy() > 0)
    return {tuple(p) for p in np.round(voxels @ loaded.affine[:3, :3].T + loaded.affine[:3, 3], 1).tolist()}


def write_nrrd(label: Path, folder: Path) -> bytes:
    """A label volume as the server answers OHIF."""
    from monai.data import MetaTensor
    from monailabel.transform.writer import Writer

    loaded = read_label(label)
    data = {
        "pred": MetaTensor(loaded.array[0], affine=loaded.affine),
        "result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False,
    }  # fmt: skip
    return Path(Writer(label="pred")(data)[0]).read_bytes()
