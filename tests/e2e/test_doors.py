"""Each hole of MONAI Label as it comes, shown on a stock server and closed in this app, on the same studies."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zipfile
from dataclasses import replace

import pytest
import requests
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings
from server import ROOT, Server
from studies import write_frames

from lib.core.checkpoint import Checkpoint, save_checkpoint
from lib.core.networks import build_network
from lib.core.plan import plan_task
from lib.core.spec import MethodSpec

STUDIES = 3
LIMIT_MB = 24
"""Of an upload; a model file is somewhat smaller."""


class Pair:
    """A stock server and this app, each with the same studies of its own."""

    def __init__(self, root):
        self.root = root
        self.servers = {}
        for name, source in (("stock", ROOT / "tests/stock"), ("loco", ROOT / "apps/loco")):
            folder = root / name
            self.ids = write_frames(folder / "studies", folder / "truth", STUDIES)
            conf = {} if name == "stock" else {"labels": "lesion", "max_upload_mb": LIMIT_MB, "auto_retrain": "false"}
            self.servers[name] = Server(folder / "studies", folder / "server.log", source, **conf)

    def model(self, name):
        return "toy" if name == "stock" else "frame"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    both = Pair(tmp_path_factory.mktemp("doors"))
    for server in both.servers.values():
        server.launch()
    for server in both.servers.values():
        server.wait_until_up()
    yield both
    for server in both.servers.values():
        server.stop()


def wide_open(pair, hole):
    """Whether `hole` is there in the stock server, and in this app."""
    return {name: hole(name, server, pair.root / name) for name, server in pair.servers.items()}


STOCK_ONLY = {"stock": True, "loco": False}


def picture(pair):
    return (pair.root / "stock/studies" / f"{pair.ids[0]}.png").read_bytes()


def test_an_image_id_cannot_be_a_path(pair):
    def hole(name, server, folder):
        for image in ("../outside", str(folder / "outside")):
            requests.put(
                f"{server.url}/datastore/image", params={"image": image}, files={"file": ("x.png", picture(pair))}
            )
        return (folder / "outside.png").exists()

    assert wide_open(pair, hole) == STOCK_ONLY


def test_a_tag_cannot_be_a_path(pair):
    def hole(name, server, folder):
        server.submit(pair.ids[0], folder / "truth" / f"{pair.ids[0]}.png", tag="../../victim/tag")
        return (folder / "victim").exists()

    assert wide_open(pair, hole) == STOCK_ONLY


def test_an_archive_is_not_unpacked(pair):
    def hole(name, server, folder):
        victim = folder / "slipped.txt"
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            member = tarfile.TarInfo("../" * 12 + str(victim).lstrip("/"))
            member.size = 2
            tar.addfile(member, io.BytesIO(b"hi"))
        files = {"files": ("a.tar", content.getvalue())}
        requests.put(f"{server.url}/session/", params={"uncompress": "true"}, files=files)
        return victim.exists()

    assert wide_open(pair, hole) == STOCK_ONLY


@pytest.mark.parametrize("where", ["query", "params"])
def test_inference_reads_studies_alone(pair, where):
    def hole(name, server, folder):
        secret = folder / "truth" / f"{pair.ids[1]}.png"
        query = {"image": str(secret) if where == "query" else pair.ids[0]}
        params = {} if where == "query" else {"image": str(secret)}
        answer = server.post(f"/infer/{pair.model(name)}", params=query, data={"params": json.dumps(params)})
        return answer.status_code == 200

    assert wide_open(pair, hole) == STOCK_ONLY


def test_a_training_writes_into_its_own_folder(pair):
    for name, server in pair.servers.items():  # side by side
        server.post(f"/train/{pair.model(name)}", json={"name": "../../../victim_of_train"})

    def hole(name, server, folder):
        task = server.wait_for(lambda: _ended(server), 400)
        assert task["status"] in ("ERROR", "DONE")
        return (folder / "victim_of_train").exists()

    assert wide_open(pair, hole) == STOCK_ONLY


def _ended(server):
    answer = server.get("/train/")
    return answer.json() if answer.ok and answer.json()["status"] in ("ERROR", "DONE") else None


def test_other_web_pages_may_neither_read_nor_write(pair):
    origin = {"Origin": "http://evil.example"}

    def may_read(name, server, folder):
        return server.get("/info/", headers=origin).headers.get("access-control-allow-origin") == origin["Origin"]

    def may_write(name, server, folder):
        return server.post("/activelearning/random", json={}, headers=origin).status_code == 200

    assert wide_open(pair, may_read) == STOCK_ONLY
    assert wide_open(pair, may_write) == STOCK_ONLY
    own = pair.servers["loco"]
    same = {"Origin": own.url}
    assert own.post("/activelearning/random", json={}, headers=same).status_code == 200, "its own pages may"


def test_a_file_that_is_no_model_does_not_go_live(pair):
    def hole(name, server, folder):
        files = {"file": ("model.pt", b"not a model")}
        answer = requests.put(f"{server.url}/model/{pair.model(name)}", files=files)
        assert name == "stock" or "the live one goes on" in answer.text
        return answer.status_code == 200

    assert wide_open(pair, hole) == STOCK_ONLY


@pytest.mark.parametrize("said", [True, False], ids=["length known", "streamed"])
def test_uploads_have_a_size_limit(pair, said):
    boundary = "limit"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="big_{said}.png"\r\n\r\n'.encode()
    body = head + bytes((LIMIT_MB + 1) * 2**20) + f"\r\n--{boundary}--\r\n".encode()

    def pieces():
        for start in range(0, len(body), 2**20):
            yield body[start : start + 2**20]

    def hole(name, server, folder):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        try:
            answer = requests.put(f"{server.url}/datastore/image", data=body if said else pieces(), headers=headers)
        except requests.ConnectionError:
            return False  # the server stopped listening to it
        return answer.status_code == 200

    assert wide_open(pair, hole) == STOCK_ONLY
    left = list((pair.root / "loco/app/model").glob("*/uploads/*"))
    assert left == [], "nothing of a refused upload stays"


def test_a_study_is_not_written_over_by_another(pair):
    def hole(name, server, folder):
        url = f"{server.url}/datastore/image"
        for content in (picture(pair), (folder / "truth" / f"{pair.ids[1]}.png").read_bytes()):
            requests.put(url, params={"image": "twice"}, files={"file": ("x.png", content)})
        return (folder / "studies/twice.png").read_bytes() != picture(pair)

    assert wide_open(pair, hole) == STOCK_ONLY


def test_names_with_dots_stay_different_studies(pair):
    def hole(name, server, folder):
        for number in (1, 2):
            requests.put(f"{server.url}/datastore/image", files={"file": (f"case.{number}.png", picture(pair))})
        return not (folder / "studies/case.2.png").exists()

    assert wide_open(pair, hole) == STOCK_ONLY


BAD = {
    "unknown model": ("POST", "/infer/none?image=frame_000", {}),
    "parameters that are no JSON": ("POST", "/infer/{model}?image=frame_000", {"data": {"params": "{"}}),
    "parameters that are a list": ("POST", "/infer/{model}?image=frame_000", {"data": {"params": "[1]"}}),
    "parameters nested without end": ("POST", "/infer/{model}?image=frame_000", {"data": {"params": "[" * 100_000}}),
    "a mask as DICOM SEG": ("POST", "/infer/{model}?image=frame_000&output=dicom_seg", {}),
    "no image": ("POST", "/infer/{model}", {}),
    "unknown image": ("POST", "/infer/{model}?image=none", {}),
    "unknown strategy": ("POST", "/activelearning/none", {"json": {}}),
    "unknown study's information": ("PUT", "/datastore/image/info?image=none", {"data": {"info": "{}"}}),
    "information that is no JSON": ("PUT", "/datastore/image/info?image=frame_000", {"data": {"info": "x"}}),
    "an unknown label's information": ("PUT", "/datastore/label/info?label=none&tag=final", {"data": {"info": "{}"}}),
    "an unknown checksum": ("HEAD", "/datastore/image?image=frame_000&check_sum=CRC:1", {}),
    "an unknown study's label": ("PUT", "/datastore/label?image=none", {"files": {"label": ("a.png", b"x")}}),
    "a machine without GPU": ("GET", "/logs/gpu", {}),
    "an empty archive": ("GET", "/datastore/dataset", {}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_get_a_sentence(pair, case):
    method, path, body = BAD[case]
    codes = {}
    for name, server in pair.servers.items():
        url = server.url + path.format(model=pair.model(name))
        answer = requests.request(method, url, timeout=60, **body)
        codes[name] = answer.status_code
        if name == "loco" and method != "HEAD":
            assert " " in answer.json()["detail"], "a sentence"
    assert codes["stock"] == 500 or case == "no image"
    assert 400 <= codes["loco"] < 500


@pytest.mark.parametrize("page", ["/", "/docs", "/logs/"])
def test_no_page_runs_scripts_of_other_servers(pair, page):
    def hole(name, server, folder):
        return re.search(r"<script[^>]*src=.https?://", server.get(page).text) is not None

    assert wide_open(pair, hole) == STOCK_ONLY


def test_a_parameter_comes_once(pair):
    answer = pair.servers["loco"].get("/datastore/image?image=frame_000&image=../x")
    assert answer.status_code == 400
    assert "'image'" in answer.json()["detail"]


def untrained_model(path):
    """A model file of this app, with weights drawn at random."""
    spec = plan_task("frame", {"lesion": 1}, [], MethodSpec(), torch.cuda.is_available())
    network = build_network(replace(spec.network, pretrained=False), spec.data.spatial_dims)
    save_checkpoint(Checkpoint(spec, student=network.state_dict(), teacher=network.state_dict()), path)
    return path


SECRETS = ("Mustermann_Erika", "Patient^Number^7", "Dr.Who")


def test_names_of_patients_and_annotators_are_not_logged(pair, tmp_path):
    """A day's work on a study whose file is called after its patient."""

    def hole(name, server, folder):
        if name == "loco":
            with untrained_model(tmp_path / "model.pt").open("rb") as model:
                assert requests.put(f"{server.url}/model/frame", files={"file": model}).status_code == 200
        image, patient, annotator = SECRETS
        requests.put(f"{server.url}/datastore/image", files={"file": (f"{image}.png", picture(pair))})
        for study in server.get("/datastore/?output=all").json()["objects"]:
            info = {"info": json.dumps({"PatientID": patient})}
            requests.put(f"{server.url}/datastore/image/info", params={"image": study}, data=info)
        who = {"client_id": annotator}
        assert server.post("/activelearning/random", json=who).json()["id"]
        asked = {"params": {"image": image, "output": "image"}, "data": {"params": json.dumps(who)}}
        assert server.post(f"/infer/{pair.model(name)}", **asked).status_code == 200
        assert server.submit(image, folder / "truth" / f"{pair.ids[0]}.png", **who).status_code == 200
        server.submit(image, folder / "truth" / "broken.png", **who)
        log = server.log.read_text()
        assert name == "stock" or '"what": "submitted"' in log
        return any(secret in log for secret in SECRETS)

    for name in pair.servers:
        (pair.root / name / "truth/broken.png").write_bytes(b"no picture")
    assert wide_open(pair, hole) == STOCK_ONLY


