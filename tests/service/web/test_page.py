"""The page in a real browser, against a real server; every test also fails on console errors and foreign requests."""

import base64
import json
import socket
import threading
from datetime import UTC, datetime, timedelta

import httpx2
import numpy as np
import pytest
import uvicorn

from reid.retrieval.calibration import Calibration
from service.api.app import create_app
from service.classification import Classification
from service.opening import load_classifier
from service.settings import Settings
from tests.waiting import DEADLINE, wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=30_000)
pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
ADMIN = "a-secret-of-the-test-for-everything-0123"
NOON = datetime(2024, 5, 12, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser at {CHROMIUM}: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def serve(gallery, runner, checkpoint, tmp_path):
    """A function that serves the gallery with some settings, and gives a client of that address."""
    running = []

    def run(calibration=None, classification=None, **options):
        settings = Settings(checkpoint=checkpoint, gallery=tmp_path / "gallery", **options)
        app = create_app(gallery, runner, settings, calibration, classification)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        client = httpx2.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=DEADLINE)
        running.append((server, thread, listening, client))
        return client

    yield run
    for server, thread, listening, client in running:
        client.close()
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def client(serve):
    return serve()


@pytest.fixture
def refused():
    """The statuses of refusals that a test expects; a browser logs each of them as an error."""
    return set()


