"""Searching on the page, in a real browser against a real server."""

import json

import numpy as np
import pytest

from reid.retrieval.calibration import Calibration
from service.classification import Classification
from service.opening import load_classifier
from tests.formats import CASES
from tests.service.web.acting import ask, cards, drop, expect, expect_cameras, expect_ranks, files, transfer

pytestmark = pytest.mark.browser


def test_a_time_is_shown_as_the_clock_of_the_camera_had_it(client, open_page):
    """Where it is another than that of the viewer, in Johannesburg; the clock showed 06:41."""
    data = (CASES / "exif_zone.jpg").read_bytes().replace(b"+02:00", b"-03:30")
    assert client.post("/v1/items", files=[("images", ("a.jpg", data))]).status_code == 201
    tab = open_page(client)
    drop(tab, data, name="a.jpg")
    expect(cards(tab).first).to_contain_text("3 May 2026, 06:41 -03:30")
    expect(tab.locator("#answer-facts")).not_to_contain_text("Times are in")


def test_a_dropped_photo_is_asked_about_at_once(client, open_page, herd, picture):
    tab = open_page(client)
    expect(tab.locator("#gallery-state")).to_have_text("6 photos")
    expect(tab.locator("#answer-empty")).to_contain_text("Drop, paste or choose a photo")
    drop(tab, picture(3))
    expect_ranks(tab, [1, 2, 3, 4, 5, 6])
    matches = ask(client, picture(3))["matches"]
    assert matches[0]["item_id"] == herd[3]["item_id"]
    expect(cards(tab).locator(".label")).to_have_text([match["label"] for match in matches])
    expect(cards(tab).first.locator(".score")).to_have_text("1.000")
    expect(cards(tab).first).to_contain_text("15 May 2024, 14:00")
    expect(tab.locator("#answer-facts")).to_contain_text("The 6 nearest of 6 photos searched, in ")
    expect(tab.locator("#answer-facts")).to_contain_text("Times are in Africa/Johannesburg.")
    for place in range(6):
        expect(cards(tab).nth(place).locator("img")).to_have_js_property("naturalWidth", 20)


def test_several_photos_are_one_query_and_one_can_be_left_out(client, open_page, herd, picture):
    tab = open_page(client)
    tab.set_input_files("#photos", files(picture(1), picture(4)))
    tab.get_by_role("button", name="Yes, one subject").click()
    expect(tab.locator("#subject li")).to_have_count(2)

    def labels(*images):
        return [match["label"] for match in ask(client, *images)["matches"]]

    expect(cards(tab).locator(".label")).to_have_text(labels(picture(1), picture(4)))
    tab.get_by_role("button", name="Leave out 0.png").click()
    expect(tab.locator("#subject li")).to_have_count(1)
    expect(cards(tab).locator(".label")).to_have_text(labels(picture(4)))
    with tab.expect_file_chooser() as choosing:
        tab.get_by_role("button", name="Add another view").click()
    choosing.value.set_files(files(picture(2)))
    expect(cards(tab).locator(".label")).to_have_text(labels(picture(4), picture(2)))
    tab.get_by_role("button", name="Clear", exact=True).click()
    expect(cards(tab)).to_have_count(0)


def test_a_pasted_picture_is_a_query(client, open_page, herd, picture):
    tab = open_page(client)
    tab.evaluate(
        "(data) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        transfer(tab, picture(0)),
    )
    expect_ranks(tab, range(1, 7))


def test_a_classifier_names_the_classes_of_each_photo(serve, open_page, gallery, classifier, picture):
    with Classification(*load_classifier(classifier, "cpu"), gallery) as classification:
        client = serve(classification=classification)
        tab = open_page(client)
        sent = [("image", ("a.png", picture(number))) for number in (1, 4)]
        results = client.post("/v1/classify", files=sent, data={"top_k": 3}).json()["results"]
        named = [[one["class"] for one in result["predictions"]] for result in results]
        assert named[0] != named[1]
        tab.set_input_files("#photos", files(picture(1), picture(4)))
        tab.get_by_role("button", name="Yes, one subject").click()
        photos = tab.locator("#subject > li")
        for number in range(2):
            expect(photos.nth(number).locator("dt")).to_have_text(named[number])
        shares = [f"{100 * one['probability']:.0f} %" for one in results[0]["predictions"]]
        expect(photos.nth(0).locator("dd").first).to_have_text(shares[0])
        tab.get_by_role("button", name="Leave out 0.png").click()
        expect(photos.locator("dt")).to_have_text(named[1])


