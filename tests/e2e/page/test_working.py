"""The page in a real browser, worked with: each action does what it says, by mouse and by keyboard, beside a running server."""

from __future__ import annotations

import re
import zipfile

from board import PATIENCE_MS, REACHABLE
from browser import needs_chromium
from playwright.sync_api import expect

from page.state import FRAMES, answer, label, serve

pytestmark = needs_chromium


def free_images(server) -> list[str]:
    """Images of the queue that nobody holds and nobody passed by, the next one first."""
    return [e["image"] for e in answer(server, "queue", state="free", limit=FRAMES)["entries"]]


def holding_still(board, server) -> None:
    """From now on the page does not hear of what changes."""
    known = answer(server, "changes")
    board.page.route("**/loco/page/changes", lambda route: route.fulfill(json=known))


def only(board, image: str) -> None:
    """Search for one image, wherever in the queue it is."""
    board.panel("next", "search").fill(image)
    expect(board.page.locator("#next .study")).to_have_count(1)


def test_an_image_is_pinned_and_passed_by(server, project, board):
    board.open()
    image, last = free_images(server)[0], free_images(server)[-1]
    only(board, last)
    board.card(last).get_by_role("button", name=f"Pin {last}").click()
    board.announced(f"{last} is pinned: it is served before all others.")
    board.panel("next", "search").fill("")
    expect(board.page.locator("#next .study").first).to_have_attribute("data-key", last)
    expect(board.card(last)).to_contain_text("pinned")
    assert serve(server, "dora") == last

    only(board, last)
    expect(board.card(last)).to_contain_text("Held by dora")
    board.card(last).get_by_role("button", name=f"Unpin {last}").click()
    board.announced(f"{last} is no longer pinned.")
    assert not [e for e in answer(server, "queue", limit=FRAMES)["entries"] if e["pin"]]

    before = board.count("skipped")
    only(board, image)
    board.card(image).get_by_role("button", name=f"Pass {image} by").click()
    dialog = board.page.locator("#skip-dialog")
    expect(dialog.get_by_role("radio")).to_have_count(5)
    dialog.get_by_role("radio", name=re.compile("^irrelevant")).check()
    dialog.get_by_label("Your name").fill("ann")
    dialog.get_by_role("button", name="Pass by").click()
    board.announced(f"{image} was passed by: irrelevant.")
    groups = {group["reason"]: group for group in answer(server, "summary")["skipped"]}
    assert [(s["image"], s["client"]) for s in groups["irrelevant"]["images"]] == [(image, "ann")]
    expect(board.panel("progress", "skips")).to_contain_text("irrelevant")
    board.until(lambda: board.count("skipped") == before + 1, "it is counted")


def test_a_refusal_is_said_beside_the_button(server, project, board, root):
    board.open()
    image = free_images(server)[0]
    only(board, image)
    holding_still(board, server)
    label(server, image, root, "fay")
    refused = server.post("/loco/page/pin", json={"image": image})
    assert refused.status_code == 409
    board.card(image).locator("[data-part=pin]").click()
    sentence = refused.json()["detail"]
    expect(board.card(image).locator(".said")).to_have_text(sentence[0].upper() + sentence[1:] + ".")
    expect(board.card(image).locator("[data-part=pin]")).to_have_attribute("aria-pressed", "false")
    board.forgive()  # the browser notes the 409


def test_the_page_follows_without_reload_and_leaves_the_reader_in_peace(server, project, board, root):
    board.open()
    search = board.panel("next", "search")
    search.fill("frame")
    place = search.bounding_box()["y"]
    assert board.page.evaluate("window.scrollY") > 0
    labelled = board.count("labelled")
    image = serve(server, "emil")
    label(server, image, root, "emil")
    board.until(lambda: board.count("labelled") == labelled + 1, "the label is counted")
    expect(board.page.locator("#labels tbody tr").first).to_contain_text("emil")
    expect(search).to_be_focused()
    assert search.input_value() == "frame"
    board.until(lambda: abs(search.bounding_box()["y"] - place) < 2, "the reader sees the same part of the page")

    board.page.context.set_offline(True)
    expect(board.page.locator("#connection")).to_contain_text("Offline, last seen")
    assert board.count("labelled") == labelled + 1, "what is known stays"
    board.page.context.set_offline(False)
    expect(board.page.locator("#connection")).to_have_text("Live")
    board.forgive()  # the browser notes each request that failed while it was offline


