"""A picture of OHIF with the model's mask on one image of a running server, for the README.

    make demo ARGS="--iterations 25"                                  # in one terminal, until it says where to annotate
    python benchmarks/screenshot.py --image frame_013 --out docs/images/ohif.png

Everything that can be seen is what an annotator sees after a click on Run model. Needs Chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import requests  # noqa: E402
from browser import chromium, ohif  # noqa: E402
from PIL import Image  # noqa: E402

_COLOURS = 256
"""Of the picture that is kept: a page of few colours becomes a third of the size, and looks the same."""

_DRAWN_MS = 5000
"""Without a GPU the mask is seen a moment after it came."""


def study_of(server: str, image: str) -> str:
    """StudyInstanceUID under which OHIF shows an image. Raises `SystemExit` with a sentence when there is none."""
    query = {"PatientName": image}
    found = requests.get(f"{server}/proxy/dicom/qido/studies", params=query, timeout=60).json()
    if not found:
        raise SystemExit(f"expected {image!r} among the studies of {server}, but it is not; look at {server}/ohif/")
    return found[0]["0020000D"]["Value"][0]


def picture(server: str, image: str, out: Path) -> None:
    """Open an image, press Run model, keep what is seen."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser, ohif(browser, server, Path(folder)) as viewer:
        viewer.annotate(study_of(server, image))
        viewer.press("run", "This is what the model sees")
        viewer.page.wait_for_timeout(_DRAWN_MS)
        viewer.shot("ohif")
        with Image.open(viewer.shots / "ohif.png") as seen:
            out.parent.mkdir(parents=True, exist_ok=True)
            seen.convert("RGB").quantize(_COLOURS).save(out, optimize=True)


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--image", required=True, help="id of an image")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    options = parser.parse_args(arguments)
    picture(options.server.rstrip("/"), options.image, options.out)
    print(f"{options.out}: {options.out.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
