"""Studies and SEGs of a DICOMweb server, here a folder behind the same interface: no network, no second process."""

import shutil
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import requests
from dicom import as_jpeg, film, instance, picture_series, volume_series
from dicomweb_client.file import DICOMfileClient
from fastapi import HTTPException
from pydicom import dcmwrite
from requests import ConnectionError as NoConnection
from requests import HTTPError

from lib.core.images import read_image
from lib.server import openstudies, seginbox
from lib.server.conversion import ImageCache
from lib.server.dicomseg import Author, write_seg
from lib.server.openstudies import open_pacs
from lib.server.seginbox import PacsWithSegs, SegWatcher
from lib.server.series import cases_of
from lib.store.journal import Journal
from lib.store.records import Pick

LABELS = {"lesion": 1}
SHAPE = (9, 7, 4)


class FileServer(DICOMfileClient):
    """A folder of DICOM files as a server that can be switched off; stored instances are kept apart."""

    down = False
    asked = 0

    def search_for_series(self, fields=None, get_remaining=False, **kwargs):
        self._answer()
        return super().search_for_series(fields=fields, **kwargs)

    def retrieve_series_metadata(self, *args):
        self._answer()
        return super().retrieve_series_metadata(*args)

    def iter_series(self, *args, **kwargs):
        self._answer()
        return super().iter_series(*args, **kwargs)

    def retrieve_instance(self, *args, **kwargs):
        self._answer()
        return super().retrieve_instance(*args, **kwargs)

    def store_instances(self, datasets, study_instance_uid=None):
        self._answer()
        return super().store_instances(datasets, study_instance_uid)

    def _answer(self):
        self.asked += 1
        if self.down:
            raise NoConnection("refused")


def pacs(tmp_path: Path, instances: list, limit: int = 10**9, **kwargs) -> PacsWithSegs:
    for n, ds in enumerate(instances):
        (tmp_path / "dicom").mkdir(exist_ok=True)
        dcmwrite(tmp_path / f"dicom/{n}.dcm", ds, write_like_original=False)
    client = FileServer(f"file://{tmp_path}/dicom", update_db=True, in_memory=True)
    cache = ImageCache(tmp_path / "cache", limit)
    store = PacsWithSegs(client, "the test", Journal(tmp_path / "loco.sqlite"), tmp_path / "state", cache, **kwargs)
    store.attach(LABELS, "^(x)")
    return store


def array(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 1500, SHAPE).astype(np.int16)


def drawn(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(SHAPE) > 0.7).astype(np.uint8)


def uid(headers: list) -> str:
    return str(headers[0].SeriesInstanceUID)


def seg_of(headers: list, classes: np.ndarray, labels=LABELS, when: int = 0):
    case = cases_of(uid(headers), headers)[0][0]
    return write_seg(classes, case.grid, headers[0], labels, Author("x"), datetime(2024, 1, 1, 0, 0, when))


def test_what_is_derived_is_not_listed_and_modalities_can_be_chosen(tmp_path):
    mr, ct = volume_series(array()), volume_series(array(1), modality="CT", patient="P2")
    picture = picture_series("OT", [np.zeros((6, 8, 3), np.uint8)])
    report = instance("SR", "1.2.840.10008.5.1.4.1.1.88.11", mr[0].StudyInstanceUID, "1.2.3.4")
    store = pacs(tmp_path, [*mr, *ct, *picture, report, seg_of(mr, drawn())])
    assert store.list_images() == sorted([uid(mr), uid(ct), str(picture[0].SOPInstanceUID)])
    assert store.get_image_info(uid(ct))["PatientID"] == "P2"
    assert set(pacs(tmp_path, [], modalities={"CT", "OT"}).list_images()) == {uid(ct), str(picture[0].SOPInstanceUID)}


def test_volumes_are_converted_once_on_the_grid_of_their_planes(tmp_path):
    headers = volume_series(array(), reverse=True)
    store = pacs(tmp_path, headers)
    path = store.get_image_uri(uid(headers))
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), array())
    asked = store.client.asked
    assert store.get_image_uri(uid(headers)) == path
    assert store.client.asked == asked
    assert store.get_image_info(uid(headers))["path"] == path


