"""Individuals: found, renamed, merged, split and taken home, in a real browser."""

import csv
import re
from pathlib import Path

import pytest

from tests.service.web.acting import ADMIN, expect
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def ids(client, herd):
    """The ids of nyala 0, 1 and 2, of two photos each."""
    return [herd[number]["identity_id"] for number in (0, 2, 4)]


def individual(client, identity_id):
    return client.get(f"/v1/identities/{identity_id}").json()


def confirm(tab, *said):
    dialog = tab.get_by_role("dialog")
    for words in said:
        expect(dialog).to_contain_text(words)
    dialog.get_by_role("button", name="Do it").click()


def undo(tab):
    tab.locator("#toasts").get_by_role("button", name="Undo").last.click()


def test_individuals_are_found_and_back_leads_to_the_list(client, open_page, herd, ids):
    client.post("/v1/identities", json={"name": "NYALA  1"})
    tab = open_page(client, "/#/individuals")
    cards = tab.locator(".individuals .card")
    expect(tab.get_by_text("3 individuals.")).to_be_visible()
    tab.get_by_label("With names that have no photos").check()
    expect(cards).to_have_count(4)
    expect(tab.get_by_text("4 individuals.")).to_be_visible()
    expect(cards.nth(0)).to_contain_text("2 photos")
    expect(cards.nth(0)).to_contain_text("last seen 13 May 2024")
    expect(cards.nth(1)).to_contain_text("Spelt alike: NYALA 1")
    tab.locator("#individuals-view").get_by_label("Order").select_option("Seen last")
    expect(cards.first).to_contain_text("nyala 2")
    tab.get_by_label("Find a name").fill("LA 2")
    expect(cards).to_have_count(1)
    assert tab.evaluate("location.hash") == "#/individuals?empty=true&sort=last_seen&q=LA+2"
    cards.first.click()
    expect(tab.locator("#individuals-view h3")).to_contain_text("nyala 2")
    tab.reload()
    expect(tab.locator("#individuals-view")).to_contain_text("north, south")
    expect(tab.get_by_label("Photos, by time").locator(".card time")).to_have_text(
        ["16 May 2024, 12:00 UTC", "17 May 2024, 12:00 UTC"]
    )
    near = tab.get_by_label("Look-alikes").get_by_role("link")
    expect(near).to_have_count(2)
    tab.go_back()
    expect(cards).to_have_count(1)
    expect(tab.get_by_label("Find a name")).to_have_value("LA 2")


def test_an_individual_is_renamed_merged_split_and_all_of_it_undone(client, open_page, herd, ids):
    zero, one, _ = ids
    tab = open_page(client, f"/#/individuals/{zero}")
    name = tab.get_by_label("Name", exact=True)
    heading = tab.locator("#individuals-view h3")
    name.fill("Nala")
    tab.get_by_role("button", name="Rename", exact=True).click()
    expect(heading).to_contain_text("Nala")
    undo(tab)
    expect(heading).to_contain_text("nyala 0")
    assert (individual(client, zero)["name"], individual(client, zero)["aliases"]) == ("nyala 0", [])
    name.fill("NYALA 1")
    tab.get_by_role("button", name="Rename", exact=True).click()
    expect(tab.get_by_role("alert").filter(has_text='"nyala 1" is spelt alike. (2 photos)')).to_be_visible()
    tab.get_by_role("button", name="Merge into nyala 1").click()
    confirm(tab, "2 photos: nyala 0 → nyala 1")
    expect(tab.locator("#individuals-view")).to_contain_text("was merged into nyala 1")
    tab.locator("#individuals-view").get_by_role("link", name="nyala 1").click()
    expect(heading).to_contain_text("4 photos")
    expect(tab.get_by_role("region", name="Photos, by time").get_by_role("listitem")).to_have_count(4)  # they move it
    tab.get_by_label("Merged into this one").get_by_role("button", name="Give it back its photos").click()
    confirm(tab, "2 photos: nyala 1 → nyala 0")
    expect(heading).to_contain_text("2 photos")
    tab.get_by_label("Select 14 May 2024, 12:00 UTC").check()
    tab.get_by_label("Name of who they are (optional)").fill("Zazu")
    tab.get_by_role("button", name="Split off").click()
    confirm(tab, "1 photo: nyala 1 → another individual")
    expect(heading).to_contain_text("1 photo")
    assert client.get(f"/v1/items/{herd[2]['item_id']}").json()["label"] == "Zazu"
    undo(tab)
    expect(heading).to_contain_text("2 photos")
    assert {item["label"] for item in individual(client, one)["items"]} == {"nyala 1"}
    tab.get_by_label("Notes").fill("shy")
    tab.get_by_label("Aliases").fill("Ny, la")
    tab.get_by_role("button", name="Save", exact=True).click()
    expect(tab.locator("#toasts")).to_contain_text("saved.")
    assert (individual(client, one)["notes"], individual(client, one)["aliases"]) == ("shy", ["Ny", "la"])