@pytest.fixture
def open_page(chromium, refused):
    """A function that opens the page of a client in a new browser profile."""
    contexts, problems, statuses = [], [], set()

    def log(message):
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            problems.append(message.text)

    def run(client, path="/", clock=False, **options):
        usual = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "Africa/Johannesburg"}
        context = chromium.new_context(**{**usual, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on("filechooser", lambda chooser: None)  # from now on, for a later listener may come after the key
        tab.on("console", log)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("response", lambda answer: statuses.add(answer.status) if answer.status >= 400 else None)
        home = str(client.base_url).rstrip("/")
        tab.on("request", lambda asked: None if asked.url.startswith((home, "blob:")) else problems.append(asked.url))
        if clock:
            tab.clock.install()
        tab.goto(home + path)
        return tab

    yield run
    for context in contexts:
        context.close()
    assert problems == []
    assert statuses == refused


@pytest.fixture
def enrol(client, picture):
    """A function that enrols pictures 0, 1, 2, ... with what is said of each, and gives their items."""

    def run(said):
        files = [("images", (f"{number}.png", picture(number))) for number in range(len(said))]
        response = client.post("/v1/items", files=files, data={"metadata": json.dumps(said)})
        assert response.status_code == 201, response.text
        return [result["item"] for result in response.json()["results"]]

    return run


@pytest.fixture
def herd(enrol):
    """Six items: cameras north and south by turns, three labels of two items, a day between their times."""
    return enrol(
        [
            {
                "camera": ("north", "south")[number % 2],
                "label": f"nyala {number // 2}",
                "captured_at": (NOON + timedelta(days=number)).isoformat(),
            }
            for number in range(6)
        ]
    )


def files(*contents, kind="image/png"):
    return [{"name": f"{i}.png", "mimeType": kind, "buffer": content} for i, content in enumerate(contents)]


def transfer(tab, *contents, name="photo.png"):
    """What a drop or a paste brings."""
    return tab.evaluate_handle(
        """([name, contents]) => {
            const transfer = new DataTransfer();
            for (const text of contents) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: "image/png" }));
            }
            return transfer;
        }""",
        [name, [base64.b64encode(content).decode() for content in contents]],
    )


def drop(tab, *contents, name="photo.png"):
    tab.dispatch_event("main", "drop", {"dataTransfer": transfer(tab, *contents, name=name)})


def cards(tab):
    return tab.locator("#results .card:visible")


def expect_ranks(tab, ranks):
    expect(cards(tab).locator("b")).to_have_text([f"Rank {rank}" for rank in ranks])


def expect_cameras(tab, cameras):
    expect(cards(tab).locator(".camera")).to_have_text(cameras)


def ask(client, *images, **fields):
    sent = [("image", ("a.png", image)) for image in images]
    return client.post("/query", files=sent, data=fields).json()


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
    expect(tab.locator("#answer-facts")).to_contain_text("6 matches. 6 photos searched in ")
    expect(tab.locator("#answer-facts")).to_contain_text("Times are in Africa/Johannesburg.")
    for place in range(6):
        expect(cards(tab).nth(place).locator("img")).to_have_js_property("naturalWidth", 20)


def test_several_photos_are_one_query_and_one_can_be_left_out(client, open_page, herd, picture):
    tab = open_page(client)
    tab.set_input_files("#photos", files(picture(1), picture(4)))
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
    expect(tab.locator("#add-view")).to_be_visible()
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


def test_a_match_is_enlarged_with_all_that_is_known(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(2))
    cards(tab).first.click()
    dialog = tab.get_by_role("dialog", name="Match 1")
    expect(dialog.locator("#viewer-details")).to_contain_text("20 \N{MULTIPLICATION SIGN} 30 pixels")
    for text in ("1.000000", "nyala 1", "north", "14 May 2024", "14:00:00 GMT+2", "2.png", herd[2]["item_id"]):
        expect(dialog.locator("#viewer-details")).to_contain_text(text)
    for name in ("image", "subject"):
        expect(dialog.locator(f"#viewer-{name}")).to_have_js_property("naturalWidth", 20)
    expect(dialog.locator("#viewer-overlay")).to_be_hidden()
    dialog.get_by_role("button", name="Attention").click()
    expect(dialog.locator("#viewer-overlay")).to_be_visible()
    tab.keyboard.press("ArrowRight")
    expect(tab.get_by_role("dialog", name="Match 2")).to_be_visible()
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator("#viewer-previous")).to_be_disabled()
    tab.keyboard.press("Escape")
    expect(cards(tab).first).to_be_focused()


def test_a_label_is_saved_and_shown_everywhere(client, open_page, herd, picture):
    tab = open_page(client)
    tab.locator("nav").get_by_role("link", name="Browse").click()
    expect(tab.locator("#enrolled .card")).to_have_count(6)
    tab.locator("nav").get_by_role("link", name="Search").click()
    drop(tab, picture(5))
    cards(tab).first.click()
    tab.locator("#viewer").get_by_label("Label").fill("Zazu")
    tab.keyboard.press("Enter")
    expect(tab.locator("#viewer-state")).to_have_text("Labelled Zazu.")
    expect(tab.locator("#viewer-details")).to_contain_text("Zazu")
    assert client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] == "Zazu"
    tab.get_by_role("button", name="Close").click()
    expect(cards(tab).first.locator(".label")).to_have_text("Zazu")
    expect(tab.locator("#labels button", has_text="Zazu")).to_be_visible()
    expect(tab.locator("#label-names option[value=Zazu]")).to_have_count(1)
    tab.locator("nav").get_by_role("link", name="Browse").click()
    expect(tab.locator("#enrolled .card").last).to_contain_text("Zazu")
    tab.locator("#enrolled .card").last.click()
    tab.locator("#viewer").get_by_label("Label").fill("")
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator("#viewer-state")).to_have_text("Label taken away.")
    assert client.get(f"/v1/items/{herd[5]['item_id']}").json()["label"] is None


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


def test_a_delete_can_be_taken_back(client, open_page, herd, picture):
    tab = open_page(client, clock=True)
    drop(tab, picture(1))
    expect_ranks(tab, range(1, 7))
    cards(tab).nth(2).click()
    tab.get_by_role("button", name="Delete").click()
    expect_ranks(tab, [1, 2, 4, 5, 6])
    expect(cards(tab).nth(2)).to_be_focused()
    tab.get_by_role("button", name="Undo").click()
    expect_ranks(tab, range(1, 7))
    tab.keyboard.press("Delete")
    expect_ranks(tab, [1, 2, 4, 5, 6])
    tab.keyboard.press("Control+z")
    expect_ranks(tab, range(1, 7))
    tab.clock.run_for(60_000)
    expect(tab.locator("#toasts p")).to_have_count(0)
    assert client.get("/health/ready").json()["items"] == 6


