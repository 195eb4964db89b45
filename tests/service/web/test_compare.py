"""Comparing two photos in the whole window, by keyboard alone, in a real browser."""

import re

import pytest

from tests.service.web.acting import cards, drop, expect, expect_ranks

pytestmark = pytest.mark.browser


def transforms(tab):
    return [shown.evaluate("(one) => one.style.transform") for shown in tab.locator(".twins .moved").all()]


def test_candidates_are_judged_by_keys(client, open_page, herd):
    tab = open_page(client, f"/#/search?item_id={herd[0]['item_id']}", viewport={"width": 1920, "height": 1080})
    expect_ranks(tab, range(1, 6))
    cards(tab).first.click()
    tab.get_by_role("button", name="Compare").click()
    expect(tab.locator(".twins img")).to_have_count(2)
    assert tab.locator(".twins .frame").first.bounding_box()["width"] > 900
    captions = tab.locator(".twins figcaption")
    second = captions.nth(1).inner_text()
    tab.keyboard.press("+")
    tab.keyboard.press("Shift+ArrowRight")
    tab.keyboard.press("m")
    expect(tab.get_by_role("button", name="Mirror")).to_have_attribute("aria-pressed", "true")
    left, right = transforms(tab)
    assert left == "translate(-8%, 0%) scale(1.25) scaleX(1)"
    assert right == left.replace("scaleX(1)", "scaleX(-1)")
    tab.locator(".twins .frame").first.hover()
    tab.mouse.wheel(0, -100)
    wheeled = re.compile(r"scale\(1\.5625\) scaleX\(-1\)")
    expect(tab.locator(".twins .moved").nth(1)).to_have_attribute("style", wheeled)
    tab.keyboard.press("a")
    expect(tab.locator(".twins img")).to_have_count(4)
    tab.keyboard.press("s")
    expect(captions.nth(1)).not_to_have_text(second)
    expect(tab.get_by_text("2 of 5")).to_be_visible()
    tab.keyboard.press("d")
    expect(tab.get_by_text("3 of 5")).to_be_visible()
    tab.keyboard.press("u")
    expect(tab.get_by_text("4 of 5")).to_be_visible()
    tab.keyboard.press("n")
    expect(tab.get_by_text("5 of 5")).to_be_visible()
    told = [(one["a"], one["answer"]) for one in client.get("/v1/decisions").json()["decisions"]][-4:]
    assert {one for _, one in told} == {"same", "different", "unsure", "not_comparable"}
    tab.reload()
    expect(tab.get_by_text("5 of 5")).to_be_visible()
    tab.keyboard.press("Escape")
    expect_ranks(tab, range(1, 6))


def test_no_candidate_is_judged_before_it_is_seen(client, open_page, herd):
    ids = [one["item_id"] for one in herd]
    tab = open_page(client, f"/#/compare?item_id={ids[0]}&" + "&".join(f"with={one}" for one in ids[1:]))
    expect(tab.get_by_role("button", name="Different")).to_be_enabled()
    before = len(client.get("/v1/decisions").json()["decisions"])
    held = []
    tab.route(f"**/v1/items/{ids[2]}", lambda route: held.append(route))
    with tab.expect_request(f"**/v1/items/{ids[2]}"):
        tab.keyboard.press("d")
        tab.keyboard.press("d")
    tab.keyboard.press("d")
    expect(tab.get_by_text("1 of 5")).to_be_visible()
    expect(tab.get_by_role("button", name="Different")).to_be_disabled()
    held.pop().continue_()
    expect(tab.get_by_text("2 of 5")).to_be_visible()
    assert len(client.get("/v1/decisions").json()["decisions"]) == before + 1


def test_a_tap_at_once_after_a_photo_was_moved_by_a_finger_is_one(client, open_page, herd):
    ids = [one["item_id"] for one in herd]
    place = f"/#/compare?item_id={ids[0]}&" + "&".join(f"with={one}" for one in ids[1:])
    tab = open_page(client, place, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    touch = tab.context.new_cdp_session(tab)
    tab.get_by_role("button", name="Larger").tap()
    expect(tab.get_by_text("1 of 5")).to_be_visible()
    frame = tab.locator(".twins .frame").first.bounding_box()
    following = tab.get_by_role("button", name="Next").bounding_box()
    for number in range(2, 5):
        for kind, by in (("touchStart", 0.1), ("touchMove", 0.5), ("touchMove", 0.9)):
            at = {"x": frame["x"] + by * frame["width"], "y": frame["y"] + by * frame["height"]}
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        at = {"x": following["x"] + 5, "y": following["y"] + 5}
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(tab.get_by_text(f"{number} of 5")).to_be_visible()


def test_same_adds_a_photo_that_is_not_enrolled(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(8))
    expect_ranks(tab, range(1, 7))
    label = cards(tab).first.locator(".label").inner_text()
    cards(tab).first.click()
    tab.get_by_role("button", name="Compare").click()
    expect(tab.get_by_role("button", name="Different")).to_be_disabled()
    expect(tab.locator(".twins img")).to_have_count(2)
    tab.keyboard.press("s")
    expect(tab.get_by_text("2 of 6")).to_be_visible()
    assert client.get("/v1/items").json()["items"][-1]["label"] == label
