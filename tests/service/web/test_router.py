"""Addresses of views: old ones, wrong ones, links, Back and reload, in a real browser."""

import pytest

from tests.service.web.acting import ADMIN, drop, expect, expect_cameras, expect_ranks

pytestmark = pytest.mark.browser


def place(tab):
    return tab.evaluate("location.pathname + location.search + location.hash")


@pytest.mark.parametrize("root", ["", "/reid"])
def test_old_addresses_and_wrong_ones_lead_on(serve, open_page, herd, refused, root):
    client = serve(root_path=root, require_keys=bool(root), admin_key=ADMIN if root else None)
    tab = open_page(client, "/?cameras=south#search")
    if root:  # below a path there is a proxy, and who comes through one needs a key
        refused.add(401)
        tab.get_by_label("API key").fill(ADMIN)
        tab.keyboard.press("Enter")
    expect(tab.locator("#cameras button[aria-pressed=true]")).to_contain_text("south")
    assert place(tab) == f"{root}/#/search?cameras=south"
    for old, new in (("/#browse", "#/browse"), ("/?cameras=south#browse", "#/browse"), ("/#add", "#/imports")):
        tab.goto("about:blank")
        tab.goto(str(client.base_url).rstrip("/") + old)
        expect(tab.locator(f"#{new[2:]}-view")).to_be_visible()
        assert place(tab) == f"{root}/{new}"
    tab.evaluate("location.hash = '#/nowhere'")
    expect(tab.locator("#home-view")).to_be_visible()
    expect(tab.locator("#toasts")).to_contain_text('This page has no view "nowhere".')


def test_a_link_leads_back_to_where_a_view_was_left(client, open_page, herd, picture):
    tab = open_page(client)
    expect(tab.get_by_role("heading", name="Home")).to_be_visible()
    expect(tab.locator("nav a[aria-current=page]")).to_have_text("Home")
    drop(tab, picture(0))
    tab.locator("#cameras button", has_text="south").click()
    expect_cameras(tab, ["south"] * 3)
    links = tab.locator("nav")
    links.get_by_role("link", name="Browse").click()
    assert place(tab) == "/#/browse"  # no filters of another view
    links.get_by_role("link", name="Search").click()
    expect_cameras(tab, ["south"] * 3)
    expect(tab.locator("#subject li")).to_have_count(1)
    tab.go_back()
    expect(tab.locator("#browse-view")).to_be_visible()
    tab.go_back()
    expect_cameras(tab, ["south"] * 3)
    tab.locator("#cameras button", has_text="south").click()
    expect_ranks(tab, range(1, 7))
    tab.go_back()
    expect(tab.locator("#home-view")).to_be_visible()
