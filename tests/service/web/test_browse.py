"""Looking through all photos and changing many of them, in a real browser."""

import csv
import io

import pytest
from PIL import Image

from service.records import NewKey
from service.storage.keys import Keys
from tests.service.web.acting import expect
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def labels(client):
    return [item["label"] for item in client.get("/v1/items").json()["items"]]


def test_a_long_list_is_scrolled_with_few_cards_in_the_page(client, open_page, enrol, picture):
    enrol([{}] * 32)
    for start in range(32, 288, 32):
        sent = [("images", (f"{number}.png", picture(number))) for number in range(start, start + 32)]
        assert client.post("/v1/items", files=sent).status_code == 201
    tab, asked = open_page(client, "/#home"), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.get_by_role("link", name="Browse").click()
    cards = tab.locator("#enrolled li")
    expect(cards.first).to_contain_text("287.png")  # the newest first
    drawn = "[...document.querySelectorAll('#enrolled img')].every((image) => image.complete && image.naturalWidth > 0)"
    wait_until(lambda: tab.evaluate(drawn))
    expect(cards.first).to_have_attribute("aria-setsize", "200")  # one page, which is more than a screen or two
    assert len([url for url in asked if "limit=200" in url]) == 1
    assert 14 <= len([url for url in asked if "/thumbnail?small" in url]) <= cards.count() < 70
    cards.first.get_by_role("button").focus()
    tab.keyboard.press("End")
    expect(cards.first).to_have_attribute("aria-setsize", "288")  # what is next was asked for before it was reached
    tab.keyboard.press("End")
    expect(tab.locator("#enrolled li button:focus")).to_contain_text("0.png")
    expect(cards.first).not_to_contain_text("287.png")
    assert cards.count() < 120
    tab.keyboard.press("Home")
    expect(tab.locator("#enrolled li button:focus")).to_contain_text("287.png")
    tab.locator("#browse-view").get_by_label("Order").select_option("Added first first")
    expect(cards.first).to_contain_text("0.png")
    tab.reload()
    expect(cards.first).to_contain_text("0.png")


@pytest.mark.parametrize(("pixels", "sizes"), [(1, {160}), (2, {200})])
def test_a_screen_gets_thumbnails_of_the_size_that_it_needs(client, open_page, pixels, sizes):
    """Of photos of 200 pixels, so that the usual thumbnail is no larger."""
    written = io.BytesIO()
    Image.new("RGB", (200, 150), "red").save(written, "PNG")
    assert client.post("/v1/items", files=[("images", ("a.png", written.getvalue()))]).status_code == 201
    tab = open_page(client, "/#/browse", device_scale_factor=pixels)
    photos = "[...document.querySelectorAll('#enrolled img')].filter((image) => image.naturalWidth > 0)"
    wait_until(lambda: tab.evaluate(f"{photos}.length") == 1)
    widths = "Promise.all(photos.map((image) => fetch(image.currentSrc).then((answer) => answer.blob())"
    widths += ".then(createImageBitmap).then((picture) => picture.width)))"
    assert set(tab.evaluate(f"() => {{ const photos = {photos}; return {widths}; }}")) == sizes


def test_many_are_named_at_once_and_that_is_taken_back(client, open_page, herd):
    tab = open_page(client, "/#browse")
    cards = tab.locator("#enrolled li")
    expect(cards).to_have_count(6)
    cards.nth(0).get_by_role("checkbox").check()
    cards.nth(3).get_by_role("button").click(modifiers=["Shift"])
    bar = tab.get_by_role("region", name="Selected photos")
    expect(bar).to_contain_text("4 selected")
    cards.nth(1).get_by_role("checkbox").uncheck()
    before = labels(client)
    bar.get_by_label("Label", exact=True).fill("Zazu")
    bar.get_by_role("button", name="Change").click()
    expect(tab.locator("#toasts")).to_contain_text("3 photos changed.")
    expect(tab.locator("#enrolled .label", has_text="Zazu")).to_have_count(3)
    assert labels(client) == [*before[:2], "Zazu", "Zazu", before[4], "Zazu"]
    tab.locator("#toasts").get_by_role("button", name="Undo").click()
    expect(tab.locator("#enrolled .label", has_text="Zazu")).to_have_count(0)
    assert labels(client) == before


