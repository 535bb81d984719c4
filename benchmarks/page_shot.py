"""A picture of the page of a running server, as in the README.

    make demo                                                   # in one terminal
    python benchmarks/page_shot.py docs/images/page.png         # in another, when it has finished labelling

Options: --server http://127.0.0.1:8000, --width and --height in pixels, --dark. Needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

_PATIENCE_MS = 120_000
_COLOURS = 256
_SHOWN = """() => [...document.querySelectorAll('#next .picture')]
  .filter(node => node.getBoundingClientRect().top < innerHeight)
  .every(node => node.dataset.whole)"""
"""Every picture that is in sight was drawn."""


def picture(server: str, width: int, height: int, dark: bool) -> Image.Image:
    """The top of the page once all pictures in sight are there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            locale="en-GB",
        )
        page.set_default_timeout(_PATIENCE_MS)
        page.goto(f"{server}/loco/")
        page.wait_for_selector("#connection[data-state=live]")
        page.wait_for_function(_SHOWN)
        page.wait_for_timeout(500)  # the last picture is being painted
        content = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(content)).convert("RGB")


def main(arguments: Sequence[str]) -> int:
    """Write the picture, with few colours, so that it stays small; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=2500)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shot = picture(options.server, options.width, options.height, options.dark)
    shot.quantize(_COLOURS, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
