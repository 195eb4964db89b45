"""The large view of a photo: what it says, edits and deletes, in a real browser."""

import pytest

from tests.service.web.acting import cards, drop, expect, expect_ranks
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def test_a_match_is_enlarged_with_all_that_is_known(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(2))
    cards(tab).first.click()
    dialog = tab.get_by_role("dialog", name="Match 1")
    expect(dialog.locator("#viewer-details")).to_contain_text("20 \N{MULTIPLICATION SIGN} 30 pixels")
    for text in ("1.000000", "nyala 1", "north", "14 May 2024", "14:00:00 GMT+2", "2.png", herd[2]["item_id"]):
        expect(dialog.locator("#viewer-details")).to_contain_text(text)
    for name in ("image", "subject"):
        expect(dialog.locator(f"#viewer-{name}")).to_have_js_property("naturalWidth", 20)
    expect(dialog.locator("#viewer-overlay")).to_be_hidden()
    dialog.get_by_role("button", name="Attention").click()
    expect(dialog.locator("#viewer-overlay")).to_be_visible()
    tab.keyboard.press("ArrowRight")
    expect(tab.get_by_role("dialog", name="Match 2")).to_be_visible()
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator("#viewer-previous")).to_be_disabled()
    tab.keyboard.press("Escape")
    expect(cards(tab).first).to_be_focused()


def test_a_label_is_saved_and_shown_everywhere(client, open_page, herd, picture):
    tab = open_page(client)
    tab.locator("nav").get_by_role("link", name="Browse").click()
    expect(tab.locator("#enrolled .card")).to_have_count(6)
    tab.locator("nav").get_by_role("link", name="Search").click()
    drop(tab, picture(5))
    cards(tab).first.click()
    tab.locator("#viewer").get_by_label("Label").fill("Zazu")
    tab.keyboard.press("Enter")
    expect(tab.locator("#viewer-state")).to_have_text("Labelled Zazu.")
    expect(tab.locator("#viewer-details")).to_contain_text("Zazu")
    assert client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] == "Zazu"
    tab.get_by_role("button", name="Close").click()
    expect(cards(tab).first.locator(".label")).to_have_text("Zazu")
    expect(tab.locator("#labels button", has_text="Zazu")).to_be_visible()
    expect(tab.locator("#label-names option[value=Zazu]")).to_have_count(1)
    tab.locator("nav").get_by_role("link", name="Browse").click()
    expect(tab.locator("#enrolled .card").first).to_contain_text("Zazu")
    tab.locator("#enrolled .card").first.click()
    tab.locator("#viewer").get_by_label("Label").fill("")
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator("#viewer-state")).to_have_text("Label taken away.")
    assert client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] is None


def test_a_delete_can_be_taken_back(client, open_page, herd, picture):
    tab = open_page(client, clock=True)
    drop(tab, picture(1))
    expect_ranks(tab, range(1, 7))
    cards(tab).nth(2).click()
    tab.get_by_role("button", name="Delete").click()
    expect_ranks(tab, [1, 2, 4, 5, 6])
    expect(cards(tab).nth(2)).to_be_focused()
    tab.get_by_role("button", name="Undo").click()
    expect_ranks(tab, range(1, 7))
    tab.keyboard.press("Delete")
    expect_ranks(tab, [1, 2, 4, 5, 6])
    tab.keyboard.press("Control+z")
    expect_ranks(tab, range(1, 7))
    tab.clock.run_for(60_000)
    expect(tab.locator("#toasts p")).to_have_count(0)
    assert client.get("/health/ready").json()["items"] == 6


def test_a_delete_is_done_when_the_time_has_passed(client, open_page, herd, picture):
    tab = open_page(client, clock=True)
    drop(tab, picture(1))
    expect_ranks(tab, range(1, 7))
    cards(tab).first.focus()
    tab.keyboard.press("Delete")
    expect(tab.locator("#toasts")).to_contain_text("Deleted nyala 0.")
    assert client.get(f"/v1/items/{herd[1]['item_id']}").status_code == 200
    tab.clock.run_for(9_000)
    expect(tab.locator("#gallery-state")).to_have_text("5 photos")
    assert client.get(f"/v1/items/{herd[1]['item_id']}").status_code == 404


