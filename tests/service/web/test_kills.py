"""A service that is killed in the middle of an edit: what was typed stays, and nothing is done twice."""

import pytest

from tests.service.web.acting import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def unanswered(outage):
    """A function that has a button of a tab do something, of which the service dies before it has answered."""

    def press(tab, client, path, button):
        def done(route):
            if '"dry_run":true' in (route.request.post_data or ""):
                route.continue_()
                return
            assert route.fetch().ok
            route.abort()

        tab.route(path, done)
        with tab.expect_event("requestfailed"):
            button.click()
        tab.unroute(path)
        with outage(client):
            yield_to_page(tab)

    return press


def yield_to_page(tab):
    """Have the page do what it does while the service is away."""
    tab.evaluate("() => fetch('health/live').catch(() => 'away')")


def steps(client, kind):
    return [one for one in client.get("/v1/admin/operations").json()["operations"] if one["kind"] == kind]


def test_an_edit_in_the_large_view(client, open_page, herd, unanswered):
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").first.click()
    viewer = tab.locator("#viewer")
    label = viewer.get_by_label("Label")
    before = label.input_value()
    label.fill("Zazu")
    save = viewer.get_by_role("button", name="Save")
    unanswered(tab, client, "**/v1/items/*", save)
    expect(viewer.get_by_role("status").first).to_contain_text("Whether this was saved is not known. It stays here")
    expect(label).to_have_value("Zazu")
    save.click()
    expect(viewer.get_by_role("status").first).to_contain_text("Labelled Zazu.")
    assert len(steps(client, "item.edit")) == 1
    viewer.get_by_role("button", name="Undo").click()
    expect(label).to_have_value(before)
    assert "Zazu" not in {item["label"] for item in client.get("/v1/items").json()["items"]}


def test_times_of_many_photos_are_moved_once(client, open_page, herd, unanswered):
    tab = open_page(client, "/#/browse")
    boxes = tab.locator("#enrolled input")
    for number in range(2):
        boxes.nth(number).check()
    bar = tab.get_by_role("region", name="Selected photos")
    bar.get_by_label("Change").first.select_option("shift")
    typed = bar.locator("form input")
    typed.fill("+1:00")
    apply = bar.locator("form button")
    before = {item["item_id"]: item["captured_at"][11:16] for item in client.get("/v1/items").json()["items"]}
    unanswered(tab, client, "**/v1/items/edit", apply)
    expect(tab.locator("#toasts")).to_contain_text("Whether the photos were changed is not known.")
    expect(typed).to_have_value("+1:00")
    apply.click()
    expect(tab.locator("#toasts").get_by_role("button", name="Undo")).to_be_visible()
    after = [item["captured_at"][11:16] for item in client.get("/v1/items").json()["items"]]
    assert sorted(after) == ["12:00"] * 4 + ["13:00"] * 2
    tab.locator("#toasts").get_by_role("button", name="Undo").click()
    expect(tab.locator("#toasts")).to_contain_text("Taken back.")
    assert {item["item_id"]: item["captured_at"][11:16] for item in client.get("/v1/items").json()["items"]} == before


def test_a_merge_that_was_done_is_seen_once_the_service_is_back(client, open_page, herd, unanswered):
    found = {one["name"]: one["identity_id"] for one in client.get("/v1/identities").json()["identities"]}
    tab = open_page(client, f"/#/individuals/{found['nyala 0']}")
    tab.get_by_label("Whom it is").fill("nyala 1")
    tab.get_by_role("button", name="Merge with another", exact=True).click()
    unanswered(tab, client, "**/merge", tab.get_by_role("dialog").get_by_role("button", name="Do it"))
    expect(tab.locator("#toasts")).to_contain_text("Whether this was done is not known")
    expect(tab.locator("#individuals-view")).to_contain_text("was merged into nyala 1")
    assert len(steps(client, "identity.merge")) == 1
