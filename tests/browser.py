"""A real browser on OHIF for the end-to-end tests: Debian's Chromium, driven with Playwright, without a screen or a GPU."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Route, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--headless=new", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
PATIENCE_MS = 600_000
"""Rendering in software beside a training takes its time on two cores."""

_DRAWING_MS = 150
_STROKES, _LOOKS = 3, 60
"""A stroke that a busy viewer missed is drawn again: it covers the same voxels."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="tests in OHIF need a browser: apt-get install chromium")

_ID = """() => {
  const { segmentationService, viewportGridService } = window.services;
  return segmentationService.getActiveSegmentation(viewportGridService.getActiveViewportId()).segmentationId;
}"""
_DATA = f"""() => {{
  const id = ({_ID})();
  const map = window.services.segmentationService.getLabelmapVolume(id);
  if (map) return Array.from(map.voxelManager.getCompleteScalarDataArray());
  const {{ Labelmap }} = window.services.segmentationService.getSegmentation(id).representationData;
  const viewport = window.cornerstone.getRenderingEngines()[0].getStackViewports()[0];
  const image = window.cornerstone.cache.getImage(Labelmap.imageIds[viewport.getCurrentImageIdIndex()]);
  return Array.from(image.voxelManager.getScalarData());
}}"""
_IMAGE = f"""() => {{
  const map = window.services.segmentationService.getLabelmapVolume(({_ID})());
  const shown = map && window.cornerstone.cache.getVolumes().find(v => v.volumeId !== map.volumeId);
  const viewport = window.cornerstone.getRenderingEngines()[0].getStackViewports()[0];
  return Array.from(map ? shown.voxelManager.getCompleteScalarDataArray()
                        : window.cornerstone.cache.getImage(viewport.getCurrentImageId()).getPixelData());
}}"""

_SET_UP = """() => {
  const { cornerstoneViewportService: service, viewportGridService } = window.services;
  const [id] = viewportGridService.getState().viewports.keys();
  const info = service.getViewportInfo(id);
  return new Promise(done => {
    service.subscribe(service.EVENTS.VIEWPORT_DATA_CHANGED, done);
    service.setViewportData(id, info.getViewportData(), info.getViewportOptions(), info.getDisplaySetOptions(), {});
  }).then(() => null);
}"""
_PICTURE = "() => window.cornerstone.getRenderingEngines()[0].getStackViewports()[0].getCurrentImageIdIndex()"
_LABEL_SHOWN = """() => {
  const { segmentationService, viewportGridService } = window.services;
  const [id] = viewportGridService.getState().viewports.keys();
  return segmentationService.getSegmentationRepresentations(id).filter(r => r.segmentationId.startsWith('loco-')).length === 1;
}"""


