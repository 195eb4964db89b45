"""What an operator does on the page, in a real browser."""

import pytest

from tests.service.web.acting import ADMIN, expect

pytestmark = pytest.mark.browser


@pytest.fixture
def operator(serve, open_page, herd):
    """The page of an operator, and a client with the same key."""
    client = serve(require_keys=True, admin_key=ADMIN)
    client.headers["X-API-Key"] = ADMIN
    return open_page(client, "/#/admin", extra_http_headers={"X-API-Key": ADMIN}), client


def test_a_camera_gets_another_name_or_becomes_one_with_another(operator):
    tab, client = operator
    tab.on("dialog", lambda dialog: dialog.accept())
    tab.get_by_label("New name of camera north").fill("gate")
    tab.keyboard.press("Enter")
    expect(tab.locator("#toasts")).to_contain_text("3 photos are of camera gate now.")
    tab.get_by_label("New name of camera gate").fill("south")
    tab.keyboard.press("Enter")
    expect(tab.locator("#toasts")).to_contain_text("3 photos are of camera south now.")
    assert client.get("/v1/cameras").json()["cameras"] == [{"name": "south", "items": 6}]
    tab.locator("#toasts p", has_text="south").get_by_role("button", name="Undo").click()
    expect(tab.get_by_label("New name of camera gate")).to_be_visible()


def test_what_there_is_none_of_is_said_in_a_sentence(serve, open_page):
    tab = open_page(serve(require_keys=True, admin_key=ADMIN), "/#/admin", extra_http_headers={"X-API-Key": ADMIN})
    for heading, sentence in (
        ("Cameras", "No photo has a camera."),
        ("Jobs", "No job was started yet."),
        ("Keys", "No key was made yet."),
    ):
        section = tab.get_by_role("region", name=heading, exact=True)
        expect(section).to_contain_text(sentence)
        expect(section.get_by_role("table")).to_have_count(0)


def test_jobs_are_started_and_watched(operator):
    tab, _ = operator
    expect(tab.get_by_text("No job was started yet.")).to_be_visible()
    tab.get_by_role("button", name="Check").click()
    expect(tab.get_by_role("row").filter(has_text="check")).to_contain_text("done")


def test_the_room_the_model_and_what_a_job_would_do_are_told(operator, gallery):
    tab, client = operator
    disk = tab.get_by_role("region", name="Disk")
    expect(disk.get_by_role("row").filter(has=tab.get_by_role("rowheader", name="Photos", exact=True))).to_contain_text(
        "6"
    )
    expect(disk).to_contain_text("There is room for about")
    model = tab.get_by_role("region", name="Model and calibration")
    told = client.get("/v1/admin/model").json()
    expect(model).to_contain_text(told["checksum"])
    expect(model).to_contain_text("none: there is no calibration beside the model")
    expect(model).to_contain_text(told["engine"]["how"])
    tab.get_by_role("button", name="Try a re-index").click()
    expect(tab.get_by_role("row").filter(has_text="reindex (tried)")).to_contain_text("embed 0, left out 0")


def test_a_disk_that_is_nearly_full_is_told_of(operator, gallery, monkeypatch):
    monkeypatch.setattr(type(gallery.holdings.space), "low", "7 MiB are free on the disk")
    tab, _ = operator
    tab.reload()
    alert = tab.get_by_role("region", name="Disk").get_by_role("alert")
    expect(alert).to_have_text("Nearly full: 7 MiB are free on the disk. Free some room before photos are refused.")


def test_a_key_is_made_shown_once_and_revoked(operator):
    tab, client = operator
    tab.on("dialog", lambda dialog: dialog.accept())
    keys = tab.get_by_role("region", name="Keys", exact=True)
    form = tab.locator("form", has=tab.get_by_role("button", name="Make a key"))
    form.get_by_label("Name").fill("Field station")
    form.get_by_label("Cameras").fill("north, south")
    form.get_by_role("button").click()
    row = keys.get_by_role("row").filter(has_text="Field station")
    expect(row).to_contain_text("north, south")
    secret = tab.locator("#admin-view p code").text_content()
    expect(form.get_by_label("Name")).to_have_value("")
    assert client.get("/v1/session", headers={"X-API-Key": secret}).json()["cameras"] == ["north", "south"]
    row.get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    assert client.get("/v1/session", headers={"X-API-Key": secret}).status_code == 401
    tab.reload()
    expect(row).to_contain_text("revoked")
    expect(tab.locator("#admin-view p code")).to_have_count(0)


def test_logs_are_looked_through_and_the_api_is_described_without_anything_from_elsewhere(operator):
    tab, _ = operator
    tab.get_by_label("Which log").select_option("Changes")
    tab.get_by_role("button", name="Show").click()
    expect(tab.get_by_role("row").filter(has_text="item.enrol")).to_have_count(6)
    tab.get_by_label("Kind of change").fill("item.delete")
    tab.get_by_role("button", name="Show", exact=True).click()
    expect(tab.get_by_text("0 found", exact=True)).to_be_visible()
    tab.get_by_label("Kind of change").fill("")
    tab.locator("#admin-view").get_by_label("Before", exact=True).fill("2020-01-01T00:00")
    tab.get_by_role("button", name="Show", exact=True).click()
    expect(tab.get_by_text("0 found", exact=True)).to_be_visible()
    tab.locator("#admin-view").get_by_label("Before", exact=True).fill("")
    tab.get_by_role("button", name="Show", exact=True).click()
    expect(tab.get_by_role("row").filter(has_text="item.enrol")).to_have_count(6)
    tab.get_by_label("By key").fill("nobody")
    tab.get_by_role("button", name="Show").click()
    expect(tab.get_by_text("0 found", exact=True)).to_be_visible()
    tab.get_by_role("link", name="Description of the API").click()
    expect(tab.get_by_role("heading", name="Re-ID gallery")).to_be_visible()
    expect(tab.locator("#operations-query-query_v1_query_post")).to_be_visible()
