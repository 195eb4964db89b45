"""Imports on the page: files, folders, tables and archives, closed tabs and outages, in a real browser."""

import io
import re
import zipfile
from datetime import datetime, timedelta

import httpx2
import pytest

from tests.service.web.acting import NOON, drop, expect, expect_cameras, files, named
from tests.waiting import DEADLINE

pytestmark = pytest.mark.browser


def summary(tab):
    return tab.locator("#imports-view .summary")


def folder_of(path, numbers, picture):
    path.mkdir(parents=True)
    for number in numbers:
        (path / f"{number:02d}.png").write_bytes(picture(number))
    return path


def test_photos_are_added_with_a_result_for_each(client, open_page, enrol, picture):
    enrol([{}])
    tab = open_page(client, "/#add")
    said = tab.get_by_role("form", name="For all of these photos")
    said.get_by_label("Camera", exact=True).fill("gate")
    said.get_by_label("Label").fill("Nala")
    said.get_by_label("Time (Africa/Johannesburg)").fill("2024-05-12T14:00:30")
    tab.set_input_files(
        "#import-files", [*files(picture(0), picture(1), b"no picture", picture(2)), named("1.nef", b"x")]
    )
    expect(summary(tab)).to_have_text("Done: 2 added, 1 there already, 1 refused.")
    expect(tab.locator("#imports-view").get_by_role("region", name="Not added")).to_contain_text(
        re.compile("2.png.*no JPEG, PNG, WebP, BMP")
    )
    expect(tab.get_by_role("region", name="Not sent")).to_contain_text("1.nef a raw picture: export it as JPEG first")
    tab.get_by_text("1 photo there already, or twice").click()
    expect(tab.locator("#imports-view details li")).to_have_text(["0.png was there already and is left as it is"])
    expect(tab.locator(".thumbnails img")).to_have_count(2)
    expect(tab.locator("#gallery-state")).to_have_text("3 photos")
    first, *others = client.get("/v1/items").json()["items"]
    assert first["label"] is None
    for item in others:
        assert (item["camera"], item["label"]) == ("gate", "Nala")
        assert datetime.fromisoformat(item["captured_at"]) == NOON + timedelta(seconds=30)
    tab.locator("nav").get_by_role("link", name="Search").click()
    drop(tab, picture(1))
    expect_cameras(tab, ["gate", "gate"])


def test_a_folder_and_its_table_from_an_empty_gallery_to_named_items(client, open_page, tmp_path, picture):
    folder_of(tmp_path / "may" / "north", (1, 2), picture)
    folder_of(tmp_path / "may" / "south", (3, 4), picture)
    rows = ["bild;Tier;When;Coat", "north/01.png;ada;25/05/2024 14:00;red", "north/02.png;;26/05/2024 8:00;grey"]
    rows += ["south/03.png;bob;27/05/2024 9:00;", "south/09.png;eve;;"]
    (tmp_path / "may" / "photos.csv").write_text("\n".join(rows))
    tab = open_page(client)
    tab.locator("#home-view").get_by_role("link", name="Add photos").click()
    tab.set_input_files("#import-folder", tmp_path / "may")
    view = tab.locator("#imports-view")
    expect(view.get_by_text("Which column has the names of the files?")).to_be_visible()
    start = view.get_by_role("button", name=re.compile("^Add "))
    expect(start).to_be_disabled()
    expect(view.get_by_role("cell", name="ada")).to_be_visible()
    for heading, name in (("bild", "File"), ("Tier", "Label"), ("When", "Time")):
        view.get_by_label(f"What {heading} is").select_option(name)
    zone = view.get_by_label("The times of the table do not tell their zone")
    expect(zone).to_have_value("Africa/Johannesburg")
    view.get_by_role("button", name="Take this zone").click()
    view.get_by_label("Cameras are named by").select_option("the folders of the photos")
    expect(view.get_by_text("Cameras: north, south")).to_be_visible()
    expect(view.get_by_text("1 photo of the table were not sent, such as south/09.png")).to_be_visible()
    expect(view.get_by_text("1 photo not in the table, left out")).to_be_visible()
    start.click()
    expect(summary(tab)).to_have_text("Done: 3 added, 1 refused.")
    items = client.get("/v1/items").json()["items"]
    assert [(item["label"], item["camera"]) for item in items] == [("ada", "north"), (None, "north"), ("bob", "south")]
    assert items[0]["captured_at"] == "2024-05-25T14:00:00+02:00" and items[0]["attributes"]["Coat"] == "red"
    view.get_by_role("link", name="See them in Browse").click()
    expect(tab.locator("#enrolled .card")).to_have_count(3)


