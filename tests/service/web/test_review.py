"""Review, by keys alone, by several people at once and through outages, in a real browser."""

import json
import re

import pytest

from service.records import Cause
from service.storage.decisions import NewDecision
from service.storage.identities import Identities
from tests.service.web.acting import ADMIN, expect
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

ANSWERS = {"s": "same", "d": "different", "n": "not_comparable", "u": "unsure"}


@pytest.fixture
def crowd(enrol):
    """Sixteen items without names, of cameras north and south by turns."""
    return enrol([{"camera": ("north", "south")[number % 2]} for number in range(16)])


def start(client, **wanted):
    job = client.post("/v1/review/start", json={"gold": 0, **wanted}).json()
    wait_until(lambda: client.get(f"/v1/jobs/{job['job_id']}").json()["state"] == "done")


def asked(tab):
    """The question that is shown, once it can be answered."""
    expect(tab.locator(".answers .same")).to_be_enabled()
    return tab.evaluate("JSON.parse(sessionStorage.getItem('review')).question")


def press(tab, key):
    """Answer by a key; gives what was asked."""
    question = asked(tab)
    tab.keyboard.press(key)
    tab.wait_for_function(
        "(id) => { const kept = JSON.parse(sessionStorage.getItem('review'));"
        " return !kept.given && kept.question?.question_id !== id }",
        arg=question["question_id"],
    )
    return question


def decided(client):
    return [one for one in client.get("/v1/decisions?limit=1000").json()["decisions"] if not one["superseded"]]


def told(client):
    """The answers that hold, by the question."""
    return {one["question_id"]: one["answer"] for one in decided(client) if one["answer"] != "withdrawn"}


def test_a_review_is_started_and_answered_by_keys_alone(client, open_page, crowd, refused):
    refused.add(409)  # there is none yet
    tab = open_page(client, "/#/review")
    expect(tab.get_by_text("No review was started yet.")).to_be_visible()
    expect(tab.get_by_role("group", name="Answer")).to_have_count(0)  # to no question
    tab.get_by_role("link", name="Start a review").focus()
    tab.keyboard.press("Enter")
    tab.get_by_label("Of the machine's joins, wrong may be").focus()
    tab.keyboard.press("Home")  # none
    tab.get_by_role("button", name="Start").focus()
    tab.keyboard.press("Enter")
    asked(tab)
    assert tab.evaluate("location.hash") == "#/review"
    expect(tab.locator(".review-state")).to_contain_text("of 16 photos settled")
    expect(tab.locator(".review-state")).to_contain_text("questions left")
    given = {}
    for key in "sdnudsdnud":
        given[press(tab, key)["question_id"]] = ANSWERS[key]
    assert told(client) == given
    last = list(given)[-1]
    later = asked(tab)
    tab.keyboard.press("z")
    wait_until(lambda: asked(tab)["question_id"] == last)
    assert told(client) == {key: value for key, value in given.items() if key != last}
    press(tab, "s")
    assert told(client) == {**given, last: "same"}
    assert asked(tab)["question_id"] == later["question_id"], "what was asked meanwhile comes again"
    for side in (0, 1):
        expect(tab.locator(".frame img").nth(side)).not_to_have_js_property("naturalWidth", 0)
    tab.go_back()
    expect(tab.locator("#review-view")).to_contain_text("joins what is certain")


def test_two_people_are_never_asked_the_same(client, open_page, crowd):
    start(client)
    tabs = [open_page(client, "/#/review") for _ in range(2)]
    seen = []
    for turn in range(12):
        seen.append(press(tabs[turn % 2], "sddu"[turn % 4]))
    assert len({one["question_id"] for one in seen}) == 12
    assert len(decided(client)) == 12
    shown = [asked(tab) for tab in tabs]
    ends = [end for one in shown for end in (one["a"]["item_id"], one["b"]["item_id"])]
    assert len(set(ends)) == 4


def test_an_outage_loses_no_answer_and_a_reload_no_question(client, open_page, crowd):
    start(client)
    tab = open_page(client, "/#/review")
    question = asked(tab)
    tab.reload()
    assert asked(tab)["question_id"] == question["question_id"]
    tab.context.set_offline(True)
    tab.keyboard.press("d")
    expect(tab.get_by_role("alert").filter(has_text="not stored yet")).to_be_visible()
    expect(tab.locator(".answers .same")).to_be_disabled()
    assert told(client) == {}
    tab.context.set_offline(False)
    wait_until(lambda: told(client) == {question["question_id"]: "different"})
    assert asked(tab)["question_id"] != question["question_id"]
    expect(tab.get_by_role("alert").filter(has_text="not stored yet")).to_have_count(0)


def test_conflicts_are_settled_and_machine_joins_taken_apart(client, open_page, crowd, gallery):
    a, b, c, d, e = (item["item_id"] for item in crowd[:5])
    start(client)
    for pair, answer in (((a, b), "same"), ((b, c), "same"), ((a, c), "different")):
        client.post("/v1/decisions", json={"decisions": [{"a": pair[0], "b": pair[1], "answer": answer}]})
    tab = open_page(client, "/#/review/conflicts")
    expect(tab.get_by_text("1 conflict.")).to_be_visible()
    tab.get_by_role("button", name="off").click()
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_contain_text("an individual without name → ")
    dialog.get_by_role("button", name="Do it").click()
    expect(tab.get_by_text("No conflicts.")).to_be_visible()
    tab.locator("#toasts").get_by_role("button", name="Undo").click()
    expect(tab.get_by_text("1 conflict.")).to_be_visible()
    joined(gallery, d, e)
    tab.get_by_role("link", name="Machine's joins").click()
    tab.get_by_role("button", name="Joined, sure by 99.0 %").click()
    tab.get_by_role("button", name="Take 1 pair apart").click()
    expect(tab.get_by_text("The machine has joined nothing.")).to_be_visible()
    assert client.get(f"/v1/items/{d}").json()["identity_id"] is None
    tab.locator("#toasts").get_by_role("button", name="Undo").last.click()
    expect(tab.get_by_role("button", name="Joined")).to_be_visible()
    assert client.get(f"/v1/items/{d}").json()["identity_id"] is not None


