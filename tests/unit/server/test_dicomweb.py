import io
import logging
from datetime import datetime

import numpy as np
import pydicom
import pytest
from dicom import as_jpeg, picture_series, volume_series
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage
from requests_toolbelt.multipart.decoder import MultipartDecoder

from lib import progressbar
from lib.server import catalogue, dicomfolder
from lib.server.conversion import ImageCache
from lib.server.dicomfolder import FolderClient, holds_dicom
from lib.server.dicomseg import Author, seg_header, write_seg
from lib.server.dicomweb import dicomweb_router
from lib.server.seginbox import PacsWithSegs
from lib.server.series import cases_of
from lib.store.journal import Journal

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(-50, 900, (7, 5, 4)).astype(np.int16)
PICTURE = RNG.integers(0, 255, (16, 24, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two studies in nested folders under names of no meaning, among files that are no DICOM."""
    root = tmp_path / "studies"
    (root / "a b" / "deep").mkdir(parents=True)
    volume, (picture,) = volume_series(VOLUME, patient="P1"), picture_series("ES", [PICTURE], patient="P2")
    for number, ds in enumerate(volume):
        pydicom.dcmwrite(root / "a b" / "deep" / f"{9 - number}", ds, write_like_original=False)
    pydicom.dcmwrite(root / "x.IMA", as_jpeg(picture), write_like_original=False)
    (root / "notes.txt").write_text("no study")
    return root, volume, picture


@pytest.fixture
def client(folder):
    source = FolderClient(folder[0])
    app = FastAPI()
    app.include_router(dicomweb_router(source.catalogue, lambda ds, who: source.store_instances([ds])))
    return TestClient(app)


def parts(answer):
    return MultipartDecoder(answer.content, answer.headers["content-type"]).parts


def place(ds):
    return f"/proxy/dicom/wado/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"


def related(*datasets):
    body = b""
    for ds in datasets:
        with io.BytesIO() as out:
            pydicom.dcmwrite(out, ds, write_like_original=False)
            body += b"--b\r\nContent-Type: application/dicom\r\n\r\n" + out.getvalue() + b"\r\n"
    return {
        "content": body + b"--b--\r\n",
        "headers": {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
    }


def segmentation(volume):
    (case,), _ = cases_of(volume[0].SeriesInstanceUID, volume)
    classes = (VOLUME > 700).astype(np.uint8)
    return write_seg(classes, case.grid, volume[0], {"lesion": 1}, Author("ann"), datetime(2024, 1, 2)), classes


def test_studies_of_any_nesting_are_listed_and_filtered(client, folder):
    rows = client.get("/proxy/dicom/qido/studies").json()
    assert [(r["00100020"]["Value"], r["00080061"]["Value"], r["00201208"]["Value"]) for r in rows] == [
        (["P1"], ["MR"], [4]), (["P2"], ["ES"], [1]),
    ]  # fmt: skip
    (row,) = client.get("/proxy/dicom/qido/studies", params={"PatientID": "P2"}).json()
    assert row["0020000D"]["Value"] == [folder[2].StudyInstanceUID]
    (series,) = client.get(f"/proxy/dicom/qido/studies/{folder[1][0].StudyInstanceUID}/series").json()
    assert series["00201209"]["Value"] == [4]
    assert len(client.get("/proxy/dicom/qido/instances").json()) == 5
    assert client.get("/proxy/dicom/qido/studies", params={"limit": "x"}).status_code == 400


def test_metadata_has_the_place_of_each_slice_and_no_pixels(client, folder):
    _, volume, _ = folder
    found = client.get(place(volume[0]) + "/metadata").json()
    assert [m["00200032"]["Value"] for m in found] == [list(ds.ImagePositionPatient) for ds in volume]
    assert all("7FE00010" not in m and m["00083002"]["Value"] == ["1.2.840.10008.1.2.1"] for m in found)


def test_frames_are_the_pixels_as_stored(client, folder):
    _, volume, picture = folder
    answer = client.get(f"{place(volume[2])}/instances/{volume[2].SOPInstanceUID}/frames/1")
    assert np.frombuffer(parts(answer)[0].content, np.int16).reshape(5, 7).T.tolist() == VOLUME[:, :, 2].tolist()
    answer = client.get(f"{place(picture)}/instances/{picture.SOPInstanceUID}/frames/1")
    (part,) = parts(answer)
    assert part.content.startswith(b"\xff\xd8")
    assert part.headers[b"Content-Type"] == b"application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.50"
    assert client.get(f"{place(picture)}/instances/{picture.SOPInstanceUID}/frames/2").status_code == 404


def test_whole_instances_come_as_files(client, folder):
    _, volume, _ = folder
    (part,) = parts(client.get(f"{place(volume[1])}/instances/{volume[1].SOPInstanceUID}"))
    assert pydicom.dcmread(io.BytesIO(part.content)).SOPInstanceUID == volume[1].SOPInstanceUID
    assert len(parts(client.get(place(volume[0])))) == 4
    assert client.get("/proxy/dicom/wado/studies/1/series/2/metadata").status_code == 404
    assert client.get(place(volume[0]) + "/rendered").status_code == 404


def test_segmentations_are_stored_beside_the_originals_and_served(client, folder):
    root, volume, _ = folder
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    seg, _ = segmentation(volume)
    answer = client.post("/proxy/dicom/wado/studies", **related(seg))
    assert answer.status_code == 200
    assert answer.json()[0]["00081199"]["Value"][0]["00081155"]["Value"] == [seg.SOPInstanceUID]
    rows = client.get("/proxy/dicom/qido/studies", params={"PatientID": "P1"}).json()
    assert rows[0]["00080061"]["Value"] == ["MR", "SEG"]
    assert {p: p.read_bytes() for p in before} == before
    new = [p for p in root.rglob("*.dcm") if p not in before]
    assert [p.parent.relative_to(root).as_posix() for p in new] == [".loco/segmentations"]


def test_images_are_not_added_to_the_studies(client, folder):
    answer = client.post("/proxy/dicom/stow/studies", **related(folder[2]))
    assert answer.status_code == 409
    assert answer.json()[0]["00081198"]["Value"][0]["00081197"]["Value"] == [0x0122]
    assert (
        client.post("/proxy/dicom/stow/studies", content=b"x", headers={"Content-Type": "text/plain"}).status_code
        == 400
    )
    assert client.post("/proxy/dicom/wado/studies/1/series").status_code == 405


@pytest.mark.parametrize("uid", ["../../p1/IM1", "/tmp/x", "", "1.2/3"])
def test_a_segmentation_is_stored_under_a_uid_and_nowhere_else(folder, uid):
    root = folder[0]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    seg = Dataset()
    seg.SOPClassUID, seg.SOPInstanceUID = SegmentationStorage, uid
    with pytest.raises(ValueError, match="expected a SOP Instance UID of numbers and dots"):
        FolderClient(root).store_instances([seg])
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_the_journal_is_never_opened_as_a_file(folder, monkeypatch):
    """It would give up this process's locks on it, and another process would delete the log that this one writes to."""
    root, opened = folder[0], []
    for name in ("loco.sqlite", "loco.sqlite-wal", "loco.sqlite-shm"):
        (root / name).write_bytes(b"")
    (root / "frame.png").write_bytes(b"")
    monkeypatch.setattr(dicomfolder, "_is_dicom", lambda path: opened.append(path.name))
    monkeypatch.setattr(catalogue, "_header", lambda path: opened.append(path.name))
    assert not holds_dicom(root)
    FolderClient(root).catalogue()
    assert opened
    assert not [name for name in opened if name.startswith("loco.sqlite")]


def test_a_link_to_nowhere_does_not_hide_the_other_files(folder):
    root, _, _ = folder
    before = set(FolderClient(root).catalogue())
    (root / "dangling").symlink_to("/nowhere/at/all")
    assert set(FolderClient(root).catalogue()) == before


def test_a_folder_of_dicom_is_told_from_one_of_pictures(folder, tmp_path):
    root, _, _ = folder
    assert holds_dicom(root)
    (root / "preview.png").write_bytes(b"")
    assert holds_dicom(root), "a picture beside a scan is not what the annotator came for"
    for n in range(100):
        (root / f"frame_{n}.png").write_bytes(b"")
    assert not holds_dicom(root)
    assert not holds_dicom(tmp_path / "nowhere")


def test_a_folder_of_dicom_is_studies_like_a_pacs(folder, tmp_path):
    root, volume, picture = folder
    state = root / ".loco"
    studies = PacsWithSegs(
        FolderClient(root), str(root), Journal(root / "j.sqlite"), state, ImageCache(tmp_path / "c", 10**8)
    )
    studies.attach({"lesion": 1}, "(.*)")
    uid = volume[0].SeriesInstanceUID
    assert studies.list_images() == sorted([uid, picture.SOPInstanceUID])
    assert studies.get_image_info(uid)["StudyInstanceUID"] == volume[0].StudyInstanceUID
    assert studies.get_image_uri(uid).endswith(".nii.gz")
    seg, classes = segmentation(volume)
    studies.client.store_instances([seg])
    assert seg_header(seg).creator not in ("", "ana")
    (outcome,) = studies.seg_stored(str(seg.SeriesInstanceUID), "ana")
    assert outcome.taken
    assert [s.client for s in studies._journal.submissions()] == ["ana"], "who is logged in, whoever the file names"
    from lib.core.images import read_label

    np.testing.assert_array_equal(read_label(studies.get_label_uri(uid, "final")).array[0], classes)


def test_reading_many_headers_for_the_first_time_is_told_in_the_log(folder, monkeypatch, caplog):
    monkeypatch.setattr(progressbar, "LINE_EVERY_S", 0.0)
    source = FolderClient(folder[0])
    with caplog.at_level(logging.INFO):
        source.catalogue()
    lines = [r.getMessage() for r in caplog.records if r.name == "lib.server.catalogue"]
    assert lines[0].startswith("Reading DICOM headers: 1 of 6, ")
    assert lines[0].endswith(" left")
    assert ", done in " in lines[-1]
    caplog.clear()
    source.catalogue.forget()
    source.catalogue()
    assert "Reading" not in caplog.text, "nothing has changed"
