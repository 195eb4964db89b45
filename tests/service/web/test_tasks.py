"""What people come for, from an empty gallery to a table or a file, at every width and in every scheme."""

import csv
import re
from itertools import cycle
from pathlib import Path

import pytest

from service.records import NewKey
from service.storage.keys import Keys
from tests.service.web.acting import ADMIN, cards, close_viewer, expect, expect_ranks, named
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

# Every task goes through these, the next one with each step.
SCREENS = [(1440, "light"), (390, "dark"), (1440, "dark"), (390, "light")]
VIEWS = ["home", "search", "rows", "compare", "browse", "shortlists", "imports", "review", "individuals", "admin"]
WRITING = re.compile(r"^(Save|Delete|Start|Rename|Merge|Make a key|Back up|Change)\b")


class Work:
    """A tab in which somebody works, at one screen after the other."""

    def __init__(self, tab):
        self.tab = tab
        self.screens = cycle(SCREENS)
        self.seen = set()
        self.step()

    def step(self):
        """Go on at the next screen, where nothing lies beside it."""
        width, scheme = screen = next(self.screens)
        self.tab.set_viewport_size({"width": width, "height": 900})
        self.tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.seen.add(screen)
        assert not self.tab.evaluate("document.documentElement.scrollWidth > innerWidth"), screen

    def go(self, view):
        """Follow a link of the navigation."""
        self.tab.locator("nav").get_by_role("link", name=view, exact=True).click()

    def reach(self, place, key="Tab"):
        """Come to an element by keys alone."""
        for _ in range(150):
            if place.evaluate("(one) => one === document.activeElement"):
                return
            self.tab.keyboard.press(key)
        raise AssertionError(f"{place} is not reached by {key}")

    def add(self, *sent):
        """Import files, which are named on the page."""
        self.go("Imports")
        self.tab.set_input_files("#import-files", list(sent))
        expect(self.tab.locator("#imports-view .summary")).to_contain_text(f"{len(sent)} added")


@pytest.fixture
def work(open_page):
    """A function that opens a page to work in; at the end each has seen every screen."""
    begun = []

    def open_it(client, path="/", **options):
        begun.append(Work(open_page(client, path, **options)))
        return begun[-1]

    yield open_it
    assert all(one.seen == set(SCREENS) for one in begun)


def photos(picture, count, start=0):
    return [named(f"IMG_{number}.png", picture(number)) for number in range(start, start + count)]


def slowed(tab):
    """Have every request of a tab take 200 ms, and bytes come as by a phone far away."""
    session = tab.context.new_cdp_session(tab)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 200, "downloadThroughput": 200_000, "uploadThroughput": 50_000}
    session.send("Network.emulateNetworkConditions", limits)


def test_an_ecologist_names_her_photos_corrects_one_and_takes_the_table_home(client, work, outage, picture):
    one = work(client)
    tab = one.tab
    expect(tab.locator("#gallery-state")).to_have_text("The gallery is empty")
    tab.locator("#home-view").get_by_role("link", name="Add photos").click()
    one.add(*photos(picture, 6))
    one.step()
    one.go("Browse")
    shown = tab.locator("#enrolled li")
    expect(shown).to_have_count(6)
    shown.nth(0).get_by_role("checkbox").check()
    shown.nth(1).get_by_role("checkbox").check()
    bar = tab.get_by_role("region", name="Selected photos")
    one.step()
    with outage(client):
        bar.get_by_label("Label", exact=True).fill("Zazu")
        bar.get_by_role("button", name="Change").click()
        expect(tab.locator("#toasts")).to_contain_text("cannot be reached")
        expect(shown).to_have_count(6)
    bar.get_by_role("button", name="Change").click()
    expect(tab.locator("#toasts")).to_contain_text("2 photos changed.")
    one.step()
    shown.nth(1).get_by_role("button").click()
    viewer = tab.locator("#viewer")
    viewer.get_by_label("Label").fill("Nala")
    viewer.get_by_role("button", name="Save").click()
    viewer.get_by_role("button", name="Close").click()
    expect(shown.locator(".label")).to_have_text(["Zazu", "Nala", *["no label"] * 4])
    bar.get_by_role("button", name="Clear").click()
    one.go("Individuals")
    tab.get_by_text("Take the table home, or add somebody").click()
    with tab.expect_download() as loading:
        tab.get_by_role("link", name="Download").click()
    rows = list(csv.DictReader(Path(loading.value.path()).read_text().splitlines()))
    assert sorted(row["name"] for row in rows if row["name"]) == ["Nala", "Zazu"]


