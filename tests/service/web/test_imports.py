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
    view = tab.locator("#imports-view")
    expect(
        view.get_by_text(
            "1 photo in the gallery already. Something else is said here of 1: Label of 1, Camera of 1, Time of 1."
        )
    ).to_be_visible()
    expect(view.get_by_role("button", name="Add 3 photos", exact=True)).to_be_disabled()
    view.get_by_label("Leave them as they are").check()
    view.get_by_role("button", name="Add 3 photos", exact=True).click()
    expect(summary(tab)).to_have_text(
        "Done: 2 added, 1 there already, of which something else is said here, 1 refused."
    )
    expect(tab.locator("#imports-view").get_by_role("region", name="Not added")).to_contain_text(
        re.compile("2.png.*no JPEG, PNG, WebP, BMP")
    )
    expect(tab.get_by_role("region", name="Not sent")).to_contain_text("1.nef a raw picture: export it as JPEG first")
    expect(tab.get_by_role("region", name="Left as they are")).to_contain_text(
        "0.png is left as it is: Label, Camera, Time"
    )
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
    expect(view.get_by_text("Say below first: the time zone.")).to_be_visible()
    zone = view.get_by_label("The times of the table do not tell their zone")
    expect(zone).to_have_value("Africa/Johannesburg")
    view.get_by_role("button", name="Take this zone").click()
    view.get_by_label("Cameras are named by").select_option("the folders of the photos")
    expect(view.get_by_text("Cameras: north, south")).to_be_visible()
    expect(view.get_by_text("1 photo of the table not sent: south/09.png")).to_be_visible()
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


def test_names_of_photos_that_are_there_are_taken_over_and_taken_back(client, open_page, enrol, picture):
    enrol([{"label": "eve"}, {}, {"label": "cid"}])
    tab = open_page(client, "/#/imports")
    rows = "path;identity\n0.png;ada\n1.png;bob\n2.png;cid\n3.png;dan\n"
    sent = [named("t.csv", rows.encode()), *files(*(picture(number) for number in range(4)))]
    tab.set_input_files("#import-files", sent)
    view = tab.locator("#imports-view")
    expect(
        view.get_by_text("3 photos in the gallery already. Something else is said here of 2: Label of 2.")
    ).to_be_visible()
    expect(view.get_by_text("Say below first: whether to update photos that are there.")).to_be_visible()
    view.get_by_label("Update them").check()
    view.get_by_role("button", name="Add 1 photo, update 2").click()
    expect(summary(tab)).to_have_text("Done: 1 added, 1 there already, 2 updated.")
    assert [item["label"] for item in client.get("/v1/items").json()["items"]] == ["ada", "bob", "cid", "dan"]
    tab.reload()
    tab.get_by_text("3 photos there already, or twice").click()
    expect(view.locator("details li").first).to_have_text("0.png was there already, and is updated: Label")
    view.get_by_role("button", name="Undo").click()
    expect(view.get_by_text("Taken back.")).to_be_visible()
    assert [item["label"] for item in client.get("/v1/items").json()["items"]] == ["eve", None, "cid", "dan"]


def test_what_somebody_edited_meanwhile_is_left_as_it_is_and_named(client, open_page, enrol, picture):
    _, second = enrol([{"label": "eve"}, {"label": "eve"}])
    tab = open_page(client, "/#/imports")
    rows = "path;identity;Coat\n0.png;ada;\n1.png;ada;red\n"
    tab.set_input_files("#import-files", [named("t.csv", rows.encode()), *files(picture(0), picture(1))])
    view = tab.locator("#imports-view")
    view.get_by_label("Update them").check()
    start = view.get_by_role("button", name="Update 2")
    expect(start).to_be_enabled()
    client.patch(f"/v1/items/{second['item_id']}", json={"label": "bob", "attributes": {"Coat": "grey"}})
    start.click()
    expect(summary(tab)).to_have_text("Done: 1 updated, 1 edited by somebody meanwhile, and left as they are.")
    unlike = view.get_by_role("region", name="Left as they are")
    expect(unlike.locator("li")).to_have_text(["1.png was edited meanwhile, and is left as it is: Label, Coat"])
    assert [item["label"] for item in client.get("/v1/items").json()["items"]] == ["ada", "bob"]


