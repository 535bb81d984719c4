"""The page in a real browser, looked at: each panel says what the server says, on each screen."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from board import CONTRASTS, OUTSIDE, SCREENS, Board, nameless
from browser import needs_chromium
from PIL import Image
from playwright.sync_api import expect

from page.state import FRAMES, LABELS, answer, finished

pytestmark = needs_chromium
PAGE = 12


def test_an_empty_project_says_what_to_do(server, board, shots):
    board.open()
    for panel, part, words in (
        ("progress", "no-days", "No label yet. Open an image in OHIF"),
        ("progress", "no-leases", "Nobody holds an image"),
        ("progress", "no-skips", "No image was passed by"),
        ("learning", "no-versions", "No model yet. Submit a few labels"),
        ("labels", "nothing", "No label yet"),
        ("models", "nothing", "No model yet"),
    ):
        expect(board.panel(panel, part)).to_contain_text(words)
        expect(board.panel(panel, part)).to_be_visible()
    assert (board.count("labelled"), board.count("waiting")) == (0, FRAMES)
    expect(board.panel("progress", "effort")).to_have_text(answer(server, "summary")["effort"]["sentence"])
    expect(board.panel("training", "start")).to_be_hidden()
    board.shot(shots / "0 empty.png")


def test_progress_shows_what_the_journal_holds(server, project, board):
    board.open()
    summary = answer(server, "summary")
    assert board.count("labelled") == summary["labelled"] == LABELS + 1
    assert (board.count("leased"), board.count("skipped")) == (1, 1)
    kinds = ("labelled", "leased", "skipped", "waiting", "aside")
    assert sum(board.count(kind) for kind in kinds) == summary["total"] == FRAMES
    expect(board.panel("progress", "leases")).to_contain_text(project["held"])
    expect(board.panel("progress", "leases")).to_contain_text("cleo, until")
    expect(board.panel("progress", "skips")).to_contain_text("unreadable")
    days = board.page.locator("#progress figure")
    days.locator("summary").click()
    expect(days.locator("tbody td").first).to_have_text(str(LABELS + 1))
    assert days.locator(".bar").count() == max(7, len(summary["per_day"]))


def test_learning_and_models_show_every_version(server, project, board):
    board.open()
    learning = answer(server, "learning")
    assert [v["version"] for v in learning["versions"]] == [1, 2, 3]
    measured = [v for v in learning["versions"] if v["dice"] is not None]
    assert [v["version"] for v in measured if v["comparable"]] == [2, 3], "the first was uploaded, and measured nowhere"
    for figure, first_column in (("by-labels", "labels"), ("by-version", "version")):
        chart = board.panel("learning", figure)
        chart.locator("summary").click()
        rows = [row.inner_text().split("\t") for row in chart.locator("tbody tr").all()]
        assert [int(row[0]) for row in rows] == [v[first_column] for v in measured]
        assert [row[3] for row in rows] == [f"{v['dice']:.2f} ± {v['sd']:.2f}" for v in measured]
        assert chart.locator(".plot .mark").count() == 2
        assert chart.locator(".plot .band").count() == 1, "the spread"
        assert chart.locator("svg[role=img] desc").text_content().startswith("The mean Dice went from")
    expect(board.panel("training", "waits")).to_contain_text("more labels")
    expect(board.panel("training", "status")).to_have_text("done")

    models = answer(server, "models")
    assert [v["live"] for v in models["versions"]].count(True) == 1
    for version in models["versions"]:
        entry = board.version(version["version"])
        expect(entry).to_contain_text(f"{version['dice']:.2f} on" if version["cases"] else "not measured")
        assert entry.locator("[data-part=live]").is_visible() == version["live"]
        expect(entry.get_by_role("button", name="Roll back")).to_be_visible(visible=version["can_go_live"])


def test_the_queue_shows_what_comes_next_and_why(server, project, board):
    board.open()
    found = answer(server, "queue", limit=PAGE)
    assert found["count"] > PAGE, "the page holds a part of the queue only"
    board.until(lambda: board.keys("next") == [e["image"] for e in found["entries"]], "the queue is shown")
    cards = board.page.locator("#next .study")
    for card, entry in zip(cards.all(), found["entries"], strict=True):
        reason = re.sub(r" \([^)]*\)", "", entry["reason"])  # the numbers in brackets are shown as bars
        expect(card.locator("[data-part=reason]")).to_contain_text(reason[1:])
        expect(card.locator("[data-part=open]")).to_have_attribute("href", entry["viewer"])
        ranked = [bar for bar in entry["bars"] if bar["ranked"]]
        assert ranked
        assert card.locator(".term dt").all_inner_texts() == [bar["label"].capitalize() for bar in ranked[:4]]
        expect(card.get_by_text("control", exact=True)).to_have_count(int(entry["control"]))

    seen = [e for e in found["entries"] if finished(server, e["image"], "contour", e["mark"]).status_code == 200]
    assert seen, "a live model that is not worse than the first sees some of the lesions"
    shown = board.card(seen[0]["image"])
    shown.scroll_into_view_if_needed()  # pictures are fetched when they come into view
    picture = shown.locator('img[data-layer="image"]')
    expect(picture).to_be_visible()
    board.page.wait_for_function("i => i.complete && i.naturalWidth >= 90", arg=picture.element_handle())
    contour, band = (shown.locator(f'img[data-layer="{name}"]') for name in ("contour", "band"))
    expect(contour).to_be_visible()
    expect(contour).to_have_attribute("alt", "Outline by the model")
    board.panel("next", "contour").uncheck()
    expect(contour).to_be_hidden()
    expect(band).to_be_hidden()
    board.panel("next", "band").check()
    drawn = finished(server, seen[0]["image"], "band", seen[0]["mark"])
    expect(band).to_be_visible(visible=drawn.status_code == 200)


def test_the_queue_is_paged_searched_and_sorted_by_the_server(server, project, board):
    board.open()
    count = answer(server, "queue")["count"]
    cards = board.page.locator("#next .study")
    board.panel("next", "following").click()
    expect(board.panel("next", "where")).to_contain_text(f"{PAGE + 1} to")
    expect(cards).to_have_count(min(PAGE, count - PAGE))
    board.panel("next", "search").fill(project["held"])
    expect(cards).to_have_count(1)
    expect(cards.first).to_contain_text("Held by cleo")
    board.panel("next", "search").fill("no such image")
    expect(board.panel("next", "nothing")).to_contain_text("No study in the queue is like that")
    board.panel("next", "search").fill("")
    for sort in ("image", "margin"):
        board.panel("next", "sort").select_option(sort)
        for descending in (False, True):
            entries = answer(server, "queue", sort=sort, descending=descending, limit=PAGE)["entries"]
            wanted = [entry["image"] for entry in entries]
            board.until(lambda wanted=wanted: board.keys("next") == wanted, f"sorted by {sort}")
            board.panel("next", "order").click()
    board.panel("next", "state").select_option("skipped")
    expect(cards).to_have_count(1)
    assert board.keys("next") == [project["skipped"]]

    with board.page.expect_navigation(url=re.compile("/ohif/.*StudyInstanceUIDs="), wait_until="commit"):
        cards.first.locator("[data-part=open]").click()
    assert board.page.evaluate("JSON.parse(sessionStorage.getItem('loco-reason')).image") == project["skipped"]
    board.forgive()  # from here on it is OHIF that speaks


def test_what_came_back_is_compared_with_the_draft(server, project, board, root):
    board.open()
    of_draft = {"search": project["drafted"]}
    server.wait_for(lambda: answer(server, "submissions", **of_draft)["entries"][0]["compared"] == "ready")
    (newest,) = answer(server, "submissions", **of_draft)["entries"]
    row = board.page.locator(f'#labels tr[data-key="{newest["id"]}"]')
    expect(row).to_contain_text(f"Dice {newest['comparison']['mean']:.2f}")
    expect(row).to_contain_text(f"{newest['comparison']['changed']:,} px")
    expect(row).to_contain_text("ann")
    expect(row.locator("[data-part=open]")).to_have_attribute("href", newest["viewer"])
    row.locator("[data-part=history]").click()
    dialog = board.page.locator("#versions-dialog")
    with board.page.expect_download() as download:
        dialog.get_by_role("link", name=re.compile("^Download")).first.click()
    mask = np.array(Image.open(download.value.path()))
    np.testing.assert_array_equal(mask, np.array(Image.open(root / "truth" / f"{project['drafted']}.png")))
    board.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(row.locator("[data-part=history]")).to_be_focused()

    worst = answer(server, "worst", limit=6)["entries"]
    assert worst
    shown = board.page.locator("#labels .study")
    assert [card.get_attribute("data-key") for card in shown.all()] == [case["image"] for case in worst]
    expect(shown.first).to_contain_text(f"Dice {worst[0]['mean']:.2f}")


def test_a_history_that_comes_late_is_not_shown_as_that_of_another_image(server, project, board):
    board.open()
    first, second = answer(server, "submissions", limit=2)["entries"]
    held = []
    board.page.route(re.compile(rf"/loco/labels\?image={first['image']}$"), lambda route: held.append(route))
    dialog, cancel = board.page.locator("#versions-dialog"), board.page.locator("#versions-dialog [data-part=cancel]")
    for entry in (first, second):
        board.page.locator(f'#labels tr[data-key="{entry["id"]}"] [data-part=history]').click()
        expect(dialog.locator("[data-part=image]")).to_have_text(entry["image"])
        if entry is first:
            cancel.click()
    links = dialog.get_by_role("link", name=re.compile("^Download"))
    expect(links.first).to_have_attribute("href", f"/loco/labels/{second['id']}/file")
    before = [link.get_attribute("href") for link in links.all()]
    with board.page.expect_response(lambda reply: f"image={first['image']}" in reply.url):
        held[0].continue_()
    board.page.evaluate("() => new Promise(done => setTimeout(done, 200))")
    assert [link.get_attribute("href") for link in links.all()] == before


@pytest.mark.parametrize("screen", SCREENS)
def test_on_every_screen(server, project, browser, shots, screen):
    context = browser.new_context(**SCREENS[screen], locale="en-GB", reduced_motion="reduce")
    board = Board(context.new_page(), server.url).open()
    page, width = board.page, SCREENS[screen]["viewport"]["width"]
    board.shot(shots / f"{screen}.png")
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out to the right"
    assert page.evaluate(OUTSIDE, width) == []
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("[...document.images].filter(i => !i.hasAttribute('alt')).length") == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 24)"
    assert dark == (SCREENS[screen]["color_scheme"] == "dark")
    assert nameless(page) == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter(h => h.checkVisibility()).map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    context.close()
    assert board.errors == []