def test_pictures_keep_every_pixel(tmp_path):
    grey = np.random.default_rng(0).integers(0, 4096, (6, 8)).astype(np.uint16)
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 8)).astype(np.uint8)
    colour = np.random.default_rng(2).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    cr, us, es = picture_series("CR", [grey]), film(frames), picture_series("ES", [colour])
    inverted = picture_series("CR", [grey])
    inverted[0].PhotometricInterpretation = "MONOCHROME1"
    store = pacs(tmp_path, [*cr, us, *es, *inverted])

    def pixels(image_id):
        return read_image(store.get_image_uri(image_id)).array.numpy().T.squeeze()

    np.testing.assert_array_equal(pixels(str(cr[0].SOPInstanceUID)), grey)
    np.testing.assert_array_equal(pixels(f"{us.SOPInstanceUID}_2"), frames[1])
    np.testing.assert_array_equal(pixels(str(es[0].SOPInstanceUID)), colour)
    np.testing.assert_array_equal(pixels(uid(es)), colour, "a series of one picture can be asked for by its own id")
    dark_is_bright = pixels(str(inverted[0].SOPInstanceUID)).astype(int)
    np.testing.assert_array_equal(dark_is_bright, 65535 - grey.astype(int))


def test_jpeg_pictures_have_their_colours(tmp_path):
    ramp = np.zeros((16, 16, 3), np.uint8)
    ramp[..., 0], ramp[..., 2] = np.arange(16) * 16, 200
    jpeg = as_jpeg(picture_series("ES", [ramp])[0])
    store = pacs(tmp_path, [jpeg])
    got = read_image(store.get_image_uri(str(jpeg.SOPInstanceUID))).array.numpy().T
    assert np.abs(got - ramp).mean() < 8


def test_the_least_recently_used_makes_way(tmp_path):
    series = [volume_series(array(n)) for n in range(3)]
    store = pacs(tmp_path, [d for s in series for d in s])
    first = Path(store.get_image_uri(uid(series[0])))
    store._cache._limit = int(2.1 * first.stat().st_size)
    second = Path(store.get_image_uri(uid(series[1])))
    time.sleep(0.02)
    store.get_image_uri(uid(series[0]))
    store.get_image_uri(uid(series[2]))
    assert first.exists()
    assert not second.exists()
    store._cache._measured = (-10.0, 0)
    assert [store.at_hand(uid(s)) for s in series] == [True, False, True]
    assert Path(store.get_image_uri(uid(series[1]))).exists(), "fetched again when it is wanted"


def test_studies_are_made_ready_ahead(tmp_path):
    series = [volume_series(array(n)) for n in range(2)]
    store = pacs(tmp_path, [d for s in series for d in s])
    store._ahead = SimpleNamespace(
        submit=lambda task, image: task(image)
    )  # in this thread: the folder's index is of it
    store.prefetch([uid(s) for s in series])
    store.client.down = True
    for headers in series:
        assert Path(store.get_image_uri(uid(headers))).exists()


def test_a_server_that_does_not_answer_is_a_sentence(tmp_path):
    headers = volume_series(array())
    store = pacs(tmp_path, headers)
    store.client.down = True
    with pytest.raises(HTTPException, match="503: expected the PACS at the test to answer, but: refused; try again"):
        store.get_image_uri(uid(headers))
    with pytest.raises(HTTPException, match="503"):
        store.refresh()
    assert store.list_images() == [uid(headers)], "what is known stays listed"


def test_several_volumes_in_one_series_are_unlisted_with_the_reason(tmp_path):
    headers = volume_series(array())
    again = volume_series(array(1))
    for ds in again:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID
    store = pacs(tmp_path, [*headers, *again])
    with pytest.raises(HTTPException, match="422"):
        store.get_image_uri(uid(headers))
    assert store.list_images() == []