def test_a_delete_is_done_when_the_time_has_passed(client, open_page, herd, picture):
    tab = open_page(client, clock=True)
    drop(tab, picture(1))
    expect_ranks(tab, range(1, 7))
    cards(tab).first.focus()
    tab.keyboard.press("Delete")
    expect(tab.locator("#toasts")).to_contain_text("Deleted nyala 0.")
    assert client.get(f"/v1/items/{herd[1]['item_id']}").status_code == 200
    tab.clock.run_for(9_000)
    expect(tab.locator("#gallery-state")).to_have_text("5 photos")
    assert client.get(f"/v1/items/{herd[1]['item_id']}").status_code == 404


def test_a_delete_is_done_when_the_page_is_left(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(1))
    cards(tab).first.focus()
    tab.keyboard.press("Delete")
    expect(tab.locator("#toasts")).to_contain_text("Deleted")
    tab.goto("about:blank")
    wait_until(lambda: client.get(f"/v1/items/{herd[1]['item_id']}").status_code == 404)


def test_a_delete_that_is_refused_comes_back(client, open_page, herd, picture, refused):
    refused.add(507)
    tab = open_page(client, clock=True)
    drop(tab, picture(1))
    tab.route("**/v1/items/*", lambda route: route.fulfill(status=507, json={"detail": "the disk is full"}))
    cards(tab).first.focus()
    tab.keyboard.press("Delete")
    expect_ranks(tab, range(2, 7))
    tab.clock.run_for(9_000)
    expect(tab.locator("#toasts")).to_have_text("Not deleted: the disk is full")
    expect_ranks(tab, range(1, 7))


def test_photos_are_added_with_a_result_for_each(client, open_page, enrol, picture):
    enrol([{}])
    tab = open_page(client, "/#add")
    said = tab.locator("#add-form")
    said.get_by_label("Camera").fill("gate")
    said.get_by_label("Label").fill("Nala")
    said.get_by_label("Time (Africa/Johannesburg)").fill("2024-05-12T14:00:30")
    sent = files(picture(0), picture(1), b"no picture", picture(2))
    tab.set_input_files("#files", sent)
    expect(tab.locator("#add-summary")).to_have_text("2 added, 1 there already, 1 refused.")
    expect(tab.locator("#add-refused li")).to_contain_text("2.png")
    expect(tab.locator("#add-refused li")).to_contain_text("no JPEG, PNG, WebP, BMP")
    tab.get_by_text("In the gallery").click()
    kept = ["0.png was there already and is left as it is", "1.png added", "3.png added"]
    expect(tab.locator("#add-kept li")).to_have_text(kept)
    expect(tab.locator("#gallery-state")).to_have_text("3 photos")
    first, *others = client.get("/v1/items").json()["items"]
    assert first["label"] is None
    for item in others:
        assert (item["camera"], item["label"]) == ("gate", "Nala")
        assert datetime.fromisoformat(item["captured_at"]) == NOON + timedelta(seconds=30)
    tab.locator("nav").get_by_role("link", name="Search").click()
    drop(tab, picture(1))
    expect_cameras(tab, ["gate", "gate"])


def test_a_folder_is_added_in_portions(client, open_page, tmp_path, picture):
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"{number:02d}.png").write_bytes(picture(number))
    tab = open_page(client, "/#add")
    sent = []
    tab.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    tab.set_input_files("#folder", tmp_path / "photos")
    expect(tab.locator("#add-summary")).to_have_text("40 added.")
    assert len(sent) == 2
    tab.get_by_text("In the gallery").click()
    expect(tab.locator("#add-kept b", has_text="photos/inner/07.png")).to_be_visible()


def test_portions_that_are_too_large_for_the_service_are_split(serve, open_page, picture, refused):
    refused.add(400)
    client = serve(max_images=3)
    tab = open_page(client, "/#add")
    tab.set_input_files("#files", files(*(picture(number) for number in range(8))))
    expect(tab.locator("#add-summary")).to_have_text("8 added.")