def test_a_delete_is_done_when_the_page_is_left(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(1))
    cards(tab).first.focus()
    tab.keyboard.press("Delete")
    expect(tab.locator("#toasts")).to_contain_text("Deleted")
    tab.goto("about:blank")
    wait_until(lambda: client.get(f"/v1/items/{herd[1]['item_id']}").status_code == 404)


def test_a_delete_that_is_refused_comes_back(client, open_page, herd, picture, refused):
    refused.add(507)
    tab = open_page(client, clock=True)
    drop(tab, picture(1))
    tab.route("**/v1/items/*", lambda route: route.fulfill(status=507, json={"detail": "the disk is full"}))
    cards(tab).first.focus()
    tab.keyboard.press("Delete")
    expect_ranks(tab, range(2, 7))
    tab.clock.run_for(9_000)
    expect(tab.locator("#toasts")).to_have_text("Not deleted: the disk is full")
    expect_ranks(tab, range(1, 7))


def test_all_that_is_said_of_a_photo_is_edited_and_taken_back(client, open_page, herd, refused):
    refused.add(422)
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").first.click()
    viewer = tab.locator("#viewer")
    shown = viewer.locator("#viewer-details code").text_content()
    before = client.get(f"/v1/items/{shown}").json()
    viewer.get_by_text("Camera, site, time and viewpoint").click()
    expect(viewer.get_by_label("Camera")).to_have_value(before["camera"])
    viewer.get_by_label("Time, with its zone").fill("noon")
    viewer.get_by_role("button", name="Save").click()
    expect(tab.locator("#viewer-state")).to_contain_text("captured_at")
    assert client.get(f"/v1/items/{shown}").json() == before
    viewer.get_by_label("Camera").fill("gate")
    viewer.get_by_label("Site").fill("river")
    viewer.get_by_label("Time, with its zone").fill("2024-03-01T06:41:00+02:00")
    viewer.get_by_label("Viewpoint").fill("left")
    viewer.get_by_role("button", name="Save").click()
    expect(tab.locator("#viewer-state")).to_have_text("Saved: Camera, Site, Viewpoint, Time.")
    saved = client.get(f"/v1/items/{shown}").json()
    assert [saved[name] for name in ("camera", "site", "viewpoint", "label")] == [
        "gate",
        "river",
        "left",
        before["label"],
    ]
    assert saved["captured_at"].startswith("2024-03-01T06:41:00")
    expect(tab.locator("#viewer-details")).to_contain_text("gate")
    viewer.get_by_role("button", name="Save").click()
    expect(tab.locator("#viewer-state")).to_have_text("Nothing was changed.")
    viewer.get_by_role("button", name="Close").click()
    tab.keyboard.press("Control+z")
    wait_until(lambda: client.get(f"/v1/items/{shown}").json()["camera"] == before["camera"])
    taken = client.get(f"/v1/items/{shown}").json()
    assert [taken[name] for name in ("site", "viewpoint", "captured_at")] == [
        before[name] for name in ("site", "viewpoint", "captured_at")
    ]


def test_a_photo_is_put_into_a_shortlist_from_where_it_is_seen(client, open_page, herd, picture):
    tab = open_page(client)
    tab.on("dialog", lambda dialog: dialog.accept("For Monday"))
    drop(tab, picture(2))
    cards(tab).first.click()
    tab.get_by_role("button", name="Add to shortlist").click()
    expect(tab.locator("#toasts")).to_contain_text("1 added to For Monday.")
    assert [one["name"] for one in client.get("/v1/shortlists").json()["shortlists"]] == ["For Monday"]
    tab.locator("#viewer").get_by_role("button", name="Close").click()
    tab.get_by_role("button", name="Open").click()
    expect(tab.locator("#shortlists-view")).to_contain_text("For Monday")


