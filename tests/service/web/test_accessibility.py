"""Every view at both widths and in both colour schemes, as axe judges it, in a real browser."""

import pytest

from tests.service.web.acting import ADMIN, drop, expect, expect_ranks, named
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def searched(tab, client, picture):
    drop(tab, picture(0))
    expect_ranks(tab, range(1, 7))


def enlarged(tab, client, picture):
    searched(tab, client, picture)
    tab.locator("#results .card").first.click()
    expect(tab.locator("#viewer-details")).to_contain_text("pixels")


def drawn_on(tab, client, picture):
    searched(tab, client, picture)
    tab.get_by_role("button", name="Draw a box").click()
    tab.locator(".boxing").press("ArrowLeft")
    expect(tab.get_by_role("button", name="Search this box")).to_be_enabled()


def one_more(tab, client, picture):
    tab.locator("#enrolled .card").first.click()
    viewer = tab.locator("#viewer")
    viewer.get_by_role("button", name="Draw a box").click()
    tab.locator(".boxing").press("ArrowLeft")
    viewer.get_by_role("button", name="Add this box").click()
    expect(viewer.get_by_text("2 items of this photo")).to_be_visible()
    viewer.get_by_role("button", name="Draw a box").click()
    tab.locator(".boxing").press("ArrowLeft")


def mapped(tab, client, picture):
    for number, item in enumerate(client.get("/v1/items").json()["items"]):
        client.patch(f"/v1/items/{item['item_id']}", json={"latitude": -25 - number / 100, "longitude": 31.5})
    searched(tab, client, picture)
    for name in ("When, by camera", "Where"):
        tab.get_by_text(name, exact=True).click()
    expect(tab.locator(".map .place")).to_have_count(6)


def reviewed(tab, client, picture):
    client.post("/v1/items", files=[("images", (f"{n}.png", picture(n))) for n in range(6, 14)])
    client.post("/v1/review/start", json={"gold": 0})
    wait_until(lambda: client.get("/v1/review/next").status_code == 200)
    tab.locator("nav").get_by_role("link", name="Review").click()
    expect(tab.locator(".answers .same")).to_be_enabled()


def disputed(tab, client, picture):
    added = client.post("/v1/items", files=[("images", (f"{n}.png", picture(n))) for n in range(6, 9)]).json()
    a, b, c = (result["item"]["item_id"] for result in added["results"])
    for pair, answer in (((a, b), "same"), ((b, c), "same"), ((a, c), "different")):
        client.post("/v1/decisions", json={"decisions": [{"a": pair[0], "b": pair[1], "answer": answer}]})
    tab.reload()
    expect(tab.get_by_text("1 conflict.")).to_be_visible()


def chosen(tab, client, picture):
    tab.locator(".individuals .card").first.click()
    tab.get_by_label("Select").first.check()
    tab.get_by_role("button", name="Another attribute").click()
    expect(tab.get_by_label("Look-alikes").get_by_role("link")).to_have_count(2)


def administered(tab, client, picture):
    tab.get_by_role("button", name="Back up").click()
    tab.get_by_role("button", name="Show").click()
    expect(tab.get_by_role("row").filter(has_text="item.enrol").first).to_be_visible()


def listed(tab, client, picture):
    items = [item["item_id"] for item in client.get("/v1/items").json()["items"]]
    made = client.post("/v1/shortlists", json={"name": "For Monday", "item_ids": items}).json()
    tab.goto(f"{tab.url}/{made['shortlist_id']}")
    expect(tab.locator("#shortlists-view li")).to_have_count(6)


def selected(tab, client, picture):
    tab.locator("#enrolled input").first.check()
    expect(tab.get_by_role("region", name="Selected photos")).to_be_visible()


def keys(tab, client, picture):
    tab.keyboard.press("?")
    expect(tab.get_by_role("dialog", name="Keyboard")).to_be_visible()


def compared(tab, client, picture):
    enlarged(tab, client, picture)
    tab.get_by_role("button", name="Compare").click()
    expect(tab.locator(".twins img")).to_have_count(2)