def test_a_seg_is_a_submission_once_and_the_latest_wins(tmp_path):
    headers = volume_series(array())
    store = pacs(tmp_path, [*headers, seg_of(headers, drawn(2), when=2), seg_of(headers, drawn(1), when=1)])
    assert [o.taken for o in store.take_new_segs()] == [True, True]
    label = np.asarray(nib.load(store.get_label_uri(uid(headers), "final")).dataobj)
    np.testing.assert_array_equal(label, drawn(2))
    assert len(store._journal.submissions()) == 2, "the older one is kept"
    assert [s.client for s in store._journal.submissions()] == ["x", "x"]
    assert store.take_new_segs() == []
    again = pacs(tmp_path, [])
    assert again.take_new_segs() == [], "nor after a restart"


def test_a_seg_that_cannot_be_used_says_why_once(tmp_path):
    headers = volume_series(array())
    store = pacs(tmp_path, [*headers, seg_of(headers, drawn(), {"liver": 1})])
    (outcome,) = store.seg_stored(next(iter(store.index.segs)))
    assert not outcome.taken
    assert "expected segments named lesion, but got liver" in outcome.reason
    assert store.take_new_segs() == []
    assert store._journal.segs("refused")[0].detail == outcome.reason
    assert store.get_labeled_images() == []


def test_a_study_of_pictures_with_a_seg_is_opened_by_its_pictures(tmp_path):
    volume, picture = volume_series(array()), picture_series("OT", [np.zeros((6, 8, 3), np.uint8)])
    plain = picture_series("ES", [np.ones((6, 8, 3), np.uint8)], "P3")
    mask = np.ones((8, 6, 1), np.uint8)
    store = pacs(tmp_path, [*volume, *picture, *plain, seg_of(volume, drawn()), seg_of(picture, mask)])
    assert store.pictures_of(picture[0].StudyInstanceUID) == [uid(picture)]
    assert store.pictures_of(plain[0].StudyInstanceUID) == store.pictures_of(volume[0].StudyInstanceUID) == []


def test_an_all_background_seg_is_a_label(tmp_path):
    headers = volume_series(array())
    store = pacs(tmp_path, [*headers, seg_of(headers, drawn() * 0)])
    assert store.take_new_segs()[0].taken
    assert store.get_labeled_images() == [uid(headers)]


def test_own_labels_are_stored_as_segs_also_later_and_are_not_taken_again(tmp_path):
    headers = volume_series(array())
    store = pacs(tmp_path, headers)
    image = nib.load(store.get_image_uri(uid(headers)))
    nib.save(nib.Nifti1Image(drawn(), image.affine), tmp_path / "label.nii.gz")
    store.client.down = True
    store.save_label(uid(headers), str(tmp_path / "label.nii.gz"), "final", {"client_id": "ann"})
    assert store.get_labeled_images() == [uid(headers)]
    assert len(store._journal.segs("pending")) == 1
    store.client.down = False
    watcher = SegWatcher(store, 1.0)
    watcher.look()
    assert (len(store._journal.segs("pending")), len(store._journal.segs("own"))) == (0, 1)
    watcher.look()
    assert list(store.index.segs) == [store._journal.segs("own")[0].series]
    assert len(store._journal.submissions()) == 1


def test_a_label_of_somebody_who_was_overtaken_is_a_second_reading_in_a_pacs_too(tmp_path):
    headers = volume_series(array())
    store = pacs(tmp_path, headers)
    affine = nib.load(store.get_image_uri(uid(headers))).affine
    for client in ("ann", "bob"):
        store._journal.add_pick(Pick(0, uid(headers), client, "volume", 1, "coverage", time.time()))
    for seed, client in enumerate(("bob", "ann")):
        nib.save(nib.Nifti1Image(drawn(seed), affine), tmp_path / "label.nii.gz")
        store.save_label(uid(headers), str(tmp_path / "label.nii.gz"), "final", {"client_id": client})
    np.testing.assert_array_equal(nib.load(store.get_label_uri(uid(headers), "final")).get_fdata(), drawn(0))
    assert [r.client for r in store._journal.readings(uid(headers))] == ["ann"]
    assert store.still_to_do(uid(headers)).startswith("Somebody else labelled this image")
    assert len(store._journal.segs("own")) == 1, "hers is not stored in the PACS"


