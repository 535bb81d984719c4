"""A real browser on OHIF for the end-to-end tests: Debian's Chromium, driven with Playwright, without a screen or a GPU."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--headless=new", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
PATIENCE_MS = 240_000
"""Rendering in software beside a training takes its time on two cores."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="tests in OHIF need a browser: apt-get install chromium")

_DATA = """() => {
  const map = window.services.segmentationService.getLabelmapVolume('loco');
  const { Labelmap } = window.services.segmentationService.getSegmentation('loco').representationData;
  return Array.from(map ? map.voxelManager.getCompleteScalarDataArray()
                        : window.cornerstone.cache.getImage(Labelmap.imageIds[0]).voxelManager.getScalarData());
}"""
_IMAGE = """() => {
  const map = window.services.segmentationService.getLabelmapVolume('loco');
  const shown = window.cornerstone.cache.getVolumes().find(v => v.volumeId !== map.volumeId);
  return Array.from(shown.voxelManager.getCompleteScalarDataArray());
}"""


class Ohif:
    """OHIF in a browser. Everything that the page could not do is collected in `errors`."""

    def __init__(self, page: Page, url: str, shots: Path) -> None:
        self.page, self.url, self._shots = page, url, shots
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("response", lambda r: self.errors.append(f"{r.status} {r.url}") if r.status >= 500 else None)

    def studies(self, query: str = "") -> None:
        """Open the study list."""
        self.page.goto(f"{self.url}/ohif/{query}")
        self.page.get_by_text("Study List").wait_for()
        self.page.get_by_role("button", name="Confirm and Hide").click()

    def annotate(self, study: str) -> None:
        """Open a study in the MONAI Label mode and wait until the panel is ready."""
        self.page.goto(f"{self.url}/ohif/monai-label?StudyInstanceUIDs={study}")
        self.ready()

    def ready(self) -> None:
        """Until the image is shown with an empty label map over it."""
        self.page.wait_for_selector(".loco-panel[data-ready=true]")

    def part(self, name: str):
        """A part of the panel."""
        return self.page.locator(f'[data-loco="{name}"]')

    def press(self, name: str, answer: str) -> None:
        """Press a button and wait for a sentence in the panel."""
        self.part(name).click()
        expect(self.part("message")).to_contain_text(answer, timeout=PATIENCE_MS)

    def stroke(self, where: tuple[float, float], length: float = 0.05) -> None:
        """Drag the mouse over the first viewport; place and length as shares of its size."""
        box = self.page.locator(".cornerstone-canvas").first.bounding_box()
        x, y = box["x"] + where[0] * box["width"], box["y"] + where[1] * box["height"]
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(200)  # the viewer handles the events of a mouse one drawing late
        self.page.mouse.down()
        self.page.mouse.move(x + length * box["width"], y, steps=4)
        self.page.wait_for_timeout(200)
        self.page.mouse.up()
        self.page.wait_for_timeout(200)

    def labelmap(self) -> np.ndarray:
        """All values of the label map that is shown, in OHIF's order: X fastest."""
        return np.array(self.page.evaluate(_DATA), np.uint8)

    def image(self) -> np.ndarray:
        """All values of the volume that is shown, in the same order."""
        return np.array(self.page.evaluate(_IMAGE), np.float32)

    def shot(self, name: str) -> None:
        """Keep a screenshot, to be looked at."""
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=self._shots / f"{name}.png")

    def opened_study(self) -> str:
        """StudyInstanceUID of the address."""
        return re.search(r"StudyInstanceUIDs=([0-9.]+)", self.page.url).group(1)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A fresh browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def ohif(url: str, shots: Path) -> Iterator[Ohif]:
    """A fresh browser on a server; screenshots go to `shots`."""
    shots.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        session = Ohif(browser.new_page(viewport={"width": 1280, "height": 800}), url, shots)
        try:
            yield session
        except BaseException:
            session.page.screenshot(path=shots / "failed.png")
            raise
