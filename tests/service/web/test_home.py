"""Home: the first steps where there is nothing, what there is, and what waits, in a real browser."""

import pytest

from tests.service.web.acting import expect
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def test_the_first_steps_of_an_empty_gallery_lead_where_they_say(client, open_page, refused):
    refused.add(409)  # Review, where there is none
    tab = open_page(client)
    home = tab.locator("#home-view")
    expect(home.get_by_role("heading", level=3)).to_have_text(["Add photos", "Name whom you know", "Search"])
    for button, view in (("Add photos", "imports"), ("Review", "review"), ("Search", "search")):
        tab.goto(f"{client.base_url}/#/home")
        home.get_by_role("link", name=button).click()
        expect(tab.locator(f"#{view}-view")).to_be_visible()


def test_what_there_is_and_what_waits(client, open_page, herd):
    tab = open_page(client)
    home = tab.locator("#home-view")
    expect(home.locator(".figures li")).to_have_text(["6 photos", "2 cameras", "3 individuals"])
    expect(home.locator(".latest img")).to_have_count(6)
    newest = client.get("/v1/items", params={"order": "newest"}).json()["items"]
    expect(home.locator(".latest a").first).to_have_attribute("href", f"#/search?item_id={newest[0]['item_id']}")
    home.get_by_role("link", name="Start a review").click()
    expect(tab.locator("#review-view form")).to_be_visible()
    client.post("/v1/review/start", json={"gold": 0}).raise_for_status()
    wait_until(lambda: client.get("/v1/review/next").status_code == 200)
    left = client.get("/v1/review/status").json()["questions_left"]
    tab.get_by_role("link", name="Home").click()
    expect(home).to_contain_text(f"About {left} questions until everybody is named")
    expect(home.get_by_role("link", name="Answer questions")).to_have_attribute("href", "#/review")