def test_an_archive_of_the_studies_does_not_stay(pair):
    """It holds all images and labels; written where temporary files go."""
    for server in pair.servers.values():
        answer = server.get("/datastore/dataset")
        names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
        assert any(SECRETS[0] in name for name in names)
    pair.servers["loco"].wait_for(lambda: not list((pair.root / "loco/app/model").glob("*/uploads/*")), 20)


EXAMPLES = int(os.environ.get("LOCO_EXAMPLES", "4"))
"""Requests per operation; raise it for a long search."""


def test_no_request_that_the_document_allows_breaks_the_server(pair):
    """Requests drawn from the server's own OpenAPI document: no 500, no hang; stray files are looked for below."""
    server = pair.servers["loco"]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = [_probe(result.ok()) for result in schema.get_all_operations()]
    assert len(tried) > 25
    assert {"POST /infer/{model}", "PUT /datastore/label", "GET /loco/health"} <= set(tried)


def _probe(operation):
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def answers(case):
        answer = case.call(timeout=60)
        assert answer.status_code < 500, f"{case.as_curl_command()}: {answer.text}"

    answers()
    return operation.label


def test_reload_cannot_freeze_the_server(pair):
    """Last: a stock server builds its app anew in the wrong mode and then waits for itself for ever."""

    def hole(name, server, folder):
        return server.post("/reload").status_code == 200

    assert wide_open(pair, hole) == STOCK_ONLY
    assert pair.servers["loco"].get("/info/").ok


def test_nothing_was_left_lying_about(pair):
    own = pair.root / "loco"
    assert {p.name for p in own.iterdir()} == {"studies", "truth", "app", "server.log"}
    assert {p.name.split("-")[0] for p in (own / "app/model").iterdir()} <= {".gitkeep", "studies"}
    assert list((own / "app/model").glob("*/uploads/*")) == []
    assert list((own / "app/model").glob("*/sessions/*")) == []
    studies = {p.name for p in (own / "studies").iterdir() if not p.name.startswith((".", "loco.sqlite", "datastore"))}
    names = [*pair.ids, "twice", "case.1", "case.2", SECRETS[0]]
    assert studies == {"labels", *(f"{name}.png" for name in names)}