def test_the_same_folder_again_goes_on_with_the_open_import(client, open_page, tmp_path, picture, enrol):
    enrol([{}])
    folder = folder_of(tmp_path / "may", range(4), picture)
    (folder / "t.csv").write_text("bild\n00.png\n")
    tab = open_page(client, "/#/imports")
    tab.set_input_files("#import-folder", folder)
    expect(tab.get_by_text("Which column has the names of the files?")).to_be_visible()
    tab.get_by_role("link", name="All imports").click()
    tab.set_input_files("#import-folder", folder)
    asked = tab.get_by_role("dialog", name='"may" is not started yet')
    expect(asked).to_contain_text("It has 5 files of these already.")
    asked.get_by_role("button", name="Cancel").click()
    assert len(client.get("/v1/imports").json()["imports"]) == 1
    tab.set_input_files("#import-folder", folder)
    asked.get_by_role("button", name="Go on with it").click()
    expect(tab.get_by_text("5 files had come before, and are not sent again.")).to_be_visible()
    tab.get_by_label("Table that lists the photos").select_option("none: take all photos")
    expect(tab.get_by_text("1 photo in the gallery already, with all that is said here")).to_be_visible()
    tab.get_by_role("button", name="Add 3 photos").click()
    expect(summary(tab)).to_have_text("Done: 3 added, 1 there already.")
    assert len(client.get("/v1/imports").json()["imports"]) == 1
    tab.get_by_role("link", name="All imports").click()
    tab.set_input_files("#import-folder", folder)
    tab.get_by_label("Table that lists the photos").select_option("none: take all photos")
    tab.get_by_role("button", name="Nothing is new: finish").click()
    expect(summary(tab)).to_have_text("Done: 4 there already.")


def test_a_bad_archive_is_taken_out_and_the_rest_is_added(client, open_page, picture):
    tab = open_page(client, "/#/imports")
    tab.set_input_files("#import-files", [named("bad.zip", b"PK no archive"), *files(picture(1))])
    start = tab.get_by_role("button", name="Add 1 photo")
    expect(tab.get_by_text("bad.zip it cannot be unpacked")).to_be_visible()
    expect(start).to_be_disabled()
    tab.get_by_role("button", name="Take bad.zip out").click()
    start.click()
    expect(summary(tab)).to_have_text("Done: 1 added.")


def test_the_time_zone_is_changed_before_the_start_and_after_the_end(client, open_page, picture, refused):
    refused.add(422)
    tab = open_page(client, "/#/imports")
    rows = "path;date\n0.png;2024-05-12 14:00\n1.png;2024-05-12T14:00Z\n"
    tab.set_input_files("#import-files", [named("t.csv", rows.encode()), *files(picture(0), picture(1))])
    tab.get_by_role("button", name="Take this zone").click()
    zone = tab.get_by_label("Times that do not tell their zone are taken for those of Africa/Johannesburg.")
    zone.fill("Asia/Tokio")
    tab.get_by_role("button", name="Take this zone").click()
    expect(tab.locator("#toasts")).to_contain_text("Time zone: found 'Asia/Tokio', expected a time zone")
    zone.fill("Asia/Tokyo")
    tab.get_by_role("button", name="Take this zone").click()
    expect(tab.get_by_label("Times that do not tell their zone are taken for those of Asia/Tokyo.")).to_be_visible()
    tab.get_by_role("button", name="Add 2 photos").click()
    expect(summary(tab)).to_have_text("Done: 2 added.")

    def times():
        return [item["captured_at"] for item in client.get("/v1/items").json()["items"]]

    assert times() == ["2024-05-12T14:00:00+09:00", "2024-05-12T14:00:00Z"]
    tab.get_by_text("Change the time zone of the clocks").click()
    after = tab.get_by_label("Where were the clocks?")
    expect(after).to_have_value("Asia/Tokyo")
    after.fill("Africa/Johannesburg")
    tab.get_by_role("button", name="Take this zone").click()
    expect(tab.get_by_text("The time zone was changed for 1 photo.")).to_be_visible()
    assert times() == ["2024-05-12T14:00:00+02:00", "2024-05-12T14:00:00Z"]
    tab.locator("#imports-view").get_by_role("button", name="Undo").click()
    expect(tab.get_by_text("Taken back.")).to_be_visible()
    assert times() == ["2024-05-12T14:00:00+09:00", "2024-05-12T14:00:00Z"]