def in_rows(tab, client, picture):
    drop(tab, picture(0), picture(8))
    tab.get_by_role("button", name="No, one row each").click()
    expect(tab.locator(".rows img")).to_have_count(4)


TABLE = b"bild;Tier;When;Coat\n1.png;nyala 7;25/05/2024 14:00;red\n2.png;;26/05/2024;grey"


def looked_at(tab, client, picture):
    tab.set_input_files(
        "#import-files", [named("t.csv", TABLE), named("1.png", picture(21)), named("2.png", picture(22))]
    )
    tab.get_by_label("What bild is").select_option("path")
    tab.get_by_label("What When is").select_option("captured_at")
    expect(tab.get_by_label("The times of the table do not tell their zone")).to_be_visible()


def imported(tab, client, picture):
    sent = [named("1.png", picture(0)), named("2.png", picture(31)), named("3.png", b"no"), named("4.nef", b"raw")]
    tab.set_input_files("#import-files", sent)
    expect(tab.get_by_role("link", name="Review these")).to_be_visible()
    expect(tab.locator("#import-failed")).to_be_visible()
    expect(tab.locator("#gallery-state")).to_have_text("7 photos")


def unfinished(tab, client, picture):
    made = client.post("/v1/imports", json={"name": "May"}).json()["import_id"]
    client.post(f"/v1/imports/{made}/files", json={"files": [{"name": "a/1.png", "size": 9}]})
    tab.goto(f"{tab.url}/{made}")
    expect(tab.get_by_label("Files that have not come whole")).to_have_text("a/1.png")


WIDTHS = (390, 1440)
# What to open, and what shows that it is drawn: a selector, or a function of the tab, the client and `picture`.
VIEWS = {
    "home": ("#/home", "#home-view h2"),
    "search": ("#/search", "#choose-photos"),
    "search answered": ("#/search", searched),
    "large view": ("#/search", enlarged),
    "box on the subject": ("#/search", drawn_on),
    "box in the large view": ("#/browse", one_more),
    "when and where": ("#/search", mapped),
    "compare": ("#/search", compared),
    "rows": ("#/search", in_rows),
    "keyboard": ("#/home", keys),
    "browse": ("#/browse", "#enrolled .card"),
    "browse selected": ("#/browse", selected),
    "admin": ("#/admin", administered),
    "shortlists": ("#/shortlists", listed),
    "imports": ("#/imports", "#imports-view .drop"),
    "import looked at": ("#/imports", looked_at),
    "import reported": ("#/imports", imported),
    "import unfinished": ("#/imports", unfinished),
    "review": ("#/home", reviewed),
    "conflicts": ("#/review/conflicts", disputed),
    "start of a review": ("#/review/start", "#review-view form"),
    "individuals": ("#/individuals", ".individuals .card"),
    "individual": ("#/individuals", chosen),
}


@pytest.fixture(scope="session")
def axe(tools):
    return (tools / "axe-core" / "axe.min.js").read_text()


def judge(tab, axe):
    tab.evaluate(axe)
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours half way of a change are nobody's
            found = tab.evaluate("axe.run()")["violations"]
            places = [(one["id"], node["html"][:200], node["failureSummary"]) for one in found for node in one["nodes"]]
            assert places == [], (width, scheme)
            assert not tab.evaluate("document.documentElement.scrollWidth > innerWidth"), (width, scheme)


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(client, open_page, herd, picture, axe, view):
    path, drawn = VIEWS[view]
    tab = open_page(client, f"/{path}")
    expect(tab.locator("#gallery-state")).to_have_text("6 photos")
    if callable(drawn):
        drawn(tab, client, picture)
    else:
        expect(tab.locator(drawn).first).to_be_visible()
    judge(tab, axe)


def test_axe_finds_nothing_where_a_key_is_asked_for(serve, open_page, refused, axe):
    refused.add(401)
    tab = open_page(serve(require_keys=True, admin_key=ADMIN))
    expect(tab.get_by_role("dialog", name="Sign in")).to_be_visible()
    judge(tab, axe)