def test_adding_stops(client, open_page, picture):
    tab = open_page(client, "/#add")
    held = []
    tab.route("**/v1/items", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    tab.set_input_files("#files", files(*(picture(number) for number in range(33))))
    expect(tab.get_by_role("progressbar", name="Progress")).to_be_visible()
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#add-summary")).to_have_text("Stopping after the photos that are under way.")
    held[0].continue_()
    expect(tab.locator("#add-summary")).to_have_text("32 added. Stopped: 1 not sent.")


def test_all_photos_are_listed_a_page_at_a_time(client, open_page, enrol, picture):
    enrol([{}] * 32)
    for start in (32, 64):
        sent = [("images", (f"{number}.png", picture(number))) for number in range(start, start + 32)]
        assert client.post("/v1/items", files=sent).status_code == 201
    tab = open_page(client, "/#browse")
    expect(tab.locator("#enrolled .card")).to_have_count(60)
    tab.get_by_role("button", name="Show more").click()
    expect(tab.locator("#enrolled .card")).to_have_count(96)
    expect(tab.get_by_role("button", name="Show more")).to_be_hidden()


def test_the_keyboard_is_enough(client, open_page, herd, picture):
    tab = open_page(client)
    expect(tab.locator("#gallery-state")).to_have_text("6 photos")
    tab.keyboard.press("?")
    expect(tab.get_by_role("dialog", name="Keyboard")).to_be_visible()
    tab.keyboard.press("Escape")
    tab.keyboard.press("/")
    expect(tab.get_by_role("button", name="Choose photos")).to_be_focused()
    with tab.expect_file_chooser() as choosing:
        tab.keyboard.press("Enter")
    choosing.value.set_files(files(picture(0)))
    expect_ranks(tab, range(1, 7))
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.classList.contains('card')"):
            break
    expect(cards(tab).nth(0)).to_be_focused()
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, place in (("ArrowRight", 1), ("End", 5), ("ArrowUp", 0), ("ArrowDown", 5), ("Home", 0)):
        tab.keyboard.press(key)
        expect(cards(tab).nth(place)).to_be_focused()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("dialog", name="Match 2")).to_be_visible()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Escape")
    expect(cards(tab).nth(2)).to_be_focused()


def test_names_from_outside_are_text(client, open_page, enrol, picture, refused):
    refused.add(415)
    enrol([{"label": HOSTILE, "camera": HOSTILE, "key": HOSTILE, "attributes": {HOSTILE: HOSTILE}}])
    tab = open_page(client)
    drop(tab, picture(0), name=HOSTILE.replace("/", ""))
    expect(tab.locator("#subject .name")).to_have_text(HOSTILE)
    expect(cards(tab).locator(".label")).to_have_text(HOSTILE)
    expect(cards(tab).locator(".camera")).to_have_text(HOSTILE)
    expect(tab.locator("#cameras .chips span")).to_have_text(HOSTILE)
    cards(tab).first.click()
    expect(tab.locator("#viewer-details dt", has_text=HOSTILE)).to_have_count(1)
    tab.keyboard.press("Escape")
    drop(tab, b"nothing", name=HOSTILE)
    expect(tab.locator("#verdict")).to_contain_text("no JPEG")
    tab.locator("nav").get_by_role("link", name="Add photos").click()
    drop(tab, b"nothing", name=HOSTILE)
    expect(tab.locator("#add-refused b")).to_have_text(HOSTILE)
    assert tab.title() == "Re-ID gallery"
    assert tab.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 28)")])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_sideways_scroll_in_light_and_dark(client, open_page, enrol, picture, scheme, paper, width):
    enrol([{"label": "x" * 200, "camera": "y" * 200, "key": "z" * 200}] + [{}] * 5)
    tab = open_page(client, viewport={"width": width, "height": 800}, color_scheme=scheme)
    drop(tab, picture(0), picture(1), name="n" * 200)
    expect_ranks(tab, range(1, 7))

    def scrolls():
        return tab.evaluate("document.documentElement.scrollWidth > innerWidth")

    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    tab.locator("#filter-fold").evaluate("(fold) => { fold.open = true; }")
    assert not scrolls()
    cards(tab).first.click()
    expect(tab.locator("#viewer-details")).to_contain_text("pixels")
    assert not tab.locator("#viewer").evaluate("(dialog) => dialog.scrollWidth > dialog.clientWidth")
    tab.keyboard.press("Escape")
    for name in ("Add photos", "Browse"):
        tab.locator("nav").get_by_role("link", name=name).click()
        assert not scrolls()