def test_without_a_classifier_no_class_is_asked_for(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(3))
    expect_ranks(tab, [1, 2, 3, 4, 5, 6])
    expect(tab.locator("#subject .classes div")).to_have_count(0)


def test_attention_is_laid_over_the_query(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(0))
    overlay = tab.locator("#subject .overlay")
    expect(overlay).to_be_hidden()
    button = tab.locator("#subject-attention")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(overlay).to_have_js_property("naturalWidth", 20)
    expect(overlay).to_be_visible()
    button.click()
    expect(overlay).to_be_hidden()


def test_every_filter_asks_again_without_a_reload(client, open_page, herd, picture):
    tab = open_page(client)
    tab.evaluate("document.body.dataset.loaded = 'once'")
    drop(tab, picture(0))
    scores = [match["score"] for match in ask(client, picture(0))["matches"]]
    north = tab.locator("#cameras button", has_text="north")
    north.click()
    expect_cameras(tab, ["north"] * 3)
    expect(tab.locator("#filter-count")).to_have_text("1 in use")
    tab.locator("#labels button", has_text="nyala 1").click()
    expect(cards(tab).locator(".label")).to_have_text(["nyala 1"])
    north.click()
    expect(cards(tab).locator(".label")).to_have_text(["nyala 1"] * 2)
    tab.get_by_role("button", name="Clear filters").first.click()
    expect_ranks(tab, range(1, 7))
    tab.get_by_label("From").fill("2024-05-14T14:00")  # noon of UTC in the browser's zone
    expect(cards(tab)).to_have_count(4)
    tab.get_by_label("Before").fill("2024-05-16T14:00")
    expect(cards(tab)).to_have_count(2)
    tab.get_by_role("button", name="Clear filters").first.click()
    tab.get_by_label("Minimum score").fill(str((scores[1] + scores[2]) / 2))
    expect_ranks(tab, [1, 2])
    tab.get_by_role("button", name="Clear filters").first.click()
    tab.get_by_label("Best photo of each label").check()
    expect(cards(tab)).to_have_count(3)
    assert sorted(cards(tab).locator(".label").all_inner_texts()) == ["nyala 0", "nyala 1", "nyala 2"]
    assert tab.evaluate("document.body.dataset.loaded") == "once"


def test_how_many(client, open_page, enrol, picture):
    enrol([{}] * 12)
    tab = open_page(client)
    drop(tab, picture(0))
    expect(cards(tab)).to_have_count(12)
    tab.get_by_label("How many").select_option("10")
    expect(cards(tab)).to_have_count(10)


def test_filters_hold_for_a_photo_that_is_dropped_before_the_session_is_known(client, open_page, enrol, picture):
    enrol([{"camera": ("north", "south")[number % 2]} for number in range(24)])
    tab = open_page(client, "/?cameras=south")
    held = []
    tab.route("**/v1/session", lambda route: held.append(route))
    tab.reload()
    drop(tab, picture(0))
    expect_cameras(tab, ["south"] * 12)
    expect(tab.get_by_label("How many")).to_have_value("20")
    held[0].continue_()
    expect_cameras(tab, ["south"] * 12)


def test_filters_and_an_item_that_is_asked_about_stay_after_a_reload(client, open_page, herd):
    tab = open_page(client, f"/?item_id={herd[0]['item_id']}&cameras=south&from=2024-05-14T12:00:00Z")
    expect_cameras(tab, ["south"] * 2)
    tab.get_by_role("button", name="nyala 0").click()
    expect(tab.locator("#answer-empty")).to_contain_text("No photo passes the filters")
    tab.reload()
    expect(tab.locator("#answer-empty")).to_contain_text("No photo passes the filters")
    expect(tab.locator("#labels button[aria-pressed=true]")).to_contain_text("nyala 0")
    expect(tab.get_by_label("From")).to_have_value("2024-05-14T14:00")


def test_what_to_do_where_nothing_is_found(client, open_page, picture, enrol):
    tab = open_page(client)
    drop(tab, picture(0))
    expect(tab.locator("#answer-empty")).to_contain_text("The gallery is empty")
    tab.locator("#answer-empty").get_by_role("link", name="Add photos").click()
    expect(tab.locator("#imports-view")).to_be_visible()
    enrol([{}, {}])
    tab.go_back()
    tab.get_by_label("Minimum score").fill("1")
    drop(tab, picture(9))
    expect(tab.locator("#answer-empty")).to_contain_text("None of 2 photos reaches the minimum score")
    tab.locator("#answer-empty").get_by_role("button", name="Clear filters").click()
    expect_ranks(tab, [1, 2])