def refusing(client, monkeypatch, call, series):
    """Let the server answer 500 to `call` for one series."""
    original = getattr(client, call)

    def refuse(study, uid, *rest, **kwargs):
        if uid == series:
            raise HTTPError("500 Server Error", response=requests.Response())
        return original(study, uid, *rest, **kwargs)

    monkeypatch.setattr(client, call, refuse)


@pytest.mark.parametrize("call", ["retrieve_series_metadata", "retrieve_instance"])
def test_a_seg_that_the_pacs_does_not_serve_holds_up_no_other(tmp_path, monkeypatch, caplog, call):
    series = [volume_series(array(n)) for n in range(2)]
    segs = [seg_of(headers, drawn(n), when=n) for n, headers in enumerate(series)]
    store = pacs(tmp_path, [*[d for s in series for d in s], *segs])
    with monkeypatch.context() as patched:
        refusing(store.client, patched, call, uid(segs[:1]))
        assert [o.image for o in store.take_new_segs()] == [uid(series[1])]
        assert store.take_new_segs() == []
    assert caplog.text.count("is left out") == 1, "said once"
    assert [o.image for o in store.take_new_segs()] == [uid(series[0])], "it is served now"


def test_a_seg_that_is_none_says_so(tmp_path):
    headers = volume_series(array())
    broken = seg_of(headers, drawn())
    del broken.PerFrameFunctionalGroupsSequence
    store = pacs(tmp_path, [*headers, broken])
    (outcome,) = store.take_new_segs()
    assert not outcome.taken
    assert store.take_new_segs() == []


def test_a_series_that_cannot_be_looked_at_holds_up_no_other(tmp_path, monkeypatch, caplog):
    pictures = [picture_series("ES", [np.zeros((6, 8, 3), np.uint8)]) for _ in range(3)]
    pictures[1][0].Rows = None
    store = pacs(tmp_path, [])
    refusing(store.client, monkeypatch, "retrieve_series_metadata", uid(pictures[0]))
    monkeypatch.setattr(store.client, "search_for_series", lambda **_: [s[0].to_json_dict() for s in pictures])
    known = {uid(s): [s[0].to_json_dict()] for s in pictures}
    served = store.client.retrieve_series_metadata
    monkeypatch.setattr(
        store.client,
        "retrieve_series_metadata",
        lambda study, series: served(study, series) if series == uid(pictures[0]) else known[series],
    )
    caplog.set_level("INFO")
    for _ in range(2):
        store.refresh()
    assert store.list_images() == [str(pictures[2][0].SOPInstanceUID)]
    assert caplog.text.count("is left out") == 1
    assert "its headers cannot be read" in caplog.text


def saved(store, tmp_path, headers):
    """Submit a label for a series."""
    nib.save(nib.Nifti1Image(drawn(), nib.load(store.get_image_uri(uid(headers))).affine), tmp_path / "label.nii.gz")
    store.save_label(uid(headers), str(tmp_path / "label.nii.gz"), "final", {"client_id": "ann"})


def test_a_pacs_that_is_away_is_asked_once_however_many_labels_wait(tmp_path, caplog):
    series = [volume_series(array(n)) for n in range(3)]
    store = pacs(tmp_path, [d for s in series for d in s])
    for headers in series:
        store.get_image_uri(uid(headers))
    store.client.down = True
    for headers in series:
        saved(store, tmp_path, headers)
    asked = store.client.asked
    assert store.store_pending() == 3
    assert store.client.asked == asked + 1
    assert store.still_to_do(uid(series[2])).startswith("The label is kept here; the PACS did not take it yet")
    assert caplog.text.count("not in the PACS yet") == 1, "the reason is said once"
    assert uid(series[0]) not in caplog.text
    store.client.down = False
    assert store.store_pending() == 0
    assert store.still_to_do(uid(series[2])) == ""
    assert len(store._journal.segs("own")) == 3