def test_every_control_and_picture_has_a_name(client, open_page, herd, picture):
    tab = open_page(client)
    drop(tab, picture(0))
    expect_ranks(tab, range(1, 7))
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll("button, a, input:not([hidden]), select, summary")]
            .filter((one) => !(one.textContent.trim() || one.labels?.length || one.ariaLabel))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert tab.locator("img:not([alt])").count() == 0
    assert (
        tab.evaluate(
            """() => [...document.querySelectorAll("[id]")].map((one) => one.id)
            .filter((id, place, ids) => ids.indexOf(id) !== place)"""
        )
        == []
    )
    assert tab.locator("h1").count() == 1
    for landmark in ("banner", "navigation", "main"):
        assert tab.get_by_role(landmark).count() == 1
    expect(tab.locator("#answer-state")).to_have_attribute("role", "status")
    expect(cards(tab).first).to_have_accessible_name("Rank 1 1.000 nyala 0 Camera north 12 May 2024, 14:00")


def test_a_key_is_asked_for_where_one_is_needed(serve, open_page, picture, refused):
    refused.add(401)
    client = serve(require_keys=True, admin_key=ADMIN)
    photo = [("images", ("a.png", picture(0)))]
    client.post("/v1/items", files=photo, headers={"X-API-Key": ADMIN}).raise_for_status()
    tab = open_page(client)
    dialog = tab.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("API key").fill("wrong")
    tab.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("the key is unknown or revoked")
    dialog.get_by_label("API key").fill(ADMIN)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()
    drop(tab, picture(0))
    expect_ranks(tab, [1])
    expect(cards(tab).locator("img")).to_have_js_property("naturalWidth", 20)
    assert tab.evaluate("document.cookie") == ""
    tab.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()


def test_a_key_that_may_not_write_is_offered_no_changes(serve, open_page, picture, refused):
    refused.add(401)
    client = serve(require_keys=True, admin_key=ADMIN)
    admin = {"X-API-Key": ADMIN}
    client.post("/v1/items", files=[("images", ("a.png", picture(0)))], headers=admin).raise_for_status()
    made = client.post("/v1/admin/keys", json={"name": "viewer", "scopes": ["read"]}, headers=admin).json()
    tab = open_page(client)
    tab.get_by_label("API key").fill(made["secret"])
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("button", name="Sign out")).to_be_visible()
    drop(tab, picture(0))
    cards(tab).first.click()
    expect(tab.get_by_role("button", name="Search from this photo")).to_be_visible()
    expect(tab.get_by_role("button", name="Save")).to_be_hidden()
    expect(tab.get_by_role("button", name="Delete")).to_be_hidden()
    tab.keyboard.press("Delete")
    tab.keyboard.press("Escape")
    expect_ranks(tab, [1])
    tab.locator("nav").get_by_role("link", name="Add photos").click()
    expect(tab.locator("#add-forbidden")).to_be_visible()
    expect(tab.locator("#add-form")).to_be_hidden()


def test_why_the_service_is_not_ready(client, open_page, refused):
    refused.add(503)
    problem = {"detail": "the gallery belongs to another model", "code": "model_mismatch"}

    def refuse(route):
        route.fulfill(status=503, json=problem)

    tab = open_page(client, clock=True)
    expect(tab.locator("#gallery-state")).to_have_text("The gallery is empty")
    tab.route("**/health/ready", refuse)
    tab.reload()
    expect(tab.locator("#not-ready")).to_have_text("Not ready: the gallery belongs to another model")
    tab.unroute("**/health/ready")
    tab.clock.run_for(6_000)
    expect(tab.locator("#not-ready")).to_be_hidden()


def test_the_toy_model_is_named_as_such(client, gallery, open_page):
    tab = open_page(client)
    expect(tab.locator("#gallery-state")).to_have_text("The gallery is empty")
    expect(tab.locator("#toy")).to_be_hidden()
    gallery.trained_on = "toy"
    tab.reload()
    expect(tab.locator("#toy")).to_contain_text("This is the toy model")


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