def test_a_file_that_is_no_image_is_told_of(client, open_page, herd, refused):
    refused.add(415)
    tab = open_page(client)
    drop(tab, b"words, not pixels", name="notes.txt")
    expect(tab.locator("#verdict")).to_contain_text("no JPEG, PNG, WebP, BMP")
    expect(cards(tab)).to_have_count(0)


def test_a_later_question_supersedes_an_earlier_one(client, open_page, herd, picture):
    tab = open_page(client)
    held, ended = [], []
    tab.on("requestfailed", lambda request: ended.append(request.failure))
    tab.route("**/query", lambda route: route.continue_() if held else held.append(route))
    drop(tab, picture(0))
    expect(tab.locator("#results")).to_have_attribute("aria-busy", "true")
    tab.locator("#cameras button", has_text="south").click()
    expect_cameras(tab, ["south"] * 3)
    expect(tab.locator("#results")).not_to_have_attribute("aria-busy", "true")
    assert ended == ["net::ERR_ABORTED"]


def test_a_busy_service_is_asked_again(client, open_page, herd, picture, refused):
    refused.add(503)
    tab = open_page(client)
    tries = []

    def answer(route):
        tries.append(route)
        if len(tries) < 3:
            route.fulfill(status=503, headers={"Retry-After": "0"}, json={"detail": "busy"})
        else:
            route.continue_()

    tab.route("**/query", answer)
    drop(tab, picture(0))
    expect_ranks(tab, range(1, 7))


def test_a_match_is_searched_from_and_back_returns(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(0))
    expect_ranks(tab, range(1, 7))
    cards(tab).nth(1).click()
    tab.get_by_role("button", name="Search from this photo").click()
    expect_ranks(tab, range(1, 6))  # without the item itself
    expect(tab.locator("#subject li")).to_have_count(1)
    tab.go_back()
    expect_ranks(tab, range(1, 7))
    expect(tab.locator("#subject .name")).to_have_text("photo.png")


@pytest.mark.parametrize(
    ("known_from", "unknown_below", "verdict"),
    [
        (0.9, -0.9, "Known: most likely Nala."),
        (1.1, -0.9, "Unclear: the best match may be the same subject or one that looks alike. Compare by eye."),
        (1.1, 1.05, "Unknown: most likely none of the photos searched shows this subject."),
    ],
)
def test_a_calibrated_model_gives_a_verdict_and_probabilities(
    serve, open_page, picture, known_from, unknown_below, verdict
):
    levels = np.array([-1.0, 1.0]), np.array([0.1, 0.9])
    calibration = Calibration(*levels, known_from, unknown_below, 0.01, 10, 10, 10, 10, 0.1, 0.1, ())
    client = serve(calibration)
    said = {"metadata": json.dumps([{"label": "Nala"}])}
    client.post("/v1/items", files=[("images", ("a.png", picture(0)))], data=said).raise_for_status()
    tab = open_page(client)
    drop(tab, picture(0))
    expect(tab.locator("#verdict")).to_have_text(verdict)
    expect(cards(tab).locator(".score")).to_have_text("90 %")
    cards(tab).click()
    expect(tab.locator("#viewer-details")).to_contain_text("Probability90 %")


def test_scores_that_crowd_near_one_are_told_apart(client, open_page):
    tab = open_page(client)
    digits = "(scores) => import('/static/format.js').then((format) => format.digitsFor(scores))"
    assert tab.evaluate(digits, [0.9, 0.5]) == 3
    assert tab.evaluate(digits, [0.99991, 0.99992, 0.99992]) == 5
    assert tab.evaluate(digits, [0.99999991, 0.99999992]) == 6
    percent = "(values) => import('/static/format.js').then((format) => values.map(format.percent))"
    shown = ["0.0 %", "< 0.1 %", "0.5 %", "42 %", "99.5 %", "> 99.9 %", "100.0 %"]
    assert tab.evaluate(percent, [0, 1e-5, 0.005, 0.42, 0.995, 0.9999, 1]) == shown


