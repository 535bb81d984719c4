"""The strategies that MONAI Label comes with, as its endpoint calls them; a part of `next_sample.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.datastore.local import LocalDatastore
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

STOCK_IMAGES, STOCK_CLICKS = 10_000, 10


def stock_strategies(folder: Path) -> dict[str, str | float]:
    """Median milliseconds of the endpoint's body with MONAI Label's own strategies, or the error."""
    studies = folder / "stock"
    studies.mkdir()
    for name in (f"study{i:06d}" for i in range(STOCK_IMAGES)):
        (studies / f"{name}.png").touch()
    datastore = LocalDatastore(str(studies), extensions=("*.png",))
    found: dict[str, str | float] = {}
    for name, strategy in {"random": Random(), "first": First(), "epistemic": Epistemic()}.items():
        found[name] = _timed(lambda s=strategy, n=name: _endpoint_body(s, n, datastore))
    return found


def _endpoint_body(strategy: Any, name: str, datastore: LocalDatastore) -> None:
    image = strategy({"strategy": name}, datastore)["id"]
    info = datastore.get_image_info(image).get("strategy", {})
    datastore.update_image_info(image, {"strategy": {**info, name: {"ts": int(time.time()), "client_id": "one"}}})


def _timed(run: Callable[[], None]) -> str | float:
    took = []
    try:
        for _ in range(STOCK_CLICKS):
            start = time.perf_counter()
            run()
            took.append(1e3 * (time.perf_counter() - start))
    except ValueError as e:
        return f"fails: {str(e).split(';')[0][:60]}"
    return float(np.median(took))