def test_a_training_is_started_watched_and_stopped(server, project, board, shots):
    board.open()
    before = answer(server, "learning")["training"]["run"]
    board.panel("training", "start").click()
    expect(board.panel("training", "steps")).to_contain_text(" of 200")
    expect(board.panel("training", "status")).to_have_text("running")
    expect(board.panel("training", "facts")).to_contain_text("Mask ratio")
    expect(board.panel("training", "facts")).to_contain_text("Loss contrast")
    expect(board.panel("training", "steps")).to_contain_text("left")
    board.panel("training", "losses").locator("> summary").click()
    expect(board.panel("training", "losses").locator(".plot .series").first).to_be_visible()
    assert 0 < float(board.panel("training", "bar").get_attribute("value")) <= 1
    board.page.locator("#training").screenshot(path=shots / "training.png")
    board.panel("training", "stop").click()
    expect(board.panel("training", "status")).to_have_text("stopped")
    expect(board.panel("training", "start")).to_be_visible()
    run = answer(server, "learning")["training"]
    assert (run["status"], run["run"] > before) == ("stopped", True)


def test_a_version_is_rolled_back_and_taken_away(server, project, board):
    board.open()
    models = answer(server, "models")
    live, other = models["live"], next(v["version"] for v in models["versions"] if v["can_go_live"])
    board.version(other).get_by_role("button", name="Roll back").click()
    dialog = board.page.locator("#confirm-dialog")
    expect(dialog).to_contain_text(f"Roll back to version {other}?")
    dialog.get_by_role("button", name="Cancel").click()
    assert answer(server, "models")["live"] == live
    board.version(other).get_by_role("button", name="Roll back").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(board.version(other).locator("[data-part=live]")).to_be_visible()
    expect(board.version(live).locator("[data-part=live]")).to_be_hidden()
    assert answer(server, "models")["live"] == other
    reply = server.post("/infer/frame", params={"image": project["held"], "output": "json"}, data={"params": "{}"})
    assert reply.json()["model_version"] == other

    with board.page.expect_download(timeout=2 * PATIENCE_MS) as download:
        board.version(other).get_by_role("button", name="Make bundle").click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert f"loco_frame_v{other}/configs/metadata.json" in names
    expect(board.version(other).get_by_role("link", name=f"Download the bundle of version {other}")).to_be_visible()


def test_everything_is_reached_and_done_with_the_keyboard(server, project, board):
    board.open()
    holding_still(board, server)
    page = board.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.evaluate("document.activeElement.blur()")
    wanted, reached = set(page.evaluate(REACHABLE)), set()
    for _ in range(3 * len(wanted)):
        page.keyboard.press("Tab")
        number, outline = page.evaluate(
            "() => [document.activeElement.dataset.number ?? '',"
            " parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
        )
        assert not number or outline >= 2, "what has the focus is marked"
        reached.add(number)
        if wanted <= reached:
            break
    assert wanted - reached == set(), page.evaluate(
        "n => n.map(i => document.querySelector(`[data-number='${i}']`)?.outerHTML)", sorted(wanted - reached)
    )

    page.unroute("**/loco/page/changes")
    image = free_images(server)[1]
    only(board, image)
    pin = board.card(image).locator("[data-part=pin]")
    pin.focus()
    page.keyboard.press("Enter")
    board.announced(f"{image} is pinned: it is served before all others.")
    expect(pin).to_be_focused()
    page.keyboard.press("Space")
    board.announced(f"{image} is no longer pinned.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dialog = page.locator("#skip-dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(board.card(image).locator("[data-part=skip]")).to_be_focused()