@pytest.mark.parametrize("error", [AttributeError("no StudyID"), ValueError("x"), OSError(28, "full"), HTTPError(400)])
def test_a_label_of_which_no_seg_can_be_stored_is_kept_and_holds_up_no_other(tmp_path, monkeypatch, error):
    series = [volume_series(array(n)) for n in range(2)]
    store = pacs(tmp_path, [d for s in series for d in s])
    if isinstance(error, HTTPError):
        error.response = requests.Response()  # the PACS answers, and refuses this one
    write = seginbox.write_seg

    def fails(classes, grid, source, *rest):
        if source.SeriesInstanceUID == uid(series[0]):
            raise error
        return write(classes, grid, source, *rest)

    monkeypatch.setattr(seginbox, "write_seg", fails)
    for headers in series:
        saved(store, tmp_path, headers)
    assert store.get_labeled_images() == sorted(uid(s) for s in series)
    assert [row.image for row in store._journal.segs("pending")] == [uid(series[0])]
    assert [row.image for row in store._journal.segs("own")] == [uid(series[1])]
    assert store.still_to_do(uid(series[0]))


def test_that_a_label_belongs_into_the_pacs_survives_a_crash(tmp_path, monkeypatch):
    headers = volume_series(array())
    store = pacs(tmp_path, headers)
    monkeypatch.setattr(store, "store_pending", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saved(store, tmp_path, headers)
    again = pacs(tmp_path, [])
    SegWatcher(again, 1.0).look()
    assert [row.image for row in again._journal.segs("own")] == [uid(headers)]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], ids=["silence", "busy"])
def test_a_pacs_that_hangs_is_given_up_soon(tmp_path, monkeypatch, answer):
    """dicomweb-client waits for ever and tries five times."""
    monkeypatch.setattr(openstudies, "_TIMEOUT_S", (0.5, 0.5))
    asked = []

    def serve():
        with suppress(OSError):  # closed, when the test is over
            while True:
                connection, _ = listening.accept()
                asked.append(connection)
                if answer:
                    connection.recv(65536)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        project = SimpleNamespace(journal=Journal(tmp_path / "loco.sqlite"), folder=tmp_path)
        with pytest.raises(requests.RequestException):
            open_pacs(f"http://127.0.0.1:{listening.getsockname()[1]}", project, (), 10**9)
        assert len(asked) == 1


def test_a_journal_that_was_lost_is_filled_again_from_the_segs(tmp_path):
    """The labels are in the PACS: a new project on it knows them, whoever stored them."""
    mine, theirs = volume_series(array()), volume_series(array(1), patient="P2")
    store = pacs(tmp_path, [*mine, *theirs, seg_of(theirs, drawn(2))])
    nib.save(nib.Nifti1Image(drawn(), nib.load(store.get_image_uri(uid(mine))).affine), tmp_path / "label.nii.gz")
    store.save_label(uid(mine), str(tmp_path / "label.nii.gz"), "final", {"client_id": "ann"})
    SegWatcher(store, 1.0).look()
    for file in tmp_path.glob("loco.sqlite*"):
        file.unlink()
    shutil.rmtree(tmp_path / "state")
    again = pacs(tmp_path, [])
    assert again.get_labeled_images() == []
    SegWatcher(again, 1.0).look()
    assert again.get_labeled_images() == sorted([uid(mine), uid(theirs)])
    for headers, expected in ((mine, drawn()), (theirs, drawn(2))):
        np.testing.assert_array_equal(
            np.asarray(nib.load(again.get_label_uri(uid(headers), "final")).dataobj), expected
        )
    assert sorted(s.client for s in again._journal.submissions()) == ["ann", "x"]


def test_uploads_and_deletions_are_refused(tmp_path):
    store = pacs(tmp_path, volume_series(array()))
    with pytest.raises(HTTPException, match="405: expected no upload"):
        store.add_image("a", "b", {})
    with pytest.raises(HTTPException, match="405: expected no deletion"):
        store.remove_image("a")
