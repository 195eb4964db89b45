"""What all views of the page share, in a real browser: keys, sign-in, messages, light and dark."""

import pytest

from tests.service.web.acting import ADMIN, HOSTILE, cards, close_viewer, drop, expect, expect_ranks, files

pytestmark = pytest.mark.browser


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
    close_viewer(tab)
    drop(tab, b"nothing", name=HOSTILE)
    expect(tab.locator("#verdict")).to_contain_text("no JPEG")
    tab.locator("nav").get_by_role("link", name="Imports").click()
    drop(tab, b"nothing", name=f"{HOSTILE}.png")
    expect(tab.get_by_role("region", name="Not added").locator("b")).to_have_text(f"{HOSTILE}.png")
    assert tab.title() == "Imports · Re-ID gallery"
    assert tab.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 28)")])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_sideways_scroll_in_light_and_dark(client, open_page, enrol, picture, scheme, paper, width):
    enrol([{"label": "x" * 200, "camera": "y" * 200, "key": "z" * 200}] + [{}] * 5)
    tab = open_page(client, viewport={"width": width, "height": 800}, color_scheme=scheme)
    drop(tab, picture(0), picture(1), name="n" * 200)
    tab.get_by_role("button", name="Yes, one subject").click()
    expect_ranks(tab, range(1, 7))

    def scrolls():
        return tab.evaluate("document.documentElement.scrollWidth > innerWidth")

    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    tab.locator("#filter-fold").evaluate("(fold) => { fold.open = true; }")
    assert not scrolls()
    cards(tab).first.click()
    expect(tab.locator("#viewer-details")).to_contain_text("pixels")
    assert not tab.locator("#viewer").evaluate("(dialog) => dialog.scrollWidth > dialog.clientWidth")
    close_viewer(tab)
    for name in ("Imports", "Browse"):
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


@pytest.mark.parametrize("root", ["", "/reid"])
def test_a_key_is_asked_for_where_one_is_needed(serve, open_page, picture, refused, root):
    refused.add(401)
    client = serve(require_keys=True, admin_key=ADMIN, root_path=root)
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
    close_viewer(tab)
    expect_ranks(tab, [1])
    tab.locator("nav").get_by_role("link", name="Imports").click()
    expect(tab.get_by_text("This key may search, but not add photos.")).to_be_visible()
    expect(tab.get_by_role("button", name="Choose files")).to_have_count(0)


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


def test_the_header_counts_after_every_change(client, open_page, herd):
    tab = open_page(client, "/#/browse")
    tab.on("dialog", lambda dialog: dialog.accept())
    expect(tab.locator("#gallery-state")).to_have_text("6 photos")
    tab.locator("#browse-view").get_by_label("Camera").fill("north")
    tab.keyboard.press("Enter")
    expect(tab.locator("#enrolled li")).to_have_count(3)
    tab.locator("#enrolled input").first.check()
    tab.get_by_role("button", name="Select all that pass").click()
    expect(tab.get_by_role("region", name="Selected photos")).to_contain_text("All 3")
    tab.get_by_role("button", name="Delete", exact=True).click()
    expect(tab.locator("#gallery-state")).to_have_text("3 photos")
    # What others did is seen when one comes back.
    client.delete(f"/v1/items/{herd[1]['item_id']}")
    tab.evaluate("dispatchEvent(new Event('focus'))")
    expect(tab.locator("#gallery-state")).to_have_text("2 photos")


def test_names_are_offered_anew_after_every_change(client, open_page, herd):
    tab = open_page(client, f"/#/individuals/{herd[0]['identity_id']}")
    offered = tab.locator("#label-names option")
    expect(offered).to_have_count(3)
    tab.get_by_label("Name", exact=True).fill("Nala")
    tab.get_by_role("button", name="Rename", exact=True).click()
    expect(tab.locator("#label-names option[value=Nala]")).to_have_count(1)
    expect(tab.locator("#label-names option[value='nyala 0']")).to_have_count(0)


def test_the_files_of_the_page_come_at_once_and_are_asked_for_only_once(client, open_page):
    def opened(tab):
        """The bytes that came of each file of the page, in the order in which they were asked for."""
        expect(tab.locator("#browse-facts")).not_to_be_empty()
        entries = tab.evaluate("performance.getEntriesByType('resource').map((one) => [one.name, one.transferSize])")
        own = [(url.partition("/static/")[2].partition("/")[2], size) for url, size in entries if "/static/" in url]
        return [(name, size) for name, size in own if name != "icon.svg"]  # which browsers ask for as they like

    tab = open_page(client, "/#/browse")
    first = opened(tab)
    assert {"style.css", "main.js", "views/browse.js", "vendor/preact.js"} < {name for name, _ in first}
    assert len({name for name, _ in first}) == len(first) and all(size > 0 for _, size in first)
    # What main.js imports is on its way before it has come, and so before anything asks the service.
    requested = tab.evaluate(
        """() => {
          const all = performance.getEntriesByType("resource");
          const main = all.find((one) => one.name.endsWith("/main.js"));
          const modules = all.filter((one) => one.name.endsWith(".js"));
          return modules.every((one) => one.startTime <= main.responseEnd);
        }"""
    )
    assert requested
    tab.goto("about:blank")
    tab.goto(f"{client.base_url}#/browse")
    assert sorted(opened(tab)) == sorted((name, 0) for name, _ in first)