class Ohif:
    """OHIF in a browser. Everything that the page could not do is collected in `errors`, what it asked in `questions`.

    `consents`: what it is answered.
    """

    def __init__(self, page: Page, url: str, shots: Path) -> None:
        self.page, self.url, self.shots = page, url, shots
        self.errors: list[str] = []
        self.questions: list[str] = []
        self.consents = True
        page.set_default_timeout(PATIENCE_MS)
        notice = page.get_by_role("button", name="Confirm and Hide")
        page.add_locator_handler(notice, lambda: notice.click())
        page.on("dialog", self._answer)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("response", lambda r: self.errors.append(f"{r.status} {r.url}") if r.status >= 500 else None)

    def _answer(self, dialog: Dialog) -> None:
        self.questions.append(dialog.message)
        if self.consents:
            dialog.accept()
        else:
            dialog.dismiss()

    def studies(self, query: str = "") -> None:
        """Open the study list."""
        self.page.goto(f"{self.url}/ohif/{query}")
        self.page.get_by_text("Study List").wait_for()

    def annotate(self, study: str) -> None:
        """Open a study in the MONAI Label mode and wait until the panel is ready."""
        self.page.goto(f"{self.url}/ohif/monai-label?StudyInstanceUIDs={study}")
        self.ready()

    def ready(self) -> None:
        """Until the image is shown with an empty label map over it."""
        self.page.wait_for_selector(".loco-panel[data-ready=true]")

    def open_series(self, series: str) -> None:
        """What a double-click on its thumbnail does: the active viewport shows another series of the study."""
        uid = self.page.evaluate(
            "series => window.services.displaySetService.getActiveDisplaySets()"
            ".find(set => set.SeriesInstanceUID === series).displaySetInstanceUID",
            series,
        )
        self.page.locator(f'[id="thumbnail-{uid}"]').dblclick()

    def part(self, name: str):
        """A part of the panel."""
        return self.page.locator(f'[data-loco="{name}"]')

    def press(self, name: str, answer: str) -> None:
        """Press a button and wait for a sentence in the panel, one that was not there before."""
        self.part("message").evaluate("message => (message.textContent = '')")
        self.part(name).click()
        expect(self.part("message")).to_contain_text(answer, timeout=PATIENCE_MS)

    def next(self) -> str:
        """Press Next Sample and wait until the image is there. Returns its id."""
        return self._opens("next")

    def skip(self, why: str) -> str:
        """Pass the image by with a reason and wait for the next one. Returns its id."""
        self.part("why").select_option(why)
        return self._opens("skip")

    def _opens(self, button: str) -> str:
        with self.page.expect_navigation():
            self.part(button).click()
        self.part("reason").get_by_text("Chosen because").wait_for()
        self.ready()
        return self.part("image").inner_text()

    def set_up_again(self) -> int:
        """What OHIF does by itself when a page is slow: the viewport is set up anew. Returns the place of its picture before."""
        place = self.page.evaluate(_PICTURE)
        self.page.evaluate(_SET_UP)
        return place

    def shows(self, place: int) -> None:
        """Wait until the viewport shows the picture at that place of its series, with the label map over it."""
        self.page.wait_for_function(f"place => ({_PICTURE})() === place", arg=place)
        self.page.wait_for_function(_LABEL_SHOWN)

    def stroke(self, where: tuple[float, float], length: float = 0.05) -> np.ndarray:
        """Drag the mouse over the first viewport; place and length as shares of its size. Returns the new label map."""
        before = self.labelmap()
        for _ in range(_STROKES):
            self._drag(where, length)
            for _ in range(_LOOKS):
                now = self.labelmap()
                self.page.wait_for_timeout(_DRAWING_MS)
                if not np.array_equal(now, before) and np.array_equal(now, self.labelmap()):
                    return now
        raise AssertionError("the label map did not change under the brush")

    def _drag(self, where: tuple[float, float], length: float) -> None:
        box = self.page.locator(".cornerstone-canvas").first.bounding_box()
        x, y = box["x"] + where[0] * box["width"], box["y"] + where[1] * box["height"]
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(_DRAWING_MS)  # the viewer handles the events of a mouse one drawing late
        self.page.mouse.down()
        self.page.mouse.move(x + length * box["width"], y, steps=4)
        self.page.wait_for_timeout(_DRAWING_MS)
        self.page.mouse.up()

    def labelmap(self) -> np.ndarray:
        """All values of the label map that is shown, of a series of pictures that over the present one; X fastest."""
        return np.array(self.page.evaluate(_DATA), np.uint8)

    def label_id(self) -> str:
        """OHIF's id of that label map."""
        return self.page.evaluate(_ID)

    def image(self) -> np.ndarray:
        """All values of the volume or picture that is shown, in the same order, the colours of a pixel together."""
        return np.array(self.page.evaluate(_IMAGE), np.float32)

    def shot(self, name: str) -> None:
        """Keep a screenshot, to be looked at."""
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=self.shots / f"{name}.png")

    def opened_study(self) -> str:
        """StudyInstanceUID of the address."""
        return re.search(r"StudyInstanceUIDs=([0-9.]+)", self.page.url).group(1)


@contextmanager
def browser_of_its_own() -> Iterator[Browser]:
    """A fresh browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """A browser with an empty profile. Pages share what they have loaded: OHIF's files are read from a server once."""
    with browser_of_its_own() as browser:
        yield browser.new_context(viewport={"width": 1280, "height": 800})


@contextmanager
def ohif(browser: BrowserContext, url: str, shots: Path) -> Iterator[Ohif]:
    """A page of its own on a server; screenshots go to `shots`, or below $LOCO_SHOTS."""
    shots = Path(os.environ.get("LOCO_SHOTS", shots.parent)) / shots.name
    shots.mkdir(parents=True, exist_ok=True)
    page = browser.new_page()
    session = Ohif(page, url, shots)
    try:
        yield session
    except BaseException:
        page.screenshot(path=shots / "failed.png")
        raise
    finally:
        page.close()


def answer_with(body: bytes, route: Route) -> None:
    """Answer a request of the page in the server's place, for `page.route`."""
    route.fulfill(body=body)