def test_an_investigator_compares_by_keys_over_a_slow_network_and_shows_a_colleague(
    client, work, open_page, outage, picture
):
    one = work(client)
    tab = one.tab
    tab.on("dialog", lambda dialog: dialog.accept("For Monday"))
    one.add(*photos(picture, 6))
    one.step()
    slowed(tab)
    one.reach(tab.locator("nav").get_by_role("link", name="Search", exact=True))
    tab.keyboard.press("Enter")
    one.reach(tab.locator("#choose-photos"))
    with tab.expect_file_chooser() as chooser:
        tab.keyboard.press("Enter")
    chooser.value.set_files([named("van.png", picture(3))])
    expect_ranks(tab, range(1, 7))
    link = tab.evaluate("location.pathname + location.hash")
    colleague = open_page(client, link)
    expect(colleague.locator("#subject .name")).to_have_text("van.png")
    expect_ranks(colleague, range(1, 7))
    one.step()
    viewer = tab.locator("#viewer")
    for button, matches in (("Search from this photo", 5), ("Compare", 0)):
        one.reach(cards(tab).first)
        tab.keyboard.press("Enter")
        one.reach(viewer.get_by_role("button", name=button))
        tab.keyboard.press("Enter")
        if matches:
            expect_ranks(tab, range(1, matches + 1))
    expect(tab.get_by_text("1 of 5")).to_be_visible()
    expect(tab.get_by_role("button", name="Different")).to_be_enabled()
    one.step()
    with outage(client):
        tab.keyboard.press("d")
        expect(tab.get_by_role("status").filter(has_text="cannot be reached")).to_be_visible()
        expect(tab.get_by_text("1 of 5")).to_be_visible()
    for place in (2, 3):
        expect(tab.get_by_role("button", name="Different")).to_be_enabled()
        tab.keyboard.press("+")
        tab.keyboard.press("u")
        expect(tab.get_by_text(f"{place} of 5")).to_be_visible()
    tab.keyboard.press("Escape")
    expect_ranks(tab, range(1, 6))
    one.reach(cards(tab).first)
    tab.keyboard.press("Enter")
    one.reach(viewer.get_by_role("button", name="Add to shortlist"))
    tab.keyboard.press("Enter")
    expect(tab.locator("#toasts")).to_contain_text("1 added to For Monday.")
    close_viewer(tab)
    one.go("Shortlists")
    tab.get_by_role("link", name="For Monday").click()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="HTML file with pictures").click()
    assert "data:image/jpeg;base64," in download.value.path().read_text()


def test_two_people_name_everybody_by_keys_and_take_an_answer_back(client, work, outage, picture):
    first = work(client)
    first.add(*photos(picture, 8))
    who = {item["item_id"]: int(item["source"][4:-4]) % 2 for item in client.get("/v1/items").json()["items"]}
    job = client.post("/v1/review/start", json={"gold": 0, "error": 0}).json()["job_id"]
    wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "done")
    second = work(client, "/#/review")
    first.reach(first.tab.locator("nav").get_by_role("link", name="Review", exact=True))
    first.tab.keyboard.press("Enter")
    for one in (first, second):
        while one.seen != set(SCREENS):
            one.step()
    answered = []
    for turn in range(60):
        tab = (first, second)[turn % 2].tab
        question = question_of(tab)
        if question is None:
            break
        sides = (question["a"]["item_id"], question["b"]["item_id"])
        key = "s" if who[sides[0]] == who[sides[1]] else "d"
        if turn == 2:
            with outage(client):
                tab.keyboard.press(key)
                expect(tab.get_by_role("alert").filter(has_text="not stored yet")).to_be_visible()
        else:
            tab.keyboard.press(key)
        leave(tab, question)
        if turn == 4:
            tab.keyboard.press("z")
            tab.wait_for_function(ASKED, arg=question["question_id"])
            tab.keyboard.press(key)
            leave(tab, question)
        answered.append(question["question_id"])
    assert len(answered) == len(set(answered))
    found = {}
    for item in client.get("/v1/items").json()["items"]:
        if item["identity_id"] is not None:
            found.setdefault(item["identity_id"], []).append(who[item["item_id"]])
    assert max(map(len, found.values())) > 1
    assert all(len(set(group)) == 1 for group in found.values()), "nobody is joined to somebody else"
    tab = first.tab
    first.go("Individuals")
    tab.get_by_text("Take the table home, or add somebody").click()
    with tab.expect_download() as loading:
        tab.get_by_role("link", name="Download").click()
    assert len(list(csv.DictReader(Path(loading.value.path()).read_text().splitlines()))) == 8


