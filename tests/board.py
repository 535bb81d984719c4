"""The page of a project in a browser: what a test looks for, and what makes a page usable by everybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

PATIENCE_MS = 300_000
"""Everything that the page shows comes from a server that may be training on the same two cores."""

SCREENS = {
    f"{name} {scheme}": {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    for name, width, height in (("360", 360, 780), ("1440", 1440, 900), ("4K", 3840, 2160))
    for scheme in ("light", "dark")
}

_LOOK_MS = 200
_HIGHEST, _LARGEST = 8000, 3840 * 2160
"""Pixels of a screenshot: of a higher page Chromium repeats the beginning, a larger one takes long to draw and to write."""
_DRAWN = """() => [...document.querySelectorAll('.picture, .thumb')]
    .map(node => [node, node.getBoundingClientRect()])
    .every(([node, { top, bottom }]) => bottom < 0 || top > innerHeight || node.dataset.whole)
  && [...document.querySelectorAll('.plot')].filter(node => node.checkVisibility())
    .every(node => node.querySelector('svg')?.getAttribute('width') === String(Math.floor(node.clientWidth)))"""
"""Every picture in sight has all its layers, every chart has the width of its place."""

CONTRASTS = """() => {
  const [pen] = [document.createElement('canvas').getContext('2d', { willReadFrequently: true })];
  const rgba = colour => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return rgba(getComputedStyle(document.body).backgroundColor);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const words = walker.currentNode.textContent.trim();
    const shown = node.checkVisibility() && !node.closest('.unseen, .picture, .place, svg, [aria-disabled=true]');
    if (!words || !shown) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${words.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return faint;
}"""
"""Texts that are fainter than WCAG's AA allows, 4.5 to 1."""

REACHABLE = """() => [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
  .filter(node => node.checkVisibility() && !node.closest('dialog:not([open])'))
  .map((node, i) => { node.dataset.number = i; return String(i); })"""
"""Numbers everything that the keyboard must reach."""


OUTSIDE = """width => [...document.querySelectorAll('main *')]
  .filter(node => node.checkVisibility() && !node.closest('.scroll, svg, .unseen'))
  .filter(node => node.getBoundingClientRect().right > width + 1)
  .map(node => node.outerHTML.slice(0, 80))"""
"""What sticks out to the right of the screen."""


class Board:
    """The page in a browser of one size, with what it could not do."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        self._forgiving = False
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("pageerror", lambda e: self._note(str(e)))
        page.on("console", lambda m: self._note(m.text) if m.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith((url, "blob:")) else self._note(r.url))

    def _note(self, error: str) -> None:
        if not self._forgiving:
            self.errors.append(error)

    def forgive(self) -> None:
        """At the end of a test: what the browser noted was meant, also what it has not told yet."""
        self._forgiving = True
        self.errors.clear()

    def open(self) -> Board:
        """Open the page and wait until every panel was filled."""
        self.page.goto(f"{self.url}/loco/")
        expect(self.page.locator("#connection")).to_have_text("Live")
        return self

    def panel(self, name: str, part: str) -> Locator:
        """A part of a panel."""
        return self.page.locator(f"#{name} [data-part={part}]")

    def card(self, image: str) -> Locator:
        """The card of an image in the queue."""
        return self.page.locator(f'#next .study[data-key="{image}"]')

    def version(self, number: int) -> Locator:
        """The entry of a version."""
        return self.page.locator(f'#models .version[data-key="{number}"]')

    def announced(self, words: str) -> None:
        """Until screen readers were told."""
        expect(self.page.locator("#announce")).to_have_text(words, timeout=PATIENCE_MS)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is true that the page alone does not know."""
        limit = time.monotonic() + PATIENCE_MS / 1000
        while not condition():
            assert time.monotonic() < limit, f"it did not happen: {what}"
            self.page.wait_for_timeout(_LOOK_MS)

    def keys(self, panel: str) -> list[str | None]:
        """Images whose cards a panel shows, in its order."""
        return self.page.eval_on_selector_all(f"#{panel} .study", "cards => cards.map(card => card.dataset.key)")

    def count(self, kind: str) -> int:
        """A number below the bar of the progress."""
        shown = self.page.locator(f'#progress [data-part=stack-legend] [data-key="{kind}"] b')
        return int(shown.inner_text()) if shown.count() else 0

    def shot(self, where: Path) -> None:
        """Keep a screenshot of the whole page, to be looked at; of a page higher than a picture can be, a second of its end."""
        size = self.page.viewport_size
        whole = self.page.evaluate("document.documentElement.scrollHeight")
        height = min(_HIGHEST, _LARGEST // size["width"], whole)
        self.page.set_viewport_size({"width": size["width"], "height": height})
        self.page.wait_for_function(_DRAWN)
        self.page.screenshot(path=where)
        if whole > height:
            self.page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
            self.page.wait_for_function(_DRAWN)
            self.page.screenshot(path=where.with_stem(f"{where.stem} end"))
        self.page.set_viewport_size(size)
        self.page.evaluate("window.scrollTo(0, 0)")


def nameless(page: Page) -> list[str]:
    """Controls and pictures without a name, as screen readers see the page."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {
        "button",
        "link",
        "checkbox",
        "radio",
        "combobox",
        "searchbox",
        "textbox",
        "image",
        "progressbar",
        "dialog",
    }
    shown = [node for node in tree if not node["ignored"] and node.get("role", {}).get("value") in roles]
    assert len(shown) > 20
    return [node["role"]["value"] for node in shown if not node.get("name", {}).get("value", "").strip()]