def test_a_search_with_a_file_is_a_link_and_a_bad_file_is_left_out_by_name(client, open_page, herd, picture):
    tab = open_page(client)
    chosen = files(picture(3), b"no picture")
    chosen[0]["name"], chosen[1]["name"] = "cow.png", "broken.png"
    table = {"name": "Thumbs.db", "mimeType": "application/octet-stream", "buffer": b"words"}
    tab.set_input_files("#photos", [*chosen, table])
    tab.get_by_role("button", name="Yes, one subject").click()
    expect(tab.locator("#left-out li")).to_have_count(2)
    expect(tab.locator("#left-out")).to_contain_text("broken.png the file is no JPEG")
    expect(tab.locator("#left-out")).to_contain_text("Thumbs.db a file of the operating system")
    expect_ranks(tab, range(1, 7))
    tab.locator("#exclude-cameras button", has_text="south").click()
    expect_cameras(tab, ["north"] * 3)
    tab.get_by_label("Order").select_option("oldest")
    times = [f"{day} May 2024, 14:00" for day in (12, 14, 16)]
    expect(cards(tab).locator("time")).to_have_text(times)
    shared = open_page(client, tab.evaluate("location.pathname + location.hash"))  # in another browser
    expect(shared.locator("#subject .name")).to_have_text("cow.png")
    expect(cards(shared).locator("time")).to_have_text(
        ["12 May 2024, 14:00", "14 May 2024, 14:00", "16 May 2024, 14:00"]
    )
    tab.get_by_label("From").fill("2024-05-16T14:00")
    tab.get_by_label("Before").fill("2024-05-14T14:00")
    expect(tab.get_by_text("From is not before Before")).to_be_visible()


def test_an_outage_keeps_results_and_is_asked_again(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(0))
    expect_ranks(tab, range(1, 7))
    tab.route("**/query", lambda route: route.abort("connectionrefused"))
    tab.locator("#cameras button", has_text="south").click()
    expect(tab.locator("#verdict")).to_contain_text("What is shown is from before")
    expect_ranks(tab, range(1, 7))
    tab.unroute("**/query")
    expect_cameras(tab, ["south"] * 3)
    expect(tab.locator("#verdict")).to_have_text("")


def test_a_search_is_cancelled(client, open_page, herd, picture):
    tab = open_page(client)
    tab.route("**/query", lambda route: None)
    drop(tab, picture(0))
    expect(tab.locator("#search-doing")).to_have_text("Searching.")
    tab.get_by_role("button", name="Cancel").first.click()
    expect(tab.locator("#verdict")).to_have_text("Cancelled.")
    tab.unroute("**/query")
    tab.get_by_role("button", name="Search again").click()
    expect_ranks(tab, range(1, 7))


def test_photos_on_their_way_outlive_filters_other_views_and_cancel(client, open_page, herd, picture):
    tab = open_page(client)
    held = []
    tab.route("**/v1/subjects", lambda route: held.append(route))
    with tab.expect_request("**/v1/subjects"):
        drop(tab, picture(0))
    tab.locator("#cameras button", has_text="south").click()
    tab.locator("nav").get_by_role("link", name="Browse").click()
    with tab.expect_response("**/query"):
        held.pop().continue_()
    tab.unroute("**/v1/subjects")
    expect(tab.locator("#browse-view")).to_be_visible()
    assert tab.evaluate("location.hash") == "#/browse"
    tab.go_back()
    expect_cameras(tab, ["south"] * 3)
    assert "subject_id=" in tab.evaluate("location.hash")
    tab.reload()
    expect_cameras(tab, ["south"] * 3)
    tab.route("**/v1/subjects", lambda route: held.append(route))
    with tab.expect_request("**/v1/subjects"):
        drop(tab, picture(1))
    tab.get_by_role("button", name="Cancel").first.click()
    tab.unroute("**/v1/subjects")
    tab.get_by_role("button", name="Search again").click()
    expect_cameras(tab, ["south"] * 3)
    expect(tab.locator("#subject li")).to_have_count(1)


def test_a_filter_keeps_the_photo_of_the_address_that_is_being_fetched(client, open_page, herd):
    place = f"/#/search?item_id={herd[0]['item_id']}"
    tab = open_page(client)
    held = []
    tab.route("**/v1/items/*", lambda route: held.append(route))
    with tab.expect_request("**/v1/items/*"):
        tab.evaluate("(place) => { location.hash = place; }", place[1:])
    tab.locator("#cameras button", has_text="south").click()
    held.pop().continue_()
    expect_cameras(tab, ["south"] * 3)
    assert tab.evaluate("location.hash") == f"#/search?cameras=south&item_id={herd[0]['item_id']}"


def test_a_subject_is_added_under_a_name(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(9))
    expect_ranks(tab, range(1, 7))
    tab.get_by_label("Name of the subject").fill("Zazu")
    tab.keyboard.press("Enter")
    expect(tab.locator("#toasts")).to_contain_text("1 photo added as Zazu.")
    expect(cards(tab).first).to_contain_text("Zazu")
    assert client.get("/v1/items").json()["items"][-1]["label"] == "Zazu"