ASKED = "(id) => JSON.parse(sessionStorage.getItem('review')).question?.question_id === id"
LEFT = """(id) => {
    const kept = JSON.parse(sessionStorage.getItem('review'));
    return !kept.given && kept.question?.question_id !== id;
}"""


def question_of(tab):
    """The question that is shown; None once there is none left."""
    expect(tab.locator(".answers .same:enabled").or_(tab.get_by_text("No question is left."))).to_be_visible()
    if tab.locator(".answers .same:enabled").count() == 0:
        return None
    return tab.evaluate("JSON.parse(sessionStorage.getItem('review')).question")


def leave(tab, question):
    tab.wait_for_function(LEFT, arg=question["question_id"])


def test_an_operator_makes_a_key_and_a_backup_and_reads_the_logs(serve, work, outage, picture, tmp_path):
    client = serve(require_keys=True, admin_key=ADMIN)
    client.headers["X-API-Key"] = ADMIN
    one = work(client, extra_http_headers={"X-API-Key": ADMIN})
    tab = one.tab
    one.add(*photos(picture, 3))
    one.step()
    one.go("Admin")
    disk = tab.get_by_role("region", name="Disk")
    expect(disk.get_by_role("row").filter(has_text="Photos").first).to_contain_text("3")
    expect(tab.get_by_role("region", name="Model and calibration")).to_contain_text("DCAL on vit_toy")
    form = tab.locator("form", has=tab.get_by_role("button", name="Make a key"))
    form.get_by_label("Name").fill("Field station")
    form.get_by_role("button").click()
    expect(tab.locator("#admin-view p code")).to_be_visible()
    one.step()
    tab.get_by_role("button", name="Try a backup").click()
    tried = tab.get_by_role("row").filter(has_text="backup (tried)")
    expect(tried).to_contain_text("fits true")
    assert not (tmp_path / "backups").exists()
    with outage(client):
        tab.get_by_role("button", name="Back up").click()
        expect(tab.locator("#toasts")).to_contain_text("cannot be reached")
    tab.get_by_role("button", name="Back up").click()
    done = tab.get_by_role("row").filter(has_text="folder")
    expect(done).to_contain_text("done")
    one.step()
    assert [folder.is_dir() for folder in (tmp_path / "backups").iterdir()] == [True]
    tab.get_by_label("Kind of change").fill("key.create")
    tab.get_by_role("button", name="Show", exact=True).click()
    expect(tab.get_by_text("1 found")).to_be_visible()
    tab.get_by_label("Which log").select_option("Searches")
    tab.get_by_role("button", name="Show", exact=True).click()
    expect(tab.get_by_text("0 found")).to_be_visible()


@pytest.mark.parametrize("cameras", [None, frozenset({"north"})], ids=["reads", "sees one camera"])
def test_a_key_that_may_less_has_every_view(serve, work, gallery, herd, cameras):
    """No view asks for what the key may not, nor offers it: the page has no refusal in its console."""
    _, secret = Keys(gallery.database).add(NewKey("some", frozenset({"read"}), cameras))
    client = serve(require_keys=True)
    one = work(client, extra_http_headers={"X-API-Key": secret})
    tab = one.tab
    expect(tab.locator("#gallery-state")).to_have_text("3 photos" if cameras else "6 photos")
    for view in VIEWS:
        one.step()
        tab.goto(f"{client.base_url}/#/{view}")
        expect(tab.locator(f"#{'home' if view == 'admin' else view}-view")).to_be_visible()
        tab.wait_for_load_state("networkidle")
        writing = tab.locator("main button:visible").filter(has_text=WRITING)
        assert writing.all_inner_texts() == [], view