def test_all_that_pass_get_another_time_and_camera(client, open_page, herd):
    tab = open_page(client, "/#/browse?cameras=north")
    expect(tab.locator("#enrolled li")).to_have_count(3)
    tab.locator("#enrolled li").first.get_by_role("checkbox").check()
    bar = tab.get_by_role("region", name="Selected photos")
    bar.get_by_role("button", name="Select all that pass").click()
    expect(bar).to_contain_text("All 3 that pass are selected")
    bar.get_by_label("What to change").select_option("Shift of time")
    field = bar.get_by_role("textbox", name="Shift of time")
    field.fill("soon")
    expect(bar.get_by_role("button", name="Change")).to_be_disabled()
    field.fill("-1:30")
    bar.get_by_role("button", name="Change").click()
    expect(tab.locator("#toasts")).to_contain_text("3 photos changed.")
    times = {item["captured_at"][11:16] for item in client.get("/v1/items?cameras=north").json()["items"]}
    assert times == {"10:30"}
    assert {item["captured_at"][11:16] for item in client.get("/v1/items?cameras=south").json()["items"]} == {"12:00"}
    tab.keyboard.press("Control+z")
    expect(tab.locator("#toasts")).to_contain_text("Taken back.")
    assert {item["captured_at"][11:16] for item in client.get("/v1/items").json()["items"]} == {"12:00"}


def test_a_month_and_those_without_label_are_shown_alone(client, open_page, enrol):
    times = ["2024-04-30T23:00:00Z", "2024-05-01T00:00:00Z", "2024-05-31T23:59:59Z", None]
    enrol([{"captured_at": time, "label": "ada" if time is None else None} for time in times])
    tab = open_page(client, "/#browse")
    cards = tab.locator("#enrolled li")
    expect(cards).to_have_count(4)
    tab.get_by_role("button", name="2024-05").click()
    expect(cards).to_have_count(2)
    expect(tab.get_by_role("button", name="2024-05")).to_have_attribute("aria-pressed", "true")
    assert "from=2024-05-01" in tab.url
    tab.get_by_role("button", name="2024-05").click()
    tab.get_by_label("Names").select_option("With label")
    expect(cards).to_have_count(1)
    expect(tab.locator("#browse-months button")).to_have_count(0)
    tab.get_by_label("Names").select_option("Without label")
    expect(cards).to_have_count(3)


def test_the_selection_is_deleted_after_a_while_and_goes_into_a_table(client, open_page, herd):
    tab = open_page(client, "/#browse", clock=True)
    cards = tab.locator("#enrolled li")
    cards.first.get_by_role("button").focus()
    tab.keyboard.press("x")
    tab.keyboard.press("Shift+ArrowRight")
    bar = tab.get_by_role("region", name="Selected photos")
    expect(bar).to_contain_text("2 selected")
    with tab.expect_download() as download:
        bar.get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_bytes().decode("utf-8-sig"))))
    assert [(row["item_id"], row["source"]) for row in rows] == [(herd[n]["item_id"], f"{n}.png") for n in (5, 4)]
    bar.get_by_role("button", name="Delete").click()
    expect(cards).to_have_count(4)
    expect(bar).to_be_hidden()
    assert len(labels(client)) == 6
    tab.keyboard.press("Control+z")
    expect(cards).to_have_count(6)
    cards.first.get_by_role("checkbox").check()
    bar.get_by_role("button", name="Delete").click()
    with tab.expect_response("**/v1/items/*"):
        tab.clock.fast_forward(9000)
    assert len(labels(client)) == 5


def test_a_key_that_may_only_read_looks_and_exports(serve, open_page, gallery, herd):
    _, secret = Keys(gallery.database).add(NewKey("reader", frozenset({"read"})))
    client = serve(require_keys=True)
    tab = open_page(client, "/#browse", extra_http_headers={"X-API-Key": secret})
    tab.locator("#enrolled li").first.get_by_role("checkbox").check()
    bar = tab.get_by_role("region", name="Selected photos")
    expect(bar.get_by_role("button")).to_have_text(["Select all that pass", "Export CSV", "Clear"])


