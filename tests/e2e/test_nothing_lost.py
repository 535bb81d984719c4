"""A server is killed, its list of studies is broken, its label files come to harm; then it starts again."""

from __future__ import annotations

from server import Server
from studies import write_frames


def test_what_was_answered_is_there_after_everything_went_wrong(tmp_path):
    ids = write_frames(tmp_path / "studies", tmp_path / "truth", 4)
    truth = {image: (tmp_path / "truth" / f"{image}.png") for image in ids}
    server = Server(tmp_path / "studies", tmp_path / "server.log", labels="lesion", auto_retrain="false")
    try:
        server.start()
        picked = server.post("/activelearning/random", json={"client_id": "ann"}).json()["id"]
        ids.sort(key=lambda image: image != picked)  # which one it is depends on how many were looked at by then
        for image in ids[:3]:
            assert server.submit(image, truth[image], client_id="ann").status_code == 200
        server.stop(kill=True)
        labels = tmp_path / "studies/labels/final"
        (tmp_path / "studies/datastore_v2.json").write_text('{"objects": {"frame_000": {"ima')
        (labels / f"{ids[0]}.png").unlink()
        (labels / f"{ids[1]}.png").write_bytes(truth[ids[1]].read_bytes()[:40])
        server.start()
        assert server.get("/info/").json()["datastore"]["completed"] == 3
        for image in ids[:3]:
            assert (labels / f"{image}.png").read_bytes() == truth[image].read_bytes()
            (version,) = server.get("/loco/labels", params={"image": image}).json()
            assert (version["client"], version["removed"], version["kept"]) == ("ann", None, True)
        assert server.post("/activelearning/random", json={"client_id": "bob"}).json()["id"] == ids[3]
        health = server.get("/loco/health").json()
        assert (health["status"], health["labelled"]) == ("ok", 3)
        _comes_second(server, ids[3], truth[ids[3]], truth[ids[0]])
        log = server.log.read_text()
        assert "2 label files were missing or not whole and were brought back" in log
        assert '"what": "submitted"' in log
    finally:
        server.stop()


def _comes_second(server, image, first, second):
    """Bob gives the image back, it goes to eve, who labels it; then bob submits all the same."""
    bob = {"image": image, "client_id": "bob"}
    server.post("/loco/release", json=bob).raise_for_status()
    assert server.post("/activelearning/random", json={"client_id": "eve"}).json()["id"] == image
    assert "note" not in server.submit(image, first, client_id="eve").json()
    assert "kept as another reading" in server.submit(image, second, client_id="bob").json()["note"]
    (version,), (reading,) = (
        server.get(f"/loco/{what}", params={"image": image}).json() for what in ("labels", "readings")
    )
    assert (version["client"], reading["client"]) == ("eve", "bob")
    assert server.get(f"/loco/labels/{version['id']}/file").content == first.read_bytes()
    assert server.get(f"/loco/readings/{reading['id']}/file").content == second.read_bytes()
    assert "note" not in server.submit(image, second, client_id="bob").json(), "he was told, and puts his in its place"
    assert [v["client"] for v in server.get("/loco/labels", params={"image": image}).json()] == ["bob", "eve"]