def test_an_archive_is_looked_at_and_added(client, open_page, picture):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for number in range(5):
            archive.writestr(f"may/{number}.png", picture(number))
    tab = open_page(client, "/#/imports")
    tab.set_input_files("#import-files", [named("may.zip", written.getvalue())])
    expect(summary(tab)).to_have_text("Done: 5 added.")


def test_a_closed_tab_goes_on_where_it_stopped(client, open_page, tmp_path, picture):
    folder = folder_of(tmp_path / "may", range(6), picture)
    tab = open_page(client, "/#/imports")
    sent = []

    def hold(route):
        sent.append(route)
        if len(sent) <= 2:
            route.continue_()

    tab.route("**/files/*?offset=*", hold)
    tab.set_input_files("#import-folder", folder)
    line = tab.locator("#import-state")
    tab.locator("nav").get_by_role("link", name="Search").click()
    expect(line).to_have_text(re.compile(r"^Sending \d"))
    expect(line).to_have_text("Sending 33 %")
    tab.context.set_offline(True)  # a tab that is closed lets go what is held
    tab.context.close()
    again = open_page(client, "/#/search", viewport={"width": 390, "height": 844})
    expect(again.locator("#import-state")).to_have_text("An import is not started")
    again.locator("#import-state a").click()
    missing = again.get_by_label("Files that have not come whole")
    expect(missing.locator("li")).to_have_text([f"may/{number:02d}.png" for number in range(2, 6)])
    asked = []
    again.on("request", lambda request: asked.append(request.url) if request.method == "PUT" else None)
    again.set_input_files("#import-folder", folder)
    expect(summary(again)).to_have_text("Done: 6 added.")
    assert len(asked) == 4
    assert len(client.get("/v1/imports").json()["imports"]) == 1


def test_sending_stops_and_goes_on_without_the_rest(client, open_page, picture):
    tab = open_page(client, "/#/imports")
    held = []
    tab.route("**/1.png?offset=*", lambda route: held.append(route))
    tab.set_input_files("#import-files", files(picture(0), picture(1)))
    expect(tab.get_by_label("Sending: 1 of 2 files, 50 %")).to_be_visible()
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_role("button", name="Go on without them").click()
    expect(summary(tab)).to_have_text("Done: 1 added.")


def test_a_service_that_is_killed_in_the_middle_loses_nothing(command, chromium, picture, tmp_path):
    """Once while files are sent, and once while they are enrolled."""

    def serve(port="0"):
        process = command("service.serve", "--port", port)
        for line in process.stderr:
            if address := re.search(r"http://\S+:\d+", line):
                return process, address.group()
        raise AssertionError("the service ended")

    process, address = serve()
    client = httpx2.Client(base_url=address, timeout=DEADLINE)
    folder = folder_of(tmp_path / "may", range(120), picture)
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(f"{address}/#/imports")
    held = []

    def hold(route):
        held.append(route)
        if len(held) == 60:
            process.kill()
            process.wait()
        route.continue_()

    tab.route("**/files/*?offset=*", hold)
    tab.set_input_files("#import-folder", folder)
    expect(tab.get_by_text(re.compile("Trying again until it is sent"))).to_be_visible()
    process, _ = serve(address.rpartition(":")[2])
    tab.unroute("**/files/*?offset=*")
    while client.get("/v1/imports").json()["imports"][0]["state"] == "receiving":
        tab.wait_for_timeout(20)  # which lets the page go on
    process.kill()
    process.wait()
    process, _ = serve(address.rpartition(":")[2])
    expect(summary(tab)).to_have_text("Done: 120 added.", timeout=1000 * DEADLINE)
    client.close()
    context.close()