def test_an_outage_keeps_what_is_shown_and_ends_by_itself(client, open_page, ids):
    tab = open_page(client, "/#/individuals")
    cards = tab.locator(".individuals .card")
    expect(cards).to_have_count(3)
    tab.context.set_offline(True)
    tab.get_by_label("Find a name").fill("nyala 2")
    problem = tab.get_by_role("alert").filter(has_text="cannot be reached")
    expect(problem).to_be_visible()
    expect(cards).to_have_count(3)
    tab.context.set_offline(False)
    expect(cards).to_have_count(1)
    expect(problem).to_have_count(0)
    tab.context.set_offline(True)
    cards.first.click()
    expect(problem).to_be_visible()
    tab.context.set_offline(False)
    expect(tab.locator("#individuals-view h3")).to_contain_text("nyala 2")
    expect(problem).to_have_count(0)


def test_the_table_is_taken_home(client, open_page, herd):
    tab = open_page(client, "/#/individuals")
    tab.get_by_text("Take the table home, or add somebody").click()
    with tab.expect_download() as loading:
        tab.get_by_role("link", name="Download").click()
    rows = list(csv.DictReader(Path(loading.value.path()).read_text(encoding="utf-8-sig").splitlines()))
    assert loading.value.suggested_filename == "who_is_who.csv"
    assert [row["name"] for row in rows] == [item["label"] for item in herd]
    tab.locator(".tools select").select_option("Wildbook's sheet")
    expect(tab.get_by_role("link", name="Download")).to_have_count(0)
    tab.get_by_label("Species").fill("Tragelaphus angasii")
    with tab.expect_download() as loading:
        tab.get_by_role("link", name="Download").click()
    assert "Encounter.genus" in Path(loading.value.path()).read_text()


def test_the_table_suggests_once_there_is_a_review(client, open_page, herd, refused):
    refused.add(409)
    tab = open_page(client, "/#/individuals")
    tab.get_by_text("Take the table home, or add somebody").click()
    kinds, link = tab.locator(".tools select"), tab.get_by_role("link", name="Download")
    kinds.select_option("Table with whom open photos may show")
    expect(tab.get_by_role("alert").filter(has_text="no review was started")).to_be_visible()
    expect(link).to_have_count(0)
    started = client.post("/v1/review/start", json={})
    wait_until(lambda: client.get(started.headers["location"]).json()["state"] == "done")
    wait_until(lambda: client.get("/v1/review/status").status_code == 200)
    kinds.select_option("Table (CSV)")
    kinds.select_option("Table with whom open photos may show")
    expect(link).to_have_attribute("href", re.compile("likely=true"))
    with tab.expect_download() as loading:
        link.click()
    rows = csv.DictReader(Path(loading.value.path()).read_text(encoding="utf-8-sig").splitlines())
    assert len(list(rows)) == len(herd)