def test_several_photos_have_a_row_each_and_are_judged_by_keys(client, open_page, herd, picture, refused):
    refused.add(415)
    tab = open_page(client)
    tab.set_input_files("#photos", files(picture(1), picture(8), picture(9), b"no picture"))
    tab.get_by_role("button", name="No, one row each").click()
    rows = tab.locator(".rows > li")
    expect(rows.get_by_role("button", name="Accept")).to_have_count(3)
    expect(rows.nth(3)).to_contain_text("no JPEG")
    expect(rows.nth(0)).to_contain_text("nyala 0")
    nearest = ask(client, picture(8))["matches"][0]["label"]
    rows.nth(1).focus()
    tab.keyboard.press("a")
    expect(rows.nth(1)).to_contain_text(f"Added as {nearest}.")
    expect(rows.nth(2)).to_be_focused()
    tab.keyboard.press("n")
    expect(rows.nth(2)).to_contain_text("Added as somebody new.")
    tab.keyboard.press("s")
    expect(rows.nth(0)).to_contain_text("Skipped.")
    assert [item["label"] for item in client.get("/v1/items").json()["items"][6:]] == [nearest, None]
    tab.reload()
    expect(rows).to_have_count(3)


def test_when_and_where_the_matches_were_taken_is_drawn(client, open_page, enrol, picture):
    enrol(
        [
            {
                "camera": ("north", "south")[number % 2],
                "site": ("gate", "river")[number % 2],
                "captured_at": f"2024-05-{12 + number}T06:41:00+02:00",
                **({} if number == 5 else {"latitude": -25.0 - number % 2 / 10, "longitude": 31.5}),
            }
            for number in range(6)
        ]
    )
    tab = open_page(client)
    drop(tab, picture(2))
    expect(cards(tab)).to_have_count(6)
    tab.get_by_text("When, by camera").click()
    expect(tab.locator(".timeline .lane").first).to_contain_text("north")
    lefts = tab.locator(".dot").evaluate_all("(dots) => dots.map((dot) => [dot.title, dot.style.left])")
    assert sorted(left for _, left in lefts) == ["0%", "100%", "20%", "40%", "60%", "80%"]
    assert next(left for title, left in lefts if title.startswith("Rank 1,")) == "40%"
    expect(tab.locator(".lane.ends")).to_contain_text("12 May 2024")
    tab.get_by_text("Where (5 of 6 have a place)").click()
    expect(tab.locator(".map .place")).to_have_count(2)
    expect(tab.locator(".map")).to_contain_text("river")
    expect(tab.locator(".map .legend")).to_have_text("5 km")  # they are 11.12 km apart
    assert overlaps(tab) == []
    across = tab.locator(".map circle").evaluate_all(
        "(all) => all.map((one) => [one.cx, one.cy].map((l) => l.baseVal.value))"
    )
    assert across[0][0] == across[1][0]
    assert abs(across[0][1] - across[1][1]) == pytest.approx(11.12 * 868 / (2 * 11.12), abs=1)
    tab.locator(".dot[title^='Rank 2,']").click()
    expect(tab.get_by_role("dialog", name="Match 2")).to_be_visible()


def overlaps(tab):
    """Names on the map that lie over one another, or over the circle of another place."""
    return tab.locator(".map").evaluate(
        """(map) => {
            const drawn = [...map.querySelectorAll(".name, .legend, circle")];
            const boxes = drawn.map((one) => [one, one.getBoundingClientRect()]);
            const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
            return boxes.flatMap(([one, box], place) => boxes.slice(place + 1)
                .filter(([other, there]) => over(box, there) && [one, other].some((two) => two.tagName === "text"))
                .map(([other]) => [one.textContent, other.textContent]));
        }"""
    )


@pytest.mark.parametrize("width", [390, 1440])
def test_names_on_the_map_and_dates_below_the_times_can_be_read(client, open_page, enrol, picture, width):
    enrol(
        [
            {
                "site": f"waterhole {number}",
                "captured_at": f"2024-05-{12 + number}T06:41:00+02:00",
                **{"latitude": -25.0 - number % 3 / 200, "longitude": 31.5 + number / 250},
            }
            for number in range(9)
        ]
    )
    tab = open_page(client, viewport={"width": width, "height": 900})
    drop(tab, picture(2))
    tab.get_by_text("Where", exact=True).click()
    expect(tab.locator(".map .place")).to_have_count(9)
    assert tab.locator(".map .name").count() >= 4
    assert overlaps(tab) == []
    letters = tab.locator(".map .name").first.evaluate("(name) => name.getBoundingClientRect().height")
    assert letters > 12
    tab.get_by_text("When, by camera").click()
    heights = tab.locator(".lane.ends div span").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect().height)"
    )
    assert len(heights) == 2 and max(heights) < 26, "a date is on one line"
