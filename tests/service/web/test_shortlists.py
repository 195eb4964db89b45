"""Shortlists on the page, in a real browser."""

import pytest

from tests.service.web.acting import expect

pytestmark = pytest.mark.browser


def test_photos_are_put_together_ordered_noted_and_taken_along(client, open_page, herd):
    tab = open_page(client, "/#browse")
    tab.on("dialog", lambda dialog: dialog.accept("For Monday" if dialog.type == "prompt" else ""))
    for place in (0, 2, 4):
        tab.locator("#enrolled li").nth(place).get_by_role("checkbox").check()
    tab.get_by_role("button", name="Add to shortlist").click()
    tab.locator("#toasts").get_by_role("button", name="Open").click()
    entries = tab.locator("#shortlists-view ol li")
    expect(entries.locator("b")).to_have_text(["1. nyala 2", "2. nyala 1", "3. nyala 0"])
    entries.nth(2).get_by_role("button", name="Up").click()
    expect(entries.locator("b")).to_have_text(["1. nyala 2", "2. nyala 0", "3. nyala 1"])
    entries.nth(1).get_by_label("Note").fill("left ear torn")
    tab.get_by_label("Notes", exact=True).fill("Is it the same?")
    tab.keyboard.press("Tab")
    entries.nth(0).get_by_role("button", name="Take out").click()
    expect(entries.locator("b")).to_have_text(["1. nyala 0", "2. nyala 1"])
    tab.reload()
    expect(entries.first.get_by_label("Note")).to_have_value("left ear torn")
    expect(tab.get_by_label("Notes", exact=True)).to_have_value("Is it the same?")
    for link, text in (("CSV table", "left ear torn"), ("HTML file with pictures", "data:image/jpeg;base64,")):
        with tab.expect_download() as download:
            tab.get_by_role("link", name=link).click()
        assert text in download.value.path().read_text()
    tab.emulate_media(media="print")
    expect(tab.get_by_role("button")).to_have_count(0)
    expect(entries.locator("img").first).to_be_visible()
    tab.emulate_media(media="screen")
    tab.get_by_role("button", name="Delete the shortlist").click()
    expect(tab.get_by_text("There is none yet.")).to_be_visible()
    assert len(client.get("/v1/items").json()["items"]) == 6
