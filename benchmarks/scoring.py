"""What the low-contrast score of a study costs beside dropout with five passes; a part of `next_sample.py`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lib.core.cases import load_case
from lib.core.dropout import dropout_passes
from lib.core.lowcontrast import field_of_view, score_image
from lib.core.networks import build_network
from lib.core.predict import predict
from lib.core.spec import DataSpec, NetworkSpec
from lib.core.uncertainty import epistemic_entropy
from lib.progressbar import track

SIDE, ROUNDS = 320, 12


def scoring_against_dropout(folder: Path) -> dict[str, float]:
    """Seconds per study, interleaved: one pass with all terms, and five passes with the mean entropy."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(60, 200, (SIDE, SIDE, 3)).astype(np.uint8)).save(folder / "one.png")
    data = DataSpec("frame", (SIDE, SIDE), SIDE)
    network = build_network(NetworkSpec("deeplabv3plus_efficientnet_lite0", 2, pretrained=False), 2).eval()
    case = load_case(str(folder / "one.png"), None, data, 2)
    device, thresholds = torch.device("cpu"), torch.tensor([0.9, 0.9])

    def ours() -> None:
        prediction = predict(network, case, data, device, with_projection=True)
        score_image(prediction, thresholds, {"lesion": 1}, None, field_of_view(case.image, True))

    def dropout() -> None:
        float(epistemic_entropy(dropout_passes(network, case, data, device)).mean())

    took: dict[str, list[float]] = {"ours": [], "dropout": []}
    for round_no in track(range(ROUNDS + 1), "Scoring against dropout"):
        for name, run in (("ours", ours), ("dropout", dropout)):
            start = time.perf_counter()
            run()
            if round_no:
                took[name].append(time.perf_counter() - start)
    seconds = {name: float(np.median(values)) for name, values in took.items()}
    ratio = float(np.median(np.array(took["dropout"]) / np.array(took["ours"])))
    return {"ours_s": seconds["ours"], "dropout_s": seconds["dropout"], "ratio": ratio}