def test_what_was_typed_is_saved_when_the_photo_is_left(client, open_page, herd):
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").first.click()
    viewer = tab.locator("#viewer")
    viewer.get_by_label("Label").fill("Zazu")
    viewer.get_by_role("button", name="Next").click()
    expect(viewer.get_by_role("heading", name="Photo 2")).to_be_visible()
    expect(viewer.get_by_text("Labelled Zazu.")).to_be_visible()
    wait_until(lambda: client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] == "Zazu")
    viewer.get_by_label("Label").fill("Kora")
    viewer.get_by_role("button", name="Close").focus()
    tab.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    wait_until(lambda: client.get(f"/v1/items/{herd[4]['item_id']}").json()["label"] == "Kora")
    expect(tab.locator("#enrolled .label", has_text="Kora")).to_have_count(1)
    tab.keyboard.press("Control+z")
    wait_until(lambda: client.get(f"/v1/items/{herd[4]['item_id']}").json()["label"] == "nyala 2")
    assert client.get(f"/v1/items/{herd[3]['item_id']}").json()["label"] == "nyala 1"


def test_what_cannot_be_saved_is_kept_until_it_can(client, open_page, herd, refused):
    refused.add(503)
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").first.click()
    viewer = tab.locator("#viewer")
    down = {"status": 503, "json": {"detail": "no disk is left", "code": "full"}}
    not_saved = []

    def answer(one):
        if one.request.method != "PATCH":
            return one.continue_()
        not_saved.append(one.request)
        return one.fulfill(**down)

    tab.route("**/v1/items/*", answer)
    viewer.get_by_label("Label").fill("Zazu")
    viewer.get_by_role("button", name="Next").click()
    expect(viewer.get_by_text("Not saved, and kept here: Zazu. no disk is left")).to_be_visible()
    viewer.get_by_role("button", name="Previous").click()
    expect(viewer.get_by_label("Label")).to_have_value("Zazu")
    expect(tab.locator("#viewer-state")).to_have_text("What was typed here is not saved yet.")
    viewer.get_by_role("button", name="Close").click()
    # To close it tries once more, which must be refused, too, before the way is open.
    wait_until(lambda: tab.evaluate("() => true") and len(not_saved) == 2)
    expect(tab.locator("#toasts")).to_contain_text("Not saved")
    tab.unroute("**/v1/items/*")
    tab.locator("#toasts").get_by_role("button", name="Try again").last.click()
    wait_until(lambda: client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] == "Zazu")


def test_messages_and_undo_are_above_the_large_view_and_reached_by_keys(client, open_page, herd):
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").first.click()
    viewer = tab.locator("#viewer")
    viewer.get_by_label("Label").fill("Zazu")
    viewer.get_by_label("Label").press("Enter")
    undo = viewer.get_by_role("button", name="Undo")
    expect(undo).to_be_visible()
    # Nothing lies over it, and Tab comes to it.
    box = undo.bounding_box()
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    assert tab.evaluate("([x, y]) => document.elementFromPoint(x, y).textContent", middle) == "Undo"
    viewer.get_by_role("button", name="Delete").focus()
    tab.keyboard.press("Tab")
    expect(undo).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#viewer-state")).to_have_text("Taken back.")
    assert client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] == "nyala 2"
    viewer.get_by_label("Label").fill("Kora")
    viewer.get_by_label("Label").press("Enter")
    expect(tab.locator("#viewer-state")).to_have_text("Labelled Kora.")
    viewer.get_by_role("button", name="Close").focus()
    tab.keyboard.press("Control+z")
    expect(tab.locator("#viewer-state")).to_have_text("Taken back.")
    tab.keyboard.press("Escape")
    expect(tab.locator("body > #toasts")).to_have_count(1)
