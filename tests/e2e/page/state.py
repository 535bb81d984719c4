"""What a project is asked through the REST API, and how it is brought from one state to the next."""

from __future__ import annotations

from pathlib import Path

import requests
from server import Server

FRAMES, LABELS = 32, 15
SETTINGS = {"labels": "lesion", "epochs": 4, "iterations": 50, "retrain_after": 60, "retrain_idle": 0}
SHORT = {"max_epochs": 1, "iterations_per_epoch": 2}


def answer(server: Server, panel: str, **query: object) -> dict:
    """What the server says of a panel."""
    reply = server.get(f"/loco/page/{panel}", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


def serve(server: Server, client: str) -> str:
    """The next image for an annotator."""
    reply = server.post("/activelearning/low_contrast", json={"client_id": client})
    assert reply.status_code == 200, reply.text
    return reply.json()["id"]


def label(server: Server, image: str, root: Path, client: str) -> None:
    """Submit the true label."""
    reply = server.submit(image, root / "truth" / f"{image}.png", client_id=client)
    assert reply.status_code == 200, reply.text


def train(server: Server) -> None:
    """A short training to its end."""
    before = len(answer(server, "models")["versions"])
    assert server.post("/train/frame", json=SHORT).status_code == 200
    server.wait_for(lambda: len(answer(server, "models")["versions"]) > before)
    server.wait_for(lambda: answer(server, "learning")["training"]["status"] == "done")
    server.wait_for(lambda: server.get("/train/", params={"check_if_running": "true"}).status_code == 404)
    has_looked(server)


def looked(server: Server) -> set[int]:
    """Versions that have looked at the studies."""
    reply = server.get("/scoring/", params={"all": "true"})
    passes = reply.json() if reply.ok else []
    return {p["request"].get("model_version") for p in passes if p["status"] == "DONE"}


def has_looked(server: Server) -> int:
    """Until the live version has looked at every study; returns it."""
    live = answer(server, "models")["live"]
    server.wait_for(lambda: live in looked(server))
    return live


def settle(server: Server) -> None:
    """Until the live model has looked at every study and the queue goes by that: nothing is under way any more."""
    live = has_looked(server)
    # the queue goes by the newest version that is good enough and has looked; those that never went live have not
    scored = looked(server)
    good = (v["version"] for v in answer(server, "models")["versions"] if v["dice"] is None or v["dice"] >= 0.5)
    usable = max(v for v in good if v in scored and v <= live)
    server.wait_for(lambda: answer(server, "queue")["version"] == usable)


def finished(server: Server, image: str, layer: str, mark: str) -> requests.Response:
    """A layer of a picture, or that it is empty, as soon as it has been drawn."""

    def drawn() -> list[requests.Response]:
        reply = server.get("/loco/page/thumbnail", params={"image": image, "layer": layer, "v": mark})
        return [] if reply.status_code == 202 else [reply]

    return server.wait_for(drawn)[0]
