"""Boxes drawn on photos, by mouse, finger and keys: to search for what is in them, and to enrol it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from service.records import NewKey
from service.storage.keys import Keys
from tests.service.web.acting import cards, expect, files

pytestmark = pytest.mark.browser


@pytest.fixture
def scene():
    """A photo of 400 x 300 pixels."""
    pixels = np.random.default_rng(5).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def place(layer, x, y):
    """A point of a picture, as shares of it, on the screen."""
    box = layer.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag(tab, layer, start, end):
    tab.mouse.move(*place(layer, *start))
    tab.mouse.down()
    tab.mouse.move(*place(layer, *[(a + b) / 2 for a, b in zip(start, end, strict=True)]))
    tab.mouse.move(*place(layer, *end))
    tab.mouse.up()


def test_a_box_on_a_photo_is_searched_for_and_stays_in_the_address(client, open_page, herd, scene):
    tab = open_page(client)
    tab.locator("#photos").set_input_files(files(scene))
    expect(cards(tab)).to_have_count(6)
    whole = cards(tab).locator(".score").all_text_contents()
    tab.get_by_role("button", name="Draw a box").click()
    layer = tab.locator(".boxing")
    expect(layer).to_be_focused()
    expect(tab.get_by_role("button", name="Search this box")).to_be_disabled()
    drag(tab, layer, (0.25, 0.5), (0.75, 0.9))
    with tab.expect_request("**/query") as asked:
        tab.get_by_role("button", name="Search this box").click()
    assert 'name="box"' in asked.value.post_data
    expect(tab.locator("#subject .stack > .box")).to_be_visible()
    expect(tab.get_by_role("button", name="The whole photo")).to_be_visible()
    x, y, w, h = (float(number) for number in tab.url.split("box=")[1].replace("%2C", ",").split(","))
    assert (x, y, w, h) == pytest.approx((100, 150, 200, 120), abs=4)
    expect(cards(tab).locator(".score")).not_to_have_text(whole)
    boxed = cards(tab).locator(".score").all_text_contents()
    sent = client.post("/query", files=[("image", ("a.png", scene))], data={"box": f"{x},{y},{w},{h}", "top_k": 20})
    assert [match["item_id"] for match in sent.json()["matches"]] == shown(tab)
    tab.reload()
    expect(cards(tab).locator(".score")).to_have_text(boxed)
    tab.get_by_role("button", name="The whole photo").click()
    expect(cards(tab).locator(".score")).to_have_text(whole)
    tab.go_back()
    expect(cards(tab).locator(".score")).to_have_text(boxed)
    # What is compared is what was searched for, with the whole photo to be had.
    cards(tab).first.click()
    seen = tab.locator("#viewer-subject")
    expect(seen).to_have_js_property("naturalWidth", w)
    tab.get_by_role("button", name="Compare").click()
    left = tab.locator(".twins img").first
    expect(left).to_have_js_property("naturalWidth", w)
    expect(left).to_have_js_property("naturalHeight", h)
    assert pixel(left) == pytest.approx(Image.open(io.BytesIO(scene)).getpixel((x + 5, y + 7)), abs=1)
    tab.get_by_role("button", name="Attention").click()
    expect(tab.locator(".twins img")).to_have_count(4)
    sent = client.post("/v1/attention", files=[("image", ("a.png", scene))], data={"box": f"{x},{y},{w},{h}"})
    map_ = Image.open(io.BytesIO(sent.content))
    expect(tab.locator(".twins img").nth(1)).to_have_js_property("naturalHeight", map_.height)
    assert map_.height < 300
    tab.get_by_role("button", name="Whole photo").click()
    expect(left).to_have_js_property("naturalWidth", 400)
    expect(tab.locator(".twins img")).to_have_count(3)  # the attention is over what was meant
    tab.get_by_role("button", name="Whole photo").click()
    expect(left).to_have_js_property("naturalWidth", w)
    tab.go_back()
    expect(cards(tab).locator(".score")).to_have_text(boxed)
    # What is added is what was searched for.
    tab.get_by_label("Name of the subject").fill("Zazu")
    tab.get_by_role("button", name="Add to the gallery").click()
    expect(tab.locator("#toasts")).to_contain_text("1 photo added as Zazu.")
    (made,) = client.get("/v1/items", params={"labels": "Zazu"}).json()["items"]
    assert made["box"] == [x, y, w, h]


def pixel(image):
    """The colour at 5, 7 of a picture."""
    return image.evaluate("""(one) => {
        const drawn = document.createElement("canvas").getContext("2d");
        drawn.drawImage(one, 0, 0);
        return [...drawn.getImageData(5, 7, 1, 1).data].slice(0, 3);
    }""")


def test_the_whole_photo_of_items_with_boxes_is_compared_where_a_key_may_see_it(
    client, serve, open_page, gallery, scene, refused
):
    boxes = [{"camera": "north", "boxes": [[0, 0, 100, 120], {"box": [200, 0, 90, 100], "label": "bob"}]}]
    sent = client.post("/v1/items", files=[("images", ("a.png", scene))], data={"metadata": json.dumps(boxes)})
    one, other = (result["item"]["item_id"] for result in sent.json()["results"])
    place = f"/#/compare?item_id={one}&with={other}"
    tab = open_page(client, place)
    pictures = tab.locator(".twins img")
    expect(pictures.nth(1)).to_have_js_property("naturalWidth", 90)
    tab.get_by_role("button", name="Whole photo").click()
    for number in range(2):
        expect(pictures.nth(number)).to_have_js_property("naturalWidth", 400)
    client.patch(f"/v1/items/{other}", json={"camera": "south"}).raise_for_status()
    _, secret = Keys(gallery.database).add(NewKey("north", frozenset({"write"}), frozenset({"north"})))
    refused.add(404)
    tab = open_page(serve(require_keys=True), place.replace(other, one), extra_http_headers={"X-API-Key": secret})
    expect(tab.locator(".twins img").first).to_have_js_property("naturalWidth", 100)
    tab.get_by_role("button", name="Whole photo").click()
    expect(tab.locator("#toasts")).to_contain_text("The whole photo cannot be shown")
    expect(tab.locator(".twins img").first).to_have_js_property("naturalWidth", 100)


def shown(tab):
    return tab.locator("#results img").evaluate_all("all => all.map((one) => one.src.split('/').at(-2))")


def test_a_box_is_drawn_and_sized_by_keys_alone(client, open_page, herd, scene):
    tab = open_page(client)
    tab.locator("#photos").set_input_files(files(scene))
    expect(cards(tab)).to_have_count(6)
    tab.get_by_role("button", name="Draw a box").press("Enter")
    layer = tab.locator(".boxing")
    expect(layer).to_be_focused()
    tab.keyboard.press("Escape")
    expect(layer).to_have_count(0)
    expect(tab.get_by_role("button", name="Draw a box")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(layer).to_be_focused()
    tab.keyboard.press("ArrowRight")  # the box comes, in the middle
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        tab.keyboard.press(key)
    expect(layer.get_by_role("status")).to_have_text("192 by 156 pixels, 108 from the left and 69 from the top.")
    tab.keyboard.press("Enter")
    expect(tab.locator("#subject .stack > .box")).to_be_visible()
    assert tab.url.endswith("box=108%2C69%2C192%2C156")


def tap(touch, button):
    """Tap at once, where a tap of Playwright waits for the button to rest."""
    box = button.bounding_box()
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_draws_moves_and_sizes_a_box_on_a_phone(client, open_page, herd, scene):
    tab = open_page(client, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tab.locator("#photos").set_input_files(files(scene))
    expect(cards(tab)).to_have_count(6)
    tab.get_by_role("button", name="Draw a box").tap()
    layer = tab.locator(".boxing")
    expect(layer).to_be_focused()
    assert layer.bounding_box()["width"] > 300
    touch = tab.context.new_cdp_session(tab)

    def swipe(start, end):
        middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
        for kind, at in (("touchStart", start), ("touchMove", middle), ("touchMove", end)):
            x, y = place(layer, *at)
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    status = layer.locator("[role=status]")
    for _ in range(3):  # a tap that follows at once is one, too
        swipe((0.2, 0.2), (0.6, 0.6))
        tap(touch, tab.get_by_role("button", name="Cancel"))
        expect(layer).to_have_count(0)
        tap(touch, tab.get_by_role("button", name="Draw a box"))
        expect(layer).to_be_focused()
    swipe((0.2, 0.2), (0.6, 0.6))
    expect(status).to_contain_text("from the left")
    swipe((0.4, 0.4), (0.5, 0.5))  # moved
    swipe((0.7, 0.7), (0.9, 0.8))  # by its corner
    expect(status).to_have_text("240 by 150 pixels, 120 from the left and 90 from the top.")
    tap(touch, tab.get_by_role("button", name="Search this box"))
    expect(tab.locator("#subject .stack > .box")).to_be_visible()
    box = [float(number) for number in tab.url.split("box=")[1].split("%2C")]
    assert box == pytest.approx([120, 90, 240, 150], abs=8)


def test_another_animal_of_a_photo_is_one_more_item_without_sending_the_photo(client, open_page, scene):
    said = {"metadata": '[{"camera": "north", "label": "ada", "captured_at": "2024-05-12T12:00:00+02:00"}]'}
    client.post("/v1/items", files=[("images", ("scene.png", scene))], data=said)
    tab = open_page(client, "/#/browse")
    sent = []
    tab.on("request", lambda one: sent.append((one.method, one.url.split("/v1/")[-1])) if one.method != "GET" else None)
    tab.locator("#enrolled .card").click()
    viewer = tab.locator("#viewer")
    viewer.get_by_role("button", name="Draw a box").click()
    layer = tab.locator(".boxing")
    drag(tab, layer, (0.1, 0.2), (0.5, 0.6))
    viewer.get_by_role("button", name="Add this box").click()
    expect(viewer.get_by_role("heading", name="Photo 2")).to_be_visible()
    expect(viewer.get_by_label("Label")).to_be_focused()
    whole, made = client.get("/v1/items").json()["items"]
    assert made["box"] == pytest.approx([40, 60, 160, 120], abs=4)
    assert [made[name] for name in ("camera", "captured_at", "label")] == ["north", whole["captured_at"], None]
    assert [path.split("/")[-1] for _, path in sent] == ["boxes"]
    expect(viewer.get_by_text("2 items of this photo")).to_be_visible()
    expect(tab.locator("#gallery-state")).to_have_text("2 photos")
    expect(tab.locator("#enrolled li")).to_have_count(2)  # beside the other
    # It is named like any other, and the photo leads from one to the other.
    viewer.get_by_label("Label").fill("bob")
    viewer.get_by_role("button", name="Item 1: ada").click()
    expect(viewer.get_by_role("heading", name="Photo 1")).to_be_visible()
    expect(tab.locator("#toasts")).to_contain_text("Labelled bob.")
    assert client.get(f"/v1/items/{made['item_id']}").json()["label"] == "bob"
    # The same box again is there already.
    viewer.get_by_role("button", name="Draw a box").click()
    expect(layer.locator(".other")).to_have_count(1)
    drag(tab, layer, (0.1, 0.2), (0.5, 0.6))
    viewer.get_by_role("button", name="Add this box").click()
    expect(tab.locator("#toasts")).to_contain_text("There is an item of this box already.")
    viewer.get_by_role("button", name="See them in Browse").click()
    expect(tab.get_by_text("Only the items of one photo.")).to_be_visible()
    expect(tab.locator("#enrolled li")).to_have_count(2)


def test_one_more_item_is_taken_back_where_it_was_added(client, open_page, scene):
    client.post("/v1/items", files=[("images", ("scene.png", scene))])
    tab = open_page(client, "/#/browse")
    tab.locator("#enrolled .card").click()
    viewer = tab.locator("#viewer")
    viewer.get_by_role("button", name="Draw a box").press("Enter")
    expect(tab.locator(".boxing")).to_be_focused()
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    expect(viewer.get_by_role("heading", name="Photo 2")).to_be_visible()
    undo = viewer.get_by_role("button", name="Undo")  # in the dialog, where it is seen and reached
    expect(undo).to_be_visible()
    undo.press("Enter")
    expect(viewer.get_by_role("heading", name="Photo 1")).to_be_visible()
    expect(tab.locator("#gallery-state")).to_have_text("1 photo")
    assert len(client.get("/v1/items").json()["items"]) == 1
    expect(tab.locator("#enrolled li")).to_have_count(1)


def test_a_reader_searches_boxes_and_adds_none(serve, open_page, gallery, client, scene):
    client.post("/v1/items", files=[("images", ("scene.png", scene))])
    _, secret = Keys(gallery.database).add(NewKey("reader", frozenset({"read"})))
    tab = open_page(serve(require_keys=True), "/#/browse", extra_http_headers={"X-API-Key": secret})
    tab.locator("#enrolled .card").click()
    expect(tab.locator("#viewer-details")).to_contain_text("pixels")
    expect(tab.locator("#viewer").get_by_role("button", name="Draw a box")).to_have_count(0)
    tab.get_by_role("button", name="Search from this photo").click()
    tab.get_by_role("button", name="Draw a box").click()
    drag(tab, tab.locator(".boxing"), (0.1, 0.2), (0.5, 0.6))
    tab.get_by_role("button", name="Search this box").click()
    expect(cards(tab)).to_have_count(1)  # the photo itself is a match of a part of it
    expect(tab.locator("#adopt")).to_be_hidden()


def test_a_key_for_one_camera_draws_on_no_photo_that_shows_more(serve, open_page, gallery, client, scene, refused):
    refused.add(404)
    said = {
        "metadata": '[{"camera": "north", "boxes": [[0, 0, 100, 100], {"box": [200, 0, 100, 100], "label": "bob"}]}]'
    }
    results = client.post("/v1/items", files=[("images", ("scene.png", scene))], data=said).json()["results"]
    client.patch(f"/v1/items/{results[1]['item']['item_id']}", json={"camera": "south"}).raise_for_status()
    key = NewKey("north", frozenset({"write"}), frozenset({"north"}))
    _, secret = Keys(gallery.database).add(key)
    tab = open_page(serve(require_keys=True), "/#/browse", extra_http_headers={"X-API-Key": secret})
    expect(tab.locator("#enrolled li")).to_have_count(1)
    tab.locator("#enrolled .card").click()
    viewer = tab.locator("#viewer")
    viewer.get_by_role("button", name="Draw a box").click()
    expect(viewer.get_by_text("The whole photo cannot be shown")).to_be_visible()
    expect(tab.locator(".boxing")).to_have_count(0)
    expect(tab.locator("#viewer-image")).to_have_js_property("naturalWidth", 100)  # what the item shows
    expect(viewer.locator("#viewer-photo .thumbnails")).to_have_count(0)