def test_every_column_is_mapped_away_and_back(client, open_page, picture):
    tab = open_page(client, "/#/imports")
    rows = "path,label,date,time,Animal\n0.png,ada,2024-05-12,14:00,bob\n"
    tab.set_input_files("#import-files", [named("t.csv", rows.encode()), *files(picture(0))])
    tab.get_by_role("button", name="Take this zone").click()
    of = {
        heading: tab.get_by_label(f"What {heading} is", exact=True) for heading in ("label", "date", "time", "Animal")
    }
    for heading, field in (("time", "time"), ("date", "captured_at"), ("label", "identity")):
        expect(of[heading]).to_have_value(field)
        of[heading].select_option("")
        expect(of[heading]).to_have_value("")
    found = tab.get_by_label("What came")
    expect(found).to_contain_text("1 photo found")
    expect(found).not_to_contain_text("of 1 name")
    of["Animal"].select_option("Label")
    of["date"].select_option("Time")
    of["time"].select_option("Time of day")
    expect(found).to_contain_text("with the time of day in time")
    expect(found).to_contain_text("1 photo found, of 1 name")
    tab.get_by_role("button", name="Add 1 photo").click()
    expect(summary(tab)).to_have_text("Done: 1 added.")
    [item] = client.get("/v1/items").json()["items"]
    assert (item["label"], item["captured_at"]) == ("bob", "2024-05-12T14:00:00+02:00")


def test_buttons_keep_their_place_and_reasons_are_in_words(client, open_page, picture):
    tab = open_page(client, "/#/imports")
    rows = "path;date;Lat;Lon\n" + "".join(f"{n}.png;2024-05-12T14:00Z;9{n};0\n" for n in range(30))
    tab.set_input_files("#import-files", [named("t.csv", rows.encode()), *files(*map(picture, range(30)))])
    start, delete = tab.get_by_role("button", name="Add 30 photos"), tab.get_by_role("button", name="Delete the import")
    expect(start).to_be_enabled()
    places = start.bounding_box(), delete.bounding_box()
    tab.get_by_label("What Lat is", exact=True).select_option("Site")
    expect(tab.get_by_label("What came")).to_contain_text("Lat as Site")
    tab.get_by_label("What Lat is", exact=True).select_option("Latitude")
    tab.get_by_label("What Lon is", exact=True).select_option("Longitude")
    expect(tab.get_by_label("What came")).to_contain_text("Lon as Longitude")
    assert (start.bounding_box(), delete.bounding_box()) == places
    start.click()
    expect(summary(tab)).to_have_text("Done: 1 added, 29 refused.")
    assert delete.bounding_box() == places[1]
    reasons = tab.get_by_role("region", name="Not added")
    expect(reasons.locator("li").first).to_contain_text("Latitude ")
    expect(reasons).not_to_contain_text("latitude")


def test_what_was_added_is_shown_and_how_many_more(client, open_page, picture):
    tab = open_page(client, "/#/imports")
    tab.set_input_files("#import-files", files(*map(picture, range(30))))
    expect(summary(tab)).to_have_text("Done: 30 added.")
    expect(tab.locator(".thumbnails img")).to_have_count(24)
    expect(tab.locator(".thumbnails").get_by_role("link", name="and 6 more")).to_be_visible()