def test_who_may_only_read_changes_nothing(serve, open_page, herd, ids, refused):
    refused.add(401)
    guarded = serve(require_keys=True, admin_key=ADMIN)
    guarded.headers["X-API-Key"] = ADMIN
    secret = guarded.post("/v1/admin/keys", json={"name": "reader", "scopes": ["read"]}).json()["secret"]
    tab = open_page(guarded, f"/#/individuals/{ids[0]}")
    dialog = tab.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("API key").fill(secret)
    dialog.get_by_role("button", name="Sign in").click()
    expect(tab.locator("#individuals-view")).to_contain_text("may look, but not change")
    for control in ("form", "button", "input"):
        expect(tab.locator("#individuals-view").locator(control)).to_have_count(0)


def test_a_corrected_label_leaves_no_individual_without_photos(client, open_page, enrol):
    enrol([{"label": "Zazzu", "captured_at": "2024-05-12T23:30:00+09:00"}])
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").click()
    tab.locator("#viewer").get_by_label("Label").fill("Zazu")
    tab.keyboard.press("Enter")
    expect(tab.locator("#viewer-state")).to_have_text("Labelled Zazu.")
    tab.get_by_role("button", name="Close").click()
    tab.locator("nav").get_by_role("link", name="Individuals").click()
    expect(tab.get_by_text("1 individual.")).to_be_visible()
    card = tab.locator(".individuals .card")
    expect(card).to_contain_text("Zazu")
    expect(card).to_contain_text("last seen 12 May 2024, 23:30 +09:00")  # the clock of its camera, not of the viewer
    tab.locator("#toasts").get_by_role("button", name="Undo").click()
    tab.get_by_label("With names that have no photos").check()
    expect(tab.locator(".individuals .card b")).to_have_text(["Zazu", "Zazzu"])
    card.last.click()
    expect(tab.locator("#individuals-view .about-one")).to_contain_text("12 May 2024, 23:30 +09:00")


def test_attributes_are_told_and_edited_and_taken_back(client, open_page, herd, ids):
    before = {"sex": "female", "collars": [7, 9]}
    client.patch(f"/v1/identities/{ids[0]}", json={"attributes": before})
    tab = open_page(client, f"/#/individuals/{ids[0]}")
    form = tab.get_by_role("form", name="Attributes")
    expect(form.get_by_label("Value of collars")).to_have_value("[7,9]")
    form.get_by_label("Value of sex").fill("male")
    form.get_by_role("button", name="Another attribute").click()
    form.get_by_label("Name of attribute 3").fill("sex")
    expect(form.get_by_role("alert")).to_have_text("There are two attributes called sex.")
    expect(form.get_by_role("button", name="Save the attributes")).to_be_disabled()
    form.get_by_label("Name of attribute 3").fill("age")
    form.get_by_label("Value of age").fill("5 years")
    form.get_by_role("button", name="Save the attributes").click()
    expect(tab.locator("#toasts")).to_contain_text("saved.")
    after = {"sex": "male", "collars": [7, 9], "age": "5 years"}
    assert individual(client, ids[0])["attributes"] == after  # and the numbers are numbers still
    undo(tab)
    expect(form.get_by_label("Value of sex")).to_have_value("female")
    assert individual(client, ids[0])["attributes"] == before
    form.get_by_role("button", name="Take out collars").click()
    form.get_by_role("button", name="Save the attributes").click()
    expect(form.get_by_label("Value of collars")).to_have_count(0)
    assert individual(client, ids[0])["attributes"] == {"sex": "female"}


def test_names_have_one_order_in_the_page_and_in_the_service(client, open_page, enrol):
    names = ["N10", "N2", "n1", "N2 b", "Zoe", "ada 12", "ada 3"]
    enrol([{"label": name, "camera": name} for name in names])
    tab = open_page(client, "/#/individuals")
    expect(tab.locator(".individuals .card b")).to_have_text(["ada 3", "ada 12", "n1", "N2", "N2 b", "N10", "Zoe"])
    served = [one["name"] for one in client.get("/v1/identities").json()["identities"]]
    sorted_here = """async (names) => {
        const { inOrder } = await import(new URL("static/format.js", location.href.split("#")[0]));
        return names.toSorted(inOrder);
    }"""
    assert tab.evaluate(sorted_here, names) == served