def test_the_mouse_selects_what_its_rectangle_touches(client, open_page, herd):
    tab = open_page(client, "/#browse")
    cards = tab.locator("#enrolled li")
    expect(cards).to_have_count(6)
    bar = tab.get_by_role("region", name="Selected photos")

    def middle(number):
        box = cards.nth(number).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def draw(first, last):
        tab.mouse.move(*middle(first))
        tab.mouse.down()
        tab.mouse.move(*middle(last), steps=4)

    draw(1, 3)
    expect(tab.locator(".band")).to_be_visible()
    tab.mouse.up()
    expect(tab.locator(".band")).to_have_count(0)
    expect(bar).to_contain_text("3 selected")
    expect(tab.locator("#viewer")).to_be_hidden()
    expect(tab.locator("#enrolled .selected")).to_have_count(3)
    tab.keyboard.down("Control")
    draw(5, 4)
    tab.mouse.up()
    tab.keyboard.up("Control")
    expect(bar).to_contain_text("5 selected")
    draw(0, 1)
    tab.mouse.up()
    expect(bar).to_contain_text("2 selected")
    tab.mouse.click(*middle(2))  # which no rectangle was drawn with
    expect(tab.locator("#viewer")).to_be_visible()


def test_shift_with_arrows_makes_the_selection_larger_and_smaller(client, open_page, herd):
    tab = open_page(client, "/#browse")
    cards = tab.locator("#enrolled li")
    cards.nth(1).get_by_role("button").focus()
    bar = tab.get_by_role("region", name="Selected photos")
    for key, count in (("Right", 2), ("Right", 3), ("Left", 2), ("Left", 1), ("Left", 2)):
        tab.keyboard.press(f"Shift+Arrow{key}")
        expect(bar).to_contain_text(f"{count} selected")
    tab.keyboard.press("Shift+End")
    expect(bar).to_contain_text("5 selected")
    expect(cards.nth(0)).not_to_have_class("selected")


def test_photos_of_one_import_alone_are_browsed_and_reviewed(client, open_page, herd, picture):
    path = f"/v1/imports/{client.post('/v1/imports', json={'name': 'May'}).json()['import_id']}"
    sent = {f"{number}.png": picture(number) for number in (0, 20, 21)}  # the first is there already
    announced = [{"name": name, "size": len(data)} for name, data in sent.items()]
    client.post(f"{path}/files", json={"files": announced}).raise_for_status()
    for name, data in sent.items():
        client.put(f"{path}/files/{name}", params={"offset": 0}, content=data).raise_for_status()
    client.post(f"{path}/start").raise_for_status()
    wait_until(lambda: client.get(path).json()["state"] == "done")
    tab = open_page(client, f"/#/imports/{path.split('/')[-1]}")
    review = tab.get_by_role("link", name="Review these").get_attribute("href")
    tab.get_by_role("link", name="See them in Browse").click()
    expect(tab.get_by_text("Only what one import added.")).to_be_visible()
    expect(tab.locator("#enrolled .file")).to_have_text(["21.png", "20.png"])
    tab.locator("#enrolled input").first.check()
    tab.get_by_role("button", name="Select all that pass").click()
    expect(tab.get_by_role("region", name="Selected photos")).to_contain_text("All 2 that pass are selected")
    tab.get_by_role("button", name="Show all").click()
    expect(tab.locator("#enrolled li")).to_have_count(8)
    tab.goto(f"{client.base_url}/{review}")
    expect(tab.get_by_label("Only what this import added")).to_be_checked()
    with tab.expect_request("**/v1/review/start") as asked:
        tab.get_by_role("button", name="Start", exact=True).click()
    expect(tab.locator("#review-view")).to_contain_text("of 2 photos settled")
    assert list(asked.value.post_data_json["filter"]["attributes.import"]) == [path.split("/")[-1]]
    expect(tab.get_by_text("The review of what this import added had begun")).to_have_count(0)

    # Begun, it goes on; anew it is started where that is wished.
    tab.goto(f"{client.base_url}/#/imports/{path.split('/')[-1]}")
    tab.get_by_role("link", name="Review these").click()
    expect(tab.get_by_text("The review of what this import added had begun, and goes on.")).to_be_visible()
    expect(tab.locator("#review-view")).to_contain_text("of 2 photos settled")
    assert len(jobs(client)) == 1
    tab.get_by_role("link", name="Start it anew").click()
    expect(tab.get_by_label("Only what this import added")).to_be_checked()
    tab.get_by_label("Only what this import added").uncheck()
    tab.get_by_role("button", name="Start", exact=True).click()
    expect(tab.locator("#review-view")).to_contain_text("of 8 photos settled")
    assert len(jobs(client)) == 2

    # Another one has begun: it is none of just these.
    tab.goto(f"{client.base_url}/#/imports/{path.split('/')[-1]}")
    tab.get_by_role("link", name="Review these").click()
    expect(tab.get_by_label("Only what this import added")).to_be_checked()


def jobs(client):
    return [job for job in client.get("/v1/jobs").json()["jobs"] if job["kind"] == "suggest"]