def joined(gallery, a, b):
    """Have the machine join two items."""
    new = NewDecision(a, b, "same", "machine", model_id=gallery.model_id, score=0.9, probability=0.99)
    Identities(gallery.database).decide([new], Cause("machine"), source="machine")


def test_a_key_sees_and_answers_what_it_may(serve, open_page, crowd_of_keys, refused):
    client, keys = crowd_of_keys
    refused.add(401)  # until somebody signs in
    tab = open_page(client, "/#/review")
    sign_in(tab, keys["north"])
    question = asked(tab)
    assert {question[side]["item"]["camera"] for side in "ab"} == {"north"}
    expect(tab.locator(".review-state")).to_contain_text("the photos of your cameras")
    tab.get_by_role("link", name="Start").click()
    expect(tab.locator("#review-view")).to_contain_text("a key that sees them all")
    expect(tab.locator("#review-view form")).to_have_count(0)
    reader = open_page(client, "/#/review")
    sign_in(reader, keys["reader"])
    expect(reader.locator("#review-view")).to_contain_text("may look, but not answer")
    expect(reader.locator(".answers")).to_have_count(0)


@pytest.fixture
def crowd_of_keys(serve, picture):
    """A client of a service with a review, and keys that may do less."""
    client = serve(require_keys=True, admin_key=ADMIN)
    client.headers["X-API-Key"] = ADMIN
    said = [{"camera": ("north", "south")[number % 2]} for number in range(16)]
    files = [("images", (f"{number}.png", picture(number))) for number in range(16)]
    client.post("/v1/items", files=files, data={"metadata": json.dumps(said)})
    start(client)
    wanted = {"north": {"scopes": ["write"], "cameras": ["north"]}, "reader": {"scopes": ["read"]}}
    made = {name: client.post("/v1/admin/keys", json={"name": name, **one}).json() for name, one in wanted.items()}
    return client, {name: key["secret"] for name, key in made.items()}


def sign_in(tab, secret):
    dialog = tab.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("API key").fill(secret)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()


def test_both_photos_of_a_question_are_looked_at_closely_by_keys_and_wheel(client, open_page, crowd):
    start(client, error=0)
    tab = open_page(client, "/#/review")
    asked(tab)
    moved = tab.locator(".frame .moved")
    looks = lambda: [moved.nth(side).get_attribute("style") for side in (0, 1)]  # noqa: E731
    plain = looks()
    assert all("scale(1) scaleX(1)" in look for look in plain)
    tab.keyboard.press("+")
    expect(moved.nth(1)).to_have_attribute("style", re.compile(r"scale\(1\.25\) scaleX\(1\)"))
    tab.keyboard.press("Shift+ArrowLeft")
    expect(moved.nth(0)).to_have_attribute("style", re.compile(r"translate\(8%, 0%\)"))
    tab.keyboard.press("m")
    expect(moved.nth(1)).to_have_attribute("style", re.compile(r"scaleX\(-1\)"))
    assert "scaleX(1)" in looks()[0]
    tab.keyboard.press("0")
    expect(moved.nth(1)).to_have_attribute("style", re.compile(r"scale\(1\) scaleX\(1\)"))
    tab.locator(".frame").nth(0).hover()
    tab.mouse.wheel(0, -100)
    expect(moved.nth(1)).to_have_attribute("style", re.compile(r"scale\(1\.25\)"))
    tab.keyboard.press("b")
    expect(moved).to_have_count(1)
    press(tab, "s")  # the next question is looked at afresh, but goes on blinking
    expect(moved.nth(0)).to_have_attribute("style", re.compile(r"scale\(1\)"))
    tab.keyboard.press("b")
    expect(moved).to_have_count(2)


def test_the_photos_of_a_group_are_gone_through_by_key_and_by_button(client, open_page, crowd):
    first, *others = (item["item_id"] for item in crowd[:6])
    same = [{"a": first, "b": other, "answer": "same"} for other in others]
    assert client.post("/v1/decisions", json={"decisions": same}).status_code == 201
    start(client, error=0)
    tab = open_page(client, "/#/review")
    for _ in range(8):
        question = asked(tab)
        if len(question["b"]["pictures"]) > 1:
            break
        press(tab, "u")
    pictures = question["b"]["pictures"]
    picture = tab.locator(".frame img").nth(1)
    assert pictures[0] in picture.get_attribute("src")
    tab.keyboard.press("2")
    expect(picture).to_have_attribute("src", re.compile(pictures[1]))
    strip = tab.locator(".strip").last
    around, inside = strip.bounding_box(), strip.locator("img").first.bounding_box()
    assert around["x"] <= inside["x"] and around["y"] <= inside["y"], "its pictures lie in it"
    strip.click()
    expect(picture).to_have_attribute("src", re.compile(pictures[2 % len(pictures)]))
