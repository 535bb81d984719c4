import threading

import numpy as np
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from lib.server.threads import _LIMITERS, in_thread


@pytest.fixture
def app():
    _LIMITERS.clear()
    yield FastAPI()
    _LIMITERS.clear()


def nothing(arguments):
    return arguments


def test_a_blocking_endpoint_stops_no_other(app):
    """The slow one ends only when the quick one was answered: on the event loop both would wait for ever."""
    answered = threading.Event()

    async def slow():
        return {"in_time": answered.wait(20)}

    async def quick():
        answered.set()
        return {}

    app.get("/slow")(in_thread(slow, "infer", nothing))
    app.get("/quick")(in_thread(quick, "quick", nothing))
    with TestClient(app) as client:
        replies = []
        waiting = threading.Thread(target=lambda: replies.append(client.get("/slow").json()))
        waiting.start()
        client.get("/quick")
        waiting.join()
    assert replies == [{"in_time": True}]


def test_one_inference_at_a_time(app):
    """Each notes who else is inside."""
    inside, most = set(), []
    gate = threading.Barrier(1)

    async def infer(number: int):
        inside.add(number)
        gate.wait()
        most.append(len(inside))
        inside.discard(number)
        return {}

    app.get("/infer")(in_thread(infer, "infer", nothing))
    with TestClient(app) as client:
        threads = [threading.Thread(target=client.get, args=(f"/infer?number={n}",)) for n in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert most == [1] * 6


def test_the_check_sees_and_changes_arguments(app):
    async def echo(name: str = "nobody"):
        return {"name": name}

    def check(arguments):
        if arguments["name"] == "evil":
            raise HTTPException(400, "expected another name, but got evil; choose one")
        return {"name": arguments["name"].upper()}

    app.get("/echo")(in_thread(echo, "quick", check))
    client = TestClient(app)
    assert client.get("/echo?name=ann").json() == {"name": "ANN"}
    assert client.get("/echo?name=evil").status_code == 400


def test_replies_are_encoded_as_before(app):
    async def values():
        return {"nan": float("nan"), "scalar": np.float32(0.5), "list": (1, 2)}

    async def text():
        return PlainTextResponse("as it is")

    app.get("/values")(in_thread(values, "quick", nothing))
    app.get("/text")(in_thread(text, "quick", nothing))
    client = TestClient(app)
    assert client.get("/values").content == b'{"nan":null,"scalar":0.5,"list":[1,2]}'
    assert client.get("/text").text == "as it is"


def test_an_upload_does_not_stay_when_the_request_is_refused(app):
    removed = []

    async def save(background_tasks: BackgroundTasks):
        background_tasks.add_task(removed.append, "upload")
        raise HTTPException(400, "expected something else")

    app.put("/save")(in_thread(save, "write", nothing))
    assert TestClient(app).put("/save").status_code == 400
    assert removed == ["upload"]


def test_an_endpoint_that_waits_is_named(app):
    import asyncio

    async def waits():
        await asyncio.sleep(0)

    app.get("/waits")(in_thread(waits, "quick", nothing))
    with pytest.raises(RuntimeError, match="expected an endpoint that never waits"):
        TestClient(app).get("/waits")
