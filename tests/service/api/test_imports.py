"""Imports: files come part by part, are looked at, enrolled by a job, and each is told of."""

import errno
import io
import zipfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.api.app import create_app
from service.bulk import import_work as import_work_module
from service.bulk.import_work import import_work
from service.bulk.unpacking import unpack_all
from service.fields import Filter
from service.gallery import imports as imports_module
from service.gallery.imports import Imports, Result, UnusableFile, safe_name
from service.import_client import ImportClient
from service.records import Cause, Details, NewKey, Upload
from service.settings import Settings
from service.storage.bulk_edits import BulkEdits
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.upkeep.erase import erase
from service.upkeep.jobs import JobRunner
from tests.waiting import DEADLINE, wait_until

ADMIN = "k" * 32
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def ask(gallery, runner):
    """A function that sends a request with a key: of an admin, a reader, a writer of all cameras, or of one."""
    made = {"reader": ("read", None), "writer": ("write", None), "north": ("write", {"north"})}
    keys = Keys(gallery.database)
    secrets = {
        name: keys.add(NewKey(name, frozenset({scope}), cameras and frozenset(cameras)))[1]
        for name, (scope, cameras) in made.items()
    }
    settings = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key=ADMIN)
    with ExitStack() as opened:

        def start():
            app = create_app(gallery, runner, settings)
            return opened.enter_context(TestClient(app, raise_server_exceptions=False))

        client = start()

        def send(method, path, key="writer", **sent):
            headers = {"X-API-Key": {**secrets, "admin": ADMIN}[key], **sent.pop("headers", {})}
            return client.request(method, f"/v1/imports{path}", headers=headers, **sent)

        def restart():
            nonlocal client
            client = start()

        send.restart = restart
        yield send


@pytest.fixture
def begun(ask):
    """A function that makes an import with files that have come whole, and gives its id."""

    def run(files, key="writer", **settings):
        made = ask("POST", "", key, json=settings)
        assert made.status_code == 201, made.text
        import_id = made.json()["import_id"]
        announced = [{"name": name, "size": len(data)} for name, data in files.items()]
        told = ask("POST", f"/{import_id}/files", key, json={"files": announced})
        assert [file["error"] for file in told.json()["files"]] == [None] * len(files), told.text
        for name, data in files.items():
            answer = ask("PUT", f"/{import_id}/files/{name}", key, content=data, headers=BYTES)
            assert answer.json() == {"name": name, "size": len(data), "received": len(data)}
        return import_id

    return run


@pytest.fixture
def done(ask, begun):
    """The same, which also starts it and waits for its end, and gives the import."""

    def run(files, key="writer", **settings):
        import_id = begun(files, key, **settings)
        answer = ask("POST", f"/{import_id}/start", key)
        assert answer.status_code == 202, answer.text
        return ended(ask, import_id)

    return run


def ended(ask, import_id):
    wait_until(lambda: ask("GET", f"/{import_id}").json()["state"] not in ("queued", "running"))
    return ask("GET", f"/{import_id}").json()


def became(ask, import_id, *kinds):
    photos = ask("GET", f"/{import_id}/photos", params={"became": kinds}).json()["photos"]
    return {photo["name"]: (photo["became"], photo["detail"]) for photo in photos}


def counts(report):
    return {name: number for name, number in report.items() if number}


def table(*rows):
    return "\n".join(rows).encode()


def test_a_folder_and_its_table_become_named_items(ask, done, gallery, picture):
    files = {
        "photos.csv": table(
            "File;Animal;When;Coat", "north/1.png;ada;12/05/2024 14:00;red", "north/2.png;;13/05/2024;"
        ),
        "photos/north/1.png": picture(1),
        "photos/north/2.png": picture(2),
        "photos/north/3.png": picture(3),
    }
    settings = {"timezone": "+02:00", "camera_from": "folder", "columns": {"identity": "Animal", "captured_at": "When"}}
    one = done(files, **settings, said={"site": "shore"})
    assert (one["state"], one["error"], one["retryable"]) == ("done", None, False)
    assert counts(one["report"]) == {"created": 2, "left_out": {"not in the table": 1}}
    first, second = gallery.store.page(Filter(), 0, 100)
    assert (first.details.label, first.details.camera, first.details.site) == ("ada", "north", "shore")
    assert first.details.captured_at.isoformat() == "2024-05-12T14:00:00+02:00"
    assert first.details.attributes["Coat"] == "red"
    assert (second.details.label, second.medium.source) == (None, "north/2.png")
    assert not list((gallery.folder / "imports" / one["import_id"] / "files").glob("**/*.png"))


def test_a_column_named_import_is_kept(done, gallery, picture):
    """Only where there is none do items tell by that name which import added them."""
    done({"t.csv": table("path,import", "1.png,from Kenya"), "1.png": picture(1)})
    other = done({"2.png": picture(2)})
    first, second = gallery.store.page(Filter(), 0, 100)
    assert first.details.attributes["import"] == "from Kenya"
    assert second.details.attributes["import"] == other["import_id"]


def test_each_photo_is_told_of_and_what_was_there_deleted_or_twice(ask, done, gallery, picture):
    there, gone = (one.item for one in gallery.enrol([Upload("x", picture(number), Details()) for number in (1, 2)]))
    gallery.delete([gone.item_id])
    files = {
        "1.png": picture(1), "2.png": picture(2), "3.png": picture(3), "4.png": picture(3),
        "5.png": b"no picture", "notes.txt": b"words",
    }  # fmt: skip
    one = done(files)
    assert counts(one["report"]) == {
        "created": 1, "existing": 1, "duplicate": 1, "deleted": 1, "failed": 1, "left_out": {".txt": 1},
    }  # fmt: skip
    told = became(ask, one["import_id"])
    assert told["3.png"] == ("created", "") and told["4.png"] == ("duplicate", "3.png")
    assert told["2.png"][0] == "deleted" and "JPEG, PNG" in told["5.png"][1]
    assert became(ask, one["import_id"], "existing") == {"1.png": ("existing", "")}
    page = ask("GET", f"/{one['import_id']}/photos", params={"limit": 2, "cursor": 1}).json()
    assert (len(page["photos"]), page["next_cursor"]) == (2, 3)
    assert counts(done({"2.png": picture(2)}, again=True)["report"]) == {"created": 1}
    assert gallery.store.find([there.item_id])


def test_a_file_comes_in_parts_and_goes_on_where_it_stopped(ask, picture):
    data = picture(1)
    import_id = ask("POST", "", json={}).json()["import_id"]
    path = f"/{import_id}/files/a b/1.png"
    assert ask("PUT", path, content=data, headers=BYTES).status_code == 404  # not announced
    announce = {"files": [{"name": "a b/1.png", "size": len(data)}]}
    assert ask("POST", f"/{import_id}/files", json=announce).json()["files"][0]["received"] == 0
    assert ask("PUT", path, content=data[:100], headers=BYTES).json()["received"] == 100
    wrong = ask("PUT", path, content=data[50:], headers=BYTES, params={"offset": 50})
    assert (wrong.status_code, wrong.json()["detail"]) == (
        409, "a b/1.png: offset 50, but 100 bytes are there; go on from these",
    )  # fmt: skip
    for method in ("GET", "HEAD"):
        assert ask(method, path).status_code == 200
    assert ask("GET", path).json()["received"] == 100
    assert ask("POST", f"/{import_id}/files", json=announce).json()["files"][0]["received"] == 100
    assert ask("GET", f"/{import_id}/files", params={"missing": True}).json()["files"][0]["name"] == "a b/1.png"
    assert ask("POST", f"/{import_id}/start").json()["detail"].startswith(f"import {import_id} has no file yet")
    more = ask("PUT", path, content=data[100:] + b"!", headers=BYTES, params={"offset": 100})
    assert (more.status_code, more.json()["code"]) == (413, "too_large")
    assert ask("PUT", path, content=data[100:], headers=BYTES, params={"offset": 100}).json()["received"] == len(data)
    assert ask("GET", f"/{import_id}/files", params={"missing": True}).json()["files"] == []
    assert ask("GET", f"/{import_id}").json()["bytes_received"] == len(data)
    form = ask("PUT", path, files={"a": b"x"})
    assert form.status_code == 415


def test_bytes_are_not_read_as_json(ask, begun):
    """However many brackets lie in each other in the bytes of a photo."""
    begun({"1.jpg": b"[" * 200})


def test_it_starts_without_what_did_not_come_where_that_is_wanted(ask, begun, picture):
    import_id = begun({"1.png": picture(1)})
    ask("POST", f"/{import_id}/files", json={"files": [{"name": "2.png", "size": 9}, {"name": "3.png", "size": 9}]})
    ask("PUT", f"/{import_id}/files/2.png", content=b"half", headers=BYTES)
    refused = ask("POST", f"/{import_id}/start")
    assert refused.status_code == 409 and refused.json()["detail"].startswith("2.png and 1 more: not sent whole")
    assert ask("POST", f"/{import_id}/start", params={"incomplete": True}).status_code == 202
    one = ended(ask, import_id)
    assert counts(one["report"]) == {"created": 1}
    assert one["files"] == 1
    assert ask("POST", f"/{import_id}/start").json()["state"] == "done"  # nothing is done twice
    late = ask("PUT", f"/{import_id}/files/1.png", content=b"", headers=BYTES)
    assert late.status_code == 409


@pytest.mark.parametrize(
    "name",
    ["../1.png", "/etc/passwd", "a/../../1.png", "a//b", ".", "a\\..\\..\\b", "a\nb", "x" * 300, "a/" * 600 + "b"],
)
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(UnusableFile):
        safe_name(name)


def test_names_keep_their_folders(ask, begun):
    assert safe_name("north\\day 1\\ä.png") == "north/day 1/ä.png"
    import_id = begun({"north/1.png": b"x"})
    told = ask("POST", f"/{import_id}/files", json={"files": [
        {"name": "north", "size": 1}, {"name": "north/1.png/2.png", "size": 1}, {"name": "north/1.png", "size": 2},
        {"name": "../x", "size": 1}, {"name": "big.jpg", "size": 2**40}, {"name": "big.zip", "size": 2**50},
    ]}).json()["files"]  # fmt: skip
    assert [file["error"]["detail"].split(",")[0][:40] for file in told] == [
        "a folder and a file have this name", "a folder and a file have this name", "2 bytes",
        "expected a name", "1", "1",
    ]  # fmt: skip


def test_a_table_is_looked_at_before(ask, begun, picture):
    when = "12/05/2024 14:00"
    files = {
        "t.csv": table("bild;Animal;When", f"1.png;ada;{when}", f"2.png;;{when}", f"../../x.png;;{when}"),
        "1.png": picture(1),
        "3.png": picture(3),
    }
    import_id = begun(files)
    seen = ask("POST", f"/{import_id}/preview").json()
    assert seen["needs"] == ["columns"] and seen["problems"] == []
    assert [(one["heading"], one["taken_for"]) for one in seen["columns"]] == [
        ("bild", ""),
        ("Animal", ""),
        ("When", ""),
    ]
    assert seen["columns"][1]["samples"] == ["ada", "", ""]
    columns = {"path": "bild", "identity": "Animal", "captured_at": "When"}
    assert ask("PATCH", f"/{import_id}", json={"columns": columns}).status_code == 200
    seen = ask("POST", f"/{import_id}/preview").json()
    assert seen["needs"] == ["dates", "timezone"] and seen["problems"] == []
    assert "UTC" not in seen["understood"], "which nobody has said"
    assert (seen["photos"], seen["missing"], seen["unlisted"], seen["labels"]) == (3, 2, 1, 1)
    assert seen["missing_names"] == ["2.png", "../../x.png"]
    assert [one["taken_for"] for one in seen["columns"]] == ["path", "identity", "captured_at"]
    failed = ask("POST", f"/{import_id}/start").json()
    assert failed["import_id"] == import_id
    assert ended(ask, import_id)["error"] == (
        "say first how dates such as 05/03/2026 are meant and in which time zone the clocks were"
    )
    ask("PATCH", f"/{import_id}", json={"dates": "day-first", "timezone": "UTC"})
    assert ask("POST", f"/{import_id}/preview").json()["needs"] == []
    assert ask("POST", f"/{import_id}/retry").status_code == 202
    assert counts(ended(ask, import_id)["report"])["created"] == 1
    assert ask("PATCH", f"/{import_id}", json={"name": "late"}).status_code == 409


def test_what_was_asked_for_is_not_asked_again(ask, begun, picture):
    files = {"t.csv": table("path;date", "1.png;12/05/2024 14:00"), "1.png": picture(1)}
    import_id = begun(files, timezone="Africa/Johannesburg", dates="day-first")
    seen = ask("POST", f"/{import_id}/preview").json()
    assert seen["needs"] == [] and "day-first dates" in seen["understood"] and str(import_id) not in seen["understood"]


def test_photos_tell_whether_their_clock_has_a_zone(ask, begun):
    def taken(**tags):
        exif = Image.Exif()
        exif.get_ifd(0x8769).update({0x9003: "2024:05:12 14:00:00", **tags.pop("more", {})})
        written = io.BytesIO()
        Image.new("RGB", (20, 30), tags["colour"]).save(written, "JPEG", exif=exif)
        return written.getvalue()

    files = {"1.jpg": taken(colour="red"), "2.jpg": taken(colour="blue", more={0x9011: "+02:00"})}
    import_id = begun(files)
    seen = ask("POST", f"/{import_id}/preview").json()
    assert (seen["photos"], seen["looked_at"], seen["zoneless"]) == (2, 2, 1)
    ask("PATCH", f"/{import_id}", json={"timezone": "+02:00"})
    assert ask("POST", f"/{import_id}/preview").json()["zoneless"] == 0


def packed(files, **how):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return written.getvalue()


def test_an_archive_is_one_file_to_send(ask, begun, gallery, picture):
    inside = {"photos/t.csv": table("path,identity", "north/1.png,ada"), "photos/north/1.png": picture(1)}
    import_id = begun({"all.zip": packed({**inside, "__MACOSX/photos/._t.csv": b"x"})})
    seen = ask("POST", f"/{import_id}/preview").json()
    assert (seen["table"], seen["photos"], seen["missing"]) == ("photos/t.csv", 1, 0)
    ask("POST", f"/{import_id}/start")
    assert counts(ended(ask, import_id)["report"])["created"] == 1
    assert gallery.store.page(Filter(), 0, 100)[0].details.label == "ada"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK no archive", "it cannot be unpacked (File is not a zip file)"),
        (
            packed({"../../1.png": b"x"}),
            "'../../1.png': expected a name, or a path below a folder, as north/1.jpg",
        ),
        (packed({"1.png": bytes(3 * 2**20)}), "3,145,728 bytes unpacked, and"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_named(gallery, runner, data, message, tmp_path):
    settings = Settings(checkpoint="unused", gallery="unused", import_mb=2, allowed_hosts=["testserver"])
    with TestClient(create_app(gallery, runner, settings)) as client:
        imports = ImportClient(lambda model, *sent, once=False, **more: model.model_validate(
            client.request(*sent, **more).raise_for_status().json()), client.request)  # fmt: skip
        import_id = imports.create().import_id
        (tmp_path / "all.zip").write_bytes(data)
        assert imports.send(import_id, tmp_path / "all.zip") == []
        [told] = client.post(f"/v1/imports/{import_id}/preview").json()["unusable"]
        assert told["name"] == "all.zip" and told["detail"].startswith(message)
    outside = {path.name for path in gallery.folder.rglob("*.png")}
    assert outside == set()


def test_what_an_outage_kept_out_is_tried_again_alone(ask, done, gallery, picture, monkeypatch):
    real, full = gallery.enrol, [True]

    def enrol(uploads, *given, **more):
        if full[0] and uploads[0].name.startswith("b"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(uploads, *given, **more)

    monkeypatch.setattr(gallery, "enrol", enrol)
    files = {f"a{number:02}.png": picture(number) for number in range(32)}
    one = done({**files, "b1.png": picture(50), "b2.png": b"no picture"})
    assert (one["state"], one["retryable"]) == ("done", True)
    assert counts(one["report"]) == {"created": 32, "outage": 2}
    assert "No space left" in became(ask, one["import_id"], "outage")["b1.png"][1]
    full[0] = False
    assert ask("POST", f"/{one['import_id']}/retry").status_code == 202
    one = ended(ask, one["import_id"])
    assert counts(one["report"]) == {"created": 33, "failed": 1} and not one["retryable"]
    assert ask("POST", f"/{one['import_id']}/retry").status_code == 409


def test_a_cancelled_import_goes_on_with_the_rest(ask, begun, gallery, picture, monkeypatch):
    real, reached = gallery.enrol, []
    import_id = begun({f"{number:03}.png": picture(number) for number in range(200)})

    def enrol(*given, **more):
        if not reached:
            reached.append(ask("POST", f"/{import_id}/cancel").status_code)
        return real(*given, **more)

    monkeypatch.setattr(gallery, "enrol", enrol)
    ask("POST", f"/{import_id}/start")
    one = ended(ask, import_id)
    assert reached[0] == 202 and (one["state"], one["retryable"]) == ("cancelled", True)
    assert one["report"]["created"] < 200
    ask("POST", f"/{import_id}/retry")
    assert counts(ended(ask, import_id)["report"]) == {"created": 200}


def test_a_service_that_stops_goes_on_at_the_next_start(ask, begun, gallery, picture, monkeypatch):
    import_id = begun({f"{number:03}.png": picture(number) for number in range(200)})
    kept = Imports(gallery.database, 2**40, 2**30)
    work = import_work(gallery, kept, 2**30)
    Jobs(gallery.database).create("import", {"import_id": import_id})
    job = Jobs(gallery.database, running=False).claim()

    class Killed(BaseException):
        pass

    def killed(done, total):
        if done:
            raise Killed

    with pytest.raises(Killed):
        work(job, killed)
    assert 0 < len(kept.results(import_id)) < 200
    with JobRunner(Jobs(gallery.database), {"import": work}):
        one = ended(ask, import_id)
    assert (one["state"], counts(one["report"])) == ("done", {"created": 200})


def test_one_import_runs_at_a_time(ask, begun, gallery, picture, monkeypatch):
    first, second = (begun({"1.png": picture(number)}) for number in (1, 2))
    told = []
    real = gallery.enrol

    def enrol(*given, **more):
        told.append(ask("POST", f"/{second}/start").status_code)
        told.append(ask("DELETE", f"/{first}").status_code)
        return real(*given, **more)

    monkeypatch.setattr(gallery, "enrol", enrol)
    ask("POST", f"/{first}/start")
    ended(ask, first)
    assert told == [409, 409]
    monkeypatch.setattr(gallery, "enrol", real)
    assert ask("POST", f"/{second}/start").status_code == 202
    ended(ask, second)
    assert [one["import_id"] for one in ask("GET", "").json()["imports"]] == [second, first]
    assert ask("DELETE", f"/{first}").status_code == 204
    assert ask("GET", f"/{first}").status_code == 404


def test_who_may_do_what(ask, begun, picture):
    assert ask("POST", "", "reader", json={}).status_code == 403
    everything = begun({"1.png": picture(1)})
    assert ask("GET", f"/{everything}", "reader").status_code == 200
    for method, path in (("GET", ""), ("GET", "/files"), ("GET", "/photos"), ("POST", "/start"), ("DELETE", "")):
        assert ask(method, f"/{everything}{path}", "north").status_code == 404
    assert ask("GET", "", "north").json()["imports"] == []
    assert ask("POST", "", "north", json={"camera_from": "device"}).status_code == 403
    assert ask("POST", "", "north", json={"said": {"camera": "south"}}).status_code == 403


def test_a_key_for_one_camera_enrols_its_own_alone(ask, done, gallery, picture):
    gallery.enrol([Upload("x", picture(4), Details(camera="south"))])
    one = done(
        {
            "in/north/1.png": picture(1),
            "in/south/2.png": picture(2),
            "in/north/4.png": picture(4),
            "in/5.png": picture(5),
        },
        "north",
        camera_from="folder",
    )
    assert counts(one["report"]) == {"created": 1, "failed": 3}
    told = became(ask, one["import_id"], "failed")
    assert told["south/2.png"][1] == "this key may not write items of camera 'south', only of ['north']"
    assert told["north/4.png"][1] == "this cannot be enrolled with this key"
    assert "camera None" in told["5.png"][1]


def test_a_repeated_request_makes_one_import(ask):
    headers = {"Idempotency-Key": "once"}
    first, again = (ask("POST", "", json={"name": "May"}, headers=headers).json() for _ in range(2))
    assert first["import_id"] == again["import_id"]
    assert ask("POST", "", json={"name": "June"}, headers=headers).status_code == 409


def test_an_erasure_and_time_remove_it(ask, begun, done, gallery, picture, tmp_path):
    gone = done({"1.png": picture(1)})["import_id"]
    sent, zipped = begun({"1.png": picture(1)}), begun({"1.zip": packed({"1.png": picture(1)})})
    stays = begun({"2.png": picture(2)})
    item = gallery.store.page(Filter(), 0, 100)[0]
    receipt = erase(gallery.database, gallery.holdings, [item.item_id], tmp_path / "backups", Cause("admin"))
    assert receipt["gallery"]["imports"] == 3
    assert [ask("GET", f"/{one}").status_code for one in (gone, sent, zipped, stays)] == [404, 404, 404, 200]
    kept = Imports(gallery.database, 2**40, 2**30)
    assert kept.prune(timedelta(days=1), ()) == 0
    assert kept.prune(timedelta(0), {stays}) == 0
    assert kept.prune(timedelta(0), ()) == 1
    assert list((gallery.folder / "imports").iterdir()) == []


def test_it_takes_no_more_room_than_there_is(ask, monkeypatch):
    class Disk:
        total, free = 10 * 2**30, 2**30 // 2 + 1000

    monkeypatch.setattr(imports_module.shutil, "disk_usage", lambda folder: Disk)
    import_id = ask("POST", "", json={}).json()["import_id"]
    wanted = [{"name": f"{size}.jpg", "size": size} for size in (600, 500, 300)]
    told = ask("POST", f"/{import_id}/files", json={"files": wanted}).json()["files"]
    assert [file["error"] is None for file in told] == [True, False, True]
    assert "are left for imports" in told[1]["error"]["detail"]


def test_archives_whose_files_have_the_same_names_lose_none(ask, done, picture):
    first, second = picture(1), picture(2)
    cards = {"card1.zip": packed({"DCIM/1.png": first}), "card2.zip": packed({"DCIM/1.png": second})}
    told = done({**cards, "1.png": picture(3), "flat.zip": packed({"1.png": picture(4)})})
    assert told["report"]["created"] == 4
    assert sorted(became(ask, told["import_id"], "created")) == [
        "1.png",
        "DCIM/1.png",
        "card2/DCIM/1.png",
        "flat/1.png",
    ]


def test_a_name_in_an_archive_is_utf_8_also_where_that_is_not_said(ask, done, picture):
    data = packed({"Wasserloch S\u00fcd/1.png": picture(1)})
    unsaid = bytearray(data)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        unsaid[unsaid.index(signature) + place + 1] &= ~0x08  # the flag of UTF-8
    with zipfile.ZipFile(io.BytesIO(bytes(unsaid))) as archive:
        assert archive.namelist() == ["Wasserloch S\u251c\u255dd/1.png"]
    told = done({"all.zip": bytes(unsaid)}, camera_from="folder")
    assert list(became(ask, told["import_id"], "created")) == ["Wasserloch S\u00fcd/1.png"]


def damaged(picture, folder=""):
    """An archive whose compressed bytes are damaged."""
    data = bytearray(packed({f"{folder}1.bmp": bytes(50_000), f"{folder}2.png": picture(1)}))
    data[60:70] = b"\xff" * 10
    return bytes(data)


def test_a_damaged_archive_is_told_in_a_line_and_keeps_no_erasure_from_its_end(ask, begun, gallery, picture, tmp_path):
    import_id = begun({"all.zip": damaged(picture)})
    [told] = ask("POST", f"/{import_id}/preview").json()["unusable"]
    assert (told["name"], told["detail"].split(" (")[0]) == ("all.zip", "it cannot be unpacked")
    item = gallery.enrol([Upload("5.png", picture(5), Details())])[0].item
    receipt = erase(gallery.database, gallery.holdings, [item.item_id], tmp_path / "backups", Cause("admin"))
    assert receipt["gallery"]["items"] == 1


def test_a_start_that_is_refused_forgets_no_file(ask, begun, gallery, picture):
    import_id = begun({"1.png": picture(1)})
    half = picture(2)
    ask("POST", f"/{import_id}/files", json={"files": [{"name": "2.png", "size": len(half)}]})
    ask("PUT", f"/{import_id}/files/2.png", content=half[:50], headers=BYTES)
    Jobs(gallery.database, running=False).create("import", {"import_id": "another"}, Cause("writer"))
    assert ask("POST", f"/{import_id}/start", params={"incomplete": True}).status_code == 409
    there = {one["name"]: one["received"] for one in ask("GET", f"/{import_id}/files").json()["files"]}
    assert there["2.png"] == 50


def test_a_table_does_not_tell_what_lies_on_the_machine(ask, begun, picture):
    rows = table("path,identity", "1.png,ada", "/ETC/HOSTNAME,eve", "/ETC/NOTTHERE,eve")
    seen = ask("POST", f"/{begun({'t.csv': rows, '1.png': picture(1)})}/preview").json()
    assert sorted(name.rsplit("/", 1)[1] for name in seen["missing_names"]) == ["hostname", "notthere"]


def test_a_bad_archive_is_taken_out_alone_and_leaves_nothing_behind(ask, begun, gallery, picture):
    import_id = begun({"all.zip": damaged(picture), "3.png": picture(3), "t.csv": b"path\n3.png\n"})
    ask("POST", f"/{import_id}/start")
    one = ended(ask, import_id)
    assert (one["state"], one["error"].split(" (")[0]) == ("failed", "all.zip: it cannot be unpacked")
    seen = ask("POST", f"/{import_id}/preview").json()
    assert ([one["name"] for one in seen["unusable"]], seen["table"], seen["photos"]) == (["all.zip"], "t.csv", 1)
    assert ask("DELETE", f"/{import_id}/files/all.zip", "reader").status_code == 403
    assert ask("DELETE", f"/{import_id}/files/no.zip").status_code == 404
    assert ask("DELETE", f"/{import_id}/files/all.zip").status_code == 204
    assert ask("POST", f"/{import_id}/preview").json()["unusable"] == []
    folder = gallery.folder / "imports" / import_id / "files"
    assert sorted(path.name for path in folder.rglob("*")) == ["3.png", "t.csv"]
    ask("POST", f"/{import_id}/retry")
    assert counts(ended(ask, import_id)["report"]) == {"created": 1}
    assert ask("DELETE", f"/{import_id}/files/3.png").status_code == 409


def test_what_a_table_says_of_photos_that_are_there_is_told_and_taken_over_as_wished(ask, begun, gallery, picture):
    noon = datetime(2024, 5, 12, 12, tzinfo=UTC)
    old = [Details(label="eve", captured_at=noon), Details(captured_at=noon), Details(label="bob", camera="north")]
    first, second, third = (
        one.item for one in gallery.enrol([Upload(f"{n}", picture(n), said) for n, said in enumerate(old)])
    )
    files = {
        "t.csv": table(
            "path;identity;date;lat;lon;Coat",
            "0.png;ada;2024-06-01T08:00Z;-28,5;32,1;red",
            "1.png;;;;;",
            "2.png;bob;;;;",
        ),
        **{f"{number}.png": picture(number) for number in range(3)},
    }
    kept, renamed = begun(files), begun(files)
    seen = ask("POST", f"/{kept}/preview").json()
    assert (seen["photos"], seen["there"], seen["twice"], seen["changed"]) == (3, 3, 0, 1)
    assert seen["changes"] == {"label": 1, "captured_at": 1, "latitude": 1, "longitude": 1, "Coat": 1}
    ask("POST", f"/{kept}/start")
    assert counts(ended(ask, kept)["report"]) == {"existing": 2, "differing": 1}
    assert set(became(ask, kept, "differing")["0.png"][1].split(",")) == set(seen["changes"])
    assert gallery.store.find([first.item_id])[0].details == first.details

    ask("PATCH", f"/{renamed}", json={"update": True})
    ask("POST", f"/{renamed}/start")
    one = ended(ask, renamed)
    assert counts(one["report"]) == {"existing": 2, "updated": 1}
    now = gallery.store.find([first.item_id])[0].details
    assert (now.label, now.captured_at.isoformat(), now.latitude) == ("ada", "2024-06-01T08:00:00+00:00", -28.5)
    assert now.attributes["Coat"] == "red"
    [edit] = one["edits"]
    assert (edit["what"], edit["items"], edit["undone"]) == ("update", 1, False)
    assert ask("POST", f"/{renamed}/undo", "reader", json={"batch_id": edit["batch_id"]}).status_code == 403
    [edit] = ask("POST", f"/{renamed}/undo", json={"batch_id": edit["batch_id"]}).json()["edits"]
    assert edit["undone"] and gallery.store.find([first.item_id])[0].details == first.details
    assert ask("POST", f"/{renamed}/undo", json={"batch_id": edit["batch_id"]}).status_code == 409
    assert gallery.store.find([second.item_id, third.item_id]) == [second, third]


def labelled(gallery):
    return [item.details.label for item in gallery.store.page(Filter(), 0, 100)]


@pytest.mark.parametrize("looked", [True, False])
def test_an_update_leaves_what_somebody_edited_since_it_was_shown(ask, begun, gallery, picture, monkeypatch, looked):
    old = Details(label="old", site="shore", attributes={"coat": "red"})
    items = [one.item for one in gallery.enrol([Upload(f"{n}", picture(n), old) for n in range(6)])]
    rows = [f"{number}.png,new,shore,grey,k{number}" for number in range(7)]
    files = {"t.csv": table("path,label,site,coat,key", *rows), **{f"{n}.png": picture(n) for n in range(7)}}
    import_id = begun(files, update=True)

    def edit():
        gallery.edit(items[1].item_id, {"label": "by hand"})
        gallery.edit(items[2].item_id, {"attributes": {"coat": "white", "sex": "f"}})
        gallery.edit(items[3].item_id, {"attributes": {"coat": "red", "sex": "f"}})  # of which nothing is said
        gallery.edit(items[4].item_id, {"site": "hill"})  # of which nothing else was said when it was shown
        gallery.edit(items[5].item_id, {"label": "new"})  # the same

    if looked:
        assert ask("POST", f"/{import_id}/preview").json()["changes"] == {"label": 6, "coat": 6, "key": 6}
        edit()
        gallery.enrol([Upload("6", picture(6), Details(label="by hand"))])  # which was not there when it was shown
        ask("PATCH", f"/{import_id}", json={"update": True, "name": "what is shown stays the same"})
    else:
        real = import_work_module.outcomes

        def outcomes(*given, **options):  # in the middle of the job
            if gallery.store.find([items[1].item_id]) == [items[1]]:
                edit()
            return real(*given, **options)

        monkeypatch.setattr(import_work_module, "outcomes", outcomes)
    ask("POST", f"/{import_id}/start")
    one = ended(ask, import_id)
    left = {"1.png": "label", "2.png": "coat", "4.png": "site"} | ({"6.png": "key,label,site,coat"} if looked else {})
    assert counts(one["report"]) == {"updated": 3, "edited": len(left), **({} if looked else {"created": 1})}
    assert became(ask, import_id, "edited") == {name: ("edited", fields) for name, fields in left.items()}
    assert labelled(gallery)[:6] == ["new", "by hand", "old", "new", "old", "new"]
    third = gallery.store.find([items[3].item_id])[0].details
    assert (third.attributes, third.site, third.key) == ({"coat": "grey", "sex": "f"}, "shore", "k3")
    assert not (gallery.folder / "imports" / import_id / "shown.json").exists()


def test_an_edit_that_comes_between_the_look_at_a_photo_and_its_update_stays(ask, begun, gallery, picture, monkeypatch):
    old = Details(label="old", attributes={"coat": "red"})
    items = [one.item for one in gallery.enrol([Upload(f"{n}", picture(n), old) for n in range(2)])]
    import_id = begun({
        "t.csv": table("path,label,coat", "0.png,new,grey", "1.png,new,grey"), "0.png": picture(0), "1.png": picture(1),
    }, update=True)  # fmt: skip
    real = BulkEdits.edit_each

    def edit_each(self, *given):
        gallery.edit(items[0].item_id, {"label": "by hand"})
        gallery.edit(items[1].item_id, {"attributes": {"coat": "red", "sex": "f"}})
        return real(self, *given)

    monkeypatch.setattr(BulkEdits, "edit_each", edit_each)
    ask("POST", f"/{import_id}/start")
    assert counts(ended(ask, import_id)["report"]) == {"edited": 1, "updated": 1}
    first, second = (item.details for item in gallery.store.find([item.item_id for item in items]))
    assert (first.label, first.attributes) == ("by hand", {"coat": "red"})
    assert (second.label, second.attributes) == ("new", {"coat": "grey", "sex": "f"})


@pytest.mark.parametrize(
    "change",
    [
        lambda ask, one: ask("PATCH", f"/{one}", json={"columns": {"label": "", "site": "who"}}),
        lambda ask, one: ask("DELETE", f"/{one}/files/a.csv"),
        lambda ask, one: ask("POST", f"/{one}/files", json={"files": [{"name": "z.png", "size": 3}]}),
    ],
)
def test_what_was_shown_holds_for_what_was_looked_at_alone(ask, begun, gallery, picture, change):
    gallery.enrol([Upload("0", picture(0), Details(label="old"))])
    rows = table("path,label,who", "0.png,new,ada")
    import_id = begun({"a.csv": rows, "b.csv": rows, "0.png": picture(0)}, table="b.csv", update=True)
    kept = Imports(gallery.database, 2**40, 2**30)
    assert kept.shown(import_id) is None
    ask("POST", f"/{import_id}/preview")
    assert [*kept.shown(import_id).values()] == [{"label": "old", "who": None}]
    assert change(ask, import_id).is_success
    assert kept.shown(import_id) is None


def test_an_erasure_finds_what_an_import_was_shown(ask, begun, gallery, picture, tmp_path):
    [there] = gallery.enrol([Upload("0", picture(0), Details(label="old"))])
    import_id = begun({"t.csv": table("path,label", "0.png,new"), "0.png": picture(0)})
    ask("POST", f"/{import_id}/preview")
    assert imports_module.erase_imports(gallery.folder, [there.item.item_id], []) == 1
    assert ask("GET", f"/{import_id}").status_code == 404


def test_an_update_that_one_photo_refuses_changes_the_others(ask, done, gallery, picture):
    gallery.enrol([Upload(f"{n}", picture(n), Details(key=f"k{n}")) for n in range(3)])
    one = done({
        "t.csv": table("path,key,identity", "0.png,k2,ada", "1.png,new,bob"), "0.png": picture(0), "1.png": picture(1),
    }, update=True)  # fmt: skip
    assert counts(one["report"]) == {"failed": 1, "updated": 1}
    assert "k2" in became(ask, one["import_id"], "failed")["0.png"][1]
    items = gallery.store.page(Filter(), 0, 100)
    assert [(item.details.key, item.details.label) for item in items] == [("k0", None), ("new", "bob"), ("k2", None)]
    ask("POST", f"/{one['import_id']}/undo", json={"batch_id": one["edits"][0]["batch_id"]})
    assert [item.details.key for item in gallery.store.page(Filter(), 0, 100)] == ["k0", "k1", "k2"]


def test_photos_that_are_not_the_keys_are_not_told_as_there(ask, begun, gallery, picture):
    gallery.enrol([Upload("x", picture(1), Details(camera="south"))])
    seen = ask("POST", f"/{begun({'north/1.png': picture(1)}, 'north', camera_from='folder')}/preview", "north").json()
    assert (seen["there"], seen["changed"]) == (0, 0)


def test_photos_that_come_twice_or_are_there_are_told_before(ask, begun, gallery, picture):
    gallery.enrol([Upload("x", picture(1), Details())])
    import_id = begun({"1.png": picture(1), "a/2.png": picture(2), "b/2.png": picture(2), "c.png": picture(2)})
    seen = ask("POST", f"/{import_id}/preview").json()
    assert (seen["photos"], seen["there"], seen["twice"], seen["changed"]) == (4, 1, 2, 0)


def test_no_file_is_read_twice_for_a_preview(ask, begun, gallery, picture, monkeypatch):
    archive = packed({"3.png": picture(3)})
    import_id = begun({"1.png": picture(1), "2.png": picture(2), "all.zip": archive})
    read = []
    digest = imports_module.hashlib.file_digest

    def counted(file, *how):
        read.append(file.name)
        return digest(file, *how)

    monkeypatch.setattr(imports_module.hashlib, "file_digest", counted)
    for _ in range(2):
        assert ask("POST", f"/{import_id}/preview").json()["photos"] == 3
    assert [name.rsplit("/", 1)[1] for name in read] == ["3.png"], "what came was read as it came"
    ask("POST", f"/{import_id}/start")
    ended(ask, import_id)
    assert not (gallery.folder / "imports" / import_id / "hashes.jsonl").exists()


def test_a_table_of_names_alone_finds_photos_in_the_folders_of_cameras(ask, done, picture):
    sent = ["north/a.JPG", "north/b.JPG", "south/b.JPG", "south/c.JPG", "south/d.JPG", "east/d.JPG", "west/d.JPG"]
    rows = ["a.jpg;ada;", "B.JPG;bob;south", "D:\\cards\\south\\c.JPG;cid;", "d.JPG;dan;", "east/a.JPG;eve;", "e.JPG;;"]
    files = {f"may/{name}": picture(number) for number, name in enumerate(sent)}
    import_id = done({"may/t.csv": table("path;identity;camera", *rows), **files}, camera_from="folder")["import_id"]
    told = became(ask, import_id)
    assert {name for name, (kind, _) in told.items() if kind == "created"} == {
        "north/a.JPG",
        "south/b.JPG",
        "south/c.JPG",
    }
    assert told["d.JPG"] == (
        "failed", "3 photos of this name were sent: east/d.JPG, south/d.JPG, west/d.JPG; say the folder in the table",
    )  # fmt: skip
    assert told["e.JPG"][1] == told["east/a.JPG"][1] == "not among the files that were sent"


def test_names_that_several_photos_have_are_told_before(ask, begun, picture):
    files = {"n/1.png": picture(1), "s/1.png": picture(2), "s/2.png": picture(3)}
    seen = ask(
        "POST", f"/{begun({'t.csv': table('path', '1.png', '2.png', '3.png', '1.png'), **files})}/preview"
    ).json()
    assert (seen["photos"], seen["missing_names"], seen["ambiguous"]) == (4, ["3.png"], 2)
    assert (seen["ambiguous_names"], seen["unlisted"]) == (["1.png", "1.png (2)"], 2)


def photographed(colour, offset=None):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2024:05:12 14:00:00", **({0x9011: offset} if offset else {})})
    written = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(written, "JPEG", exif=exif)
    return written.getvalue()


def times(gallery):
    found = [item.details for item in gallery.store.page(Filter(), 0, 100)]
    return [(one.captured_at.isoformat(), one.captured_precision) for one in found]


@pytest.mark.parametrize("zone", [None, "UTC", "Africa/Johannesburg"])
def test_the_zone_of_an_import_is_changed_afterwards_in_one_edit(ask, done, gallery, zone):
    files = {"1.jpg": photographed("red"), "2.jpg": photographed("blue", "+02:00"), "3.jpg": photographed("green")}
    one = done(files, timezone=zone)
    before = times(gallery)
    own = before[1]
    third = gallery.store.page(Filter(), 0, 100)[2]
    gallery.edit(third.item_id, {"captured_at": datetime(2020, 1, 1, tzinfo=UTC)})
    path = f"/{one['import_id']}/timezone"
    dry = ask("POST", path, json={"timezone": "+05:00"}).json()
    assert (dry["items"], dry["changed"], dry["batch_id"], times(gallery)[:2]) == (2, 1, None, before[:2])
    made = ask("POST", path, json={"timezone": "+05:00", "dry_run": False}).json()
    assert made["changed"] == 1
    assert times(gallery) == [
        ("2024-05-12T14:00:00+05:00", "second"), own, ("2020-01-01T00:00:00+00:00", None),
    ]  # fmt: skip
    one = ask("GET", f"/{one['import_id']}").json()
    assert one["settings"]["timezone"] == "+05:00"
    one = ask("POST", f"/{one['import_id']}/undo", json={"batch_id": made["batch_id"]}).json()
    assert one["settings"]["timezone"] == zone and times(gallery)[:2] == before[:2]
    assert [edit["what"] for edit in one["edits"]] == ["timezone"]


def test_the_zone_of_a_table_is_changed_afterwards_but_for_times_that_tell_theirs(ask, done, begun, gallery, picture):
    rows = ["1.png,2024-05-12 14:00", "2.png,2024-05-12T14:00+02:00", "3.png,"]
    files = {"t.csv": table("path,date", *rows), **{f"{number}.png": picture(number) for number in (1, 2, 3)}}
    one = done(files, timezone="UTC")
    made = ask("POST", f"/{one['import_id']}/timezone", json={"timezone": "Asia/Tokyo", "dry_run": False}).json()
    assert (made["items"], made["changed"]) == (1, 1)
    found = [item.details.captured_at for item in gallery.store.page(Filter(), 0, 100)]
    assert [time and time.isoformat() for time in found] == [
        "2024-05-12T14:00:00+09:00", "2024-05-12T14:00:00+02:00", None,
    ]  # fmt: skip
    waiting = begun({"1.png": picture(1)})
    assert ask("POST", f"/{waiting}/timezone", json={"timezone": "UTC"}).status_code == 409
    assert ask("POST", f"/{one['import_id']}/timezone", "reader", json={"timezone": "UTC"}).status_code == 403


def test_every_column_is_chosen_and_taken_back(ask, begun, picture):
    names = ["path", "key", "identity", "camera", "captured_at", "time", "viewpoint", "site", "origin"]
    names += ["latitude", "longitude", "x", "y", "w", "h"]
    headings = [f"c{number}" for number in range(len(names))]
    cells = "1.png,k,ada,gate,2024-05-12,14:00,left,shore,seen,1,2,1,1,5,5"
    import_id = begun({"t.csv": table(",".join(headings), cells), "1.png": picture(1)}, timezone="UTC")
    seen = ask("POST", f"/{import_id}/preview").json()
    assert seen["fields"] == names
    every = dict(zip(names, headings, strict=True))

    def look(columns):
        assert ask("PATCH", f"/{import_id}", json={"columns": columns}).status_code == 200
        seen = ask("POST", f"/{import_id}/preview").json()
        return seen, [column["taken_for"] for column in seen["columns"]]

    seen, taken = look(every)
    assert taken == names and (seen["cameras"], seen["labels"], seen["problems"]) == (["gate"], 1, [])
    for name in names[1:11]:
        seen, taken = look({**every, name: ""})
        without = {name, "time"} if name == "captured_at" else {name}
        assert taken == ["" if one in without else one for one in names], name
    seen, taken = look({**every, "time": ""})
    assert "time of day" not in seen["understood"]
    seen, taken = look(every)
    assert "with the time of day in c5" in seen["understood"] and taken == names


@pytest.mark.parametrize(("columns", "label"), [({}, "ada"), ({"identity": "Animal"}, "bob"), ({"identity": ""}, None)])
def test_the_column_of_names_is_the_one_that_was_said(ask, done, gallery, picture, columns, label):
    files = {"t.csv": table("path,label,Animal", "1.png,ada,bob"), "1.png": picture(1)}
    done(files, columns=columns)
    assert gallery.store.page(Filter(), 0, 100)[0].details.label == label


def test_a_look_at_an_import_that_runs_reads_no_result_twice(ask, begun, gallery, picture, monkeypatch):
    import_id = begun({"1.png": picture(1)})
    ask("POST", f"/{import_id}/start")
    ended(ask, import_id)
    kept = Imports(gallery.database, 2**40, 2**30)
    kept.change(import_id, report=None)  # as of one that is under way
    more = [Result(f"{number}.jpg", "created", "i") for number in range(10_000)]
    kept.add_results(import_id, more)
    assert ask("GET", f"/{import_id}").json()["report"]["created"] == 10_001
    parsed, real = [], imports_module.json.loads
    monkeypatch.setattr(imports_module.json, "loads", lambda text: parsed.append(text) or real(text))
    kept.add_results(import_id, [Result("0.jpg", "failed"), Result("new.jpg", "existing")])
    told = ask("GET", f"/{import_id}").json()["report"]
    assert counts(told) == {"created": 10_000, "failed": 1, "existing": 1}
    assert ask("GET", f"/{import_id}").json()["report"] == told
    assert len(ask("GET", f"/{import_id}/photos", params={"limit": 1}).json()["photos"]) == 1
    assert [text for text in parsed if isinstance(text, bytes) and text.startswith(b'["')] == [
        b'["0.jpg", "failed", null, "", ""]', b'["new.jpg", "existing", null, "", ""]',
    ]  # fmt: skip


def test_a_backup_goes_on_beside_an_import(ask, begun, gallery, runner, picture, monkeypatch):
    import_id, reached, go_on = begun({"1.png": picture(1)}), Event(), Event()
    real = gallery.enrol

    def enrol(*given, **more):
        reached.set()
        assert go_on.wait(DEADLINE)
        return real(*given, **more)

    monkeypatch.setattr(gallery, "enrol", enrol)
    ask("POST", f"/{import_id}/start")
    try:
        assert reached.wait(DEADLINE)
        job = runner.start("backup", {})
        wait_until(lambda: runner.jobs.get(job.job_id).state == "done")
        assert ask("GET", f"/{import_id}").json()["state"] == "running"
    finally:
        go_on.set()
    assert counts(ended(ask, import_id)["report"]) == {"created": 1}


def test_a_look_at_all_imports_reads_no_list_of_files_twice(ask, begun, gallery, monkeypatch):
    kept = Imports(gallery.database, 2**40, 2**30)
    for import_id in (begun({"1.png": b"x"}), begun({"2.png": b"x"})):
        kept.announce(import_id, [(f"{number}.jpg", 9) for number in range(1000)])
    assert [one["files"] for one in ask("GET", "").json()["imports"]] == [1001, 1001]
    parsed, real = [], imports_module.json.loads
    monkeypatch.setattr(imports_module.json, "loads", lambda text: parsed.append(text) or real(text))
    assert [one["files"] for one in ask("GET", "").json()["imports"]] == [1001, 1001]
    assert [text for text in parsed if isinstance(text, str) and text.startswith('{"name": ')] == []


def test_an_archive_that_was_unpacked_is_not_sent_again(ask, begun, picture):
    archive = packed({"north/1.png": picture(1)})
    import_id = begun({"may/all.zip": archive, "may/2.png": picture(2)})
    assert ask("POST", f"/{import_id}/preview").json()["photos"] == 2
    announced = [{"name": "may/all.zip", "size": len(archive)}, {"name": "may/2.png", "size": len(picture(2))}]
    again = ask("POST", f"/{import_id}/files", json={"files": announced}).json()["files"]
    assert [file["received"] for file in again] == [file["size"] for file in announced]
    seen = ask("POST", f"/{import_id}/preview").json()
    assert (seen["photos"], seen["twice"]) == (2, 0)
    other = {"name": "may/all.zip", "size": len(archive) + 1}
    assert ask("POST", f"/{import_id}/files", json={"files": [other]}).json()["files"][0]["received"] == 0


def test_what_a_cancelled_look_into_an_archive_left_is_not_enrolled(ask, begun, gallery, picture):
    """Files of an archive that is taken out before it was unpacked whole, and one whose removal a kill cut short."""
    import_id = begun({"all.zip": packed({"north/1.png": picture(1), "2.png": picture(2)}), "3.png": picture(3)})
    kept = Imports(gallery.database, 2**40, 2**30)

    class Cancelled(BaseException):
        pass

    def cancelled():
        raise Cancelled

    with pytest.raises(Cancelled):
        unpack_all(kept, import_id, cancelled)
    assert ask("DELETE", f"/{import_id}/files/all.zip").status_code == 204
    (kept.files_folder(import_id) / "4.png").write_bytes(picture(4))
    assert ask("POST", f"/{import_id}/preview").json()["photos"] == 1
    ask("POST", f"/{import_id}/start")
    assert list(became(ask, ended(ask, import_id)["import_id"])) == ["3.png"]


@pytest.mark.parametrize("name", ["misc/bad.zip", "bad.zip"])
def test_folders_that_a_bad_archive_leaves_empty_change_no_camera(ask, begun, picture, name):
    sent = {"card/north/1.png": picture(1), "card/south/2.png": picture(2)}
    import_id = begun({**sent, name: damaged(picture, "deep/x/")}, camera_from="folder")
    assert len(ask("POST", f"/{import_id}/preview").json()["unusable"]) == 1
    ask("DELETE", f"/{import_id}/files/{name}")
    assert ask("POST", f"/{import_id}/preview").json()["cameras"] == ["north", "south"]
    ask("POST", f"/{import_id}/start")
    assert set(became(ask, ended(ask, import_id)["import_id"])) == {"north/1.png", "south/2.png"}


@pytest.mark.parametrize("there", [True, False])
def test_whose_a_key_is_is_not_told_to_a_key_of_other_cameras(ask, done, gallery, picture, there):
    [south] = gallery.enrol([Upload("s", picture(2), Details(camera="south", key="taken"))])
    if there:
        gallery.enrol([Upload("n", picture(1), Details(camera="north"))])
    files = {"t.csv": table("path,camera,key", "1.png,north,taken"), "1.png": picture(1)}
    one = done(files, "north", update=True)
    [(_, detail)] = became(ask, one["import_id"], "failed").values()
    assert detail == "key 'taken' cannot be given with this key of the service"
    detail = became(ask, done(files, update=True)["import_id"], "failed")["1.png"][1]
    assert south.item.item_id in detail


@pytest.fixture
def killed_update(begun, gallery, picture):
    """An import, and its work and job, of which a kill left 32 of 40 items with another label and no note of it."""
    gallery.enrol([Upload(f"{n}", picture(n), Details(label="old")) for n in range(40)])
    rows = [f"{number}.png,new" for number in range(40)]
    files = {"t.csv": table("path,label", *rows), **{f"{number}.png": picture(number) for number in range(40)}}
    import_id = begun(files, update=True)
    kept = Imports(gallery.database, 2**40, 2**30)
    work = import_work(gallery, kept, 2**30)
    Jobs(gallery.database).create("import", {"import_id": import_id})
    job = Jobs(gallery.database, running=False).claim()

    class Killed(BaseException):
        pass

    def killed(done, total):
        if done:
            raise Killed

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(import_work_module, "_note_edit", lambda *_: None)  # a process that is killed does no more
        work(job, killed)
    return import_id, work, job


def test_what_a_killed_job_updated_can_be_taken_back_also_when_it_is_cancelled_then(ask, gallery, killed_update):
    import_id, work, job = killed_update
    Jobs(gallery.database, running=False).cancel(job.job_id)
    with JobRunner(Jobs(gallery.database), {"import": work}):
        assert ended(ask, import_id)["state"] == "cancelled"
    [edit] = ask("GET", f"/{import_id}").json()["edits"]
    assert edit["items"] == 32
    ask("POST", f"/{import_id}/undo", json={"batch_id": edit["batch_id"]})
    assert {item.details.label for item in gallery.store.page(Filter(), 0, 100)} == {"old"}


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_step_that_is_cut_short_is_told_of_and_taken_back_at_the_next_start(ask, done, gallery, monkeypatch, cut):
    one = done({"1.jpg": photographed("red"), "2.jpg": photographed("blue")}, timezone="UTC")
    path, before, write = f"/{one['import_id']}", times(gallery), imports_module._write
    dead = []

    def writes(*given):
        if dead:
            raise OSError("a process that was killed writes nothing")
        write(*given)

    def dies(real):
        def run(self, *given, **options):
            if cut == "after":
                real(self, *given, **options)
            dead.append(True)
            raise OSError("killed")

        return run

    def restarted():
        dead.clear()
        monkeypatch.undo()
        ask.restart()
        return ask("GET", path).json()

    def cut_short(name, sent):
        monkeypatch.setattr(imports_module, "_write", writes)
        monkeypatch.setattr(BulkEdits, name, dies(getattr(BulkEdits, name)))
        assert not ask("POST", **sent).is_success

    cut_short("edit_each", {"path": f"{path}/timezone", "json": {"timezone": "+05:00", "dry_run": False}})
    one = restarted()
    if cut == "before":
        assert (one["edits"], one["settings"]["timezone"], times(gallery)) == ([], "UTC", before)
        ask("POST", f"{path}/timezone", json={"timezone": "+05:00", "dry_run": False})
        one = ask("GET", path).json()
    [edit] = one["edits"]
    assert (edit["what"], edit["items"], edit["before"], edit["undone"]) == ("timezone", 2, "UTC", False)
    assert one["settings"]["timezone"] == "+05:00" and times(gallery) != before

    cut_short("undo", {"path": f"{path}/undo", "json": {"batch_id": edit["batch_id"]}})
    one = restarted()
    if cut == "before":
        assert (one["edits"], one["settings"]["timezone"]) == ([edit], "+05:00")
        one = ask("POST", f"{path}/undo", json={"batch_id": edit["batch_id"]}).json()
    assert (one["edits"], one["settings"]["timezone"]) == ([{**edit, "undone": True}], "UTC")
    assert times(gallery) == before


def test_what_a_job_updated_is_told_of_also_where_the_next_start_fails(killed_update, gallery, monkeypatch):
    import_id, work, job = killed_update

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Imports, "count", full)
    with pytest.raises(OSError, match="no space left"):
        work(job, lambda *_: None)
    assert [edit["items"] for edit in Imports(gallery.database, 2**40, 2**30).get(import_id).edits] == [32]


def test_of_two_edits_at_once_both_can_be_taken_back(ask, done, gallery, monkeypatch):
    one = done({"1.jpg": photographed("red")})
    path, real, others, waits = f"/{one['import_id']}/timezone", BulkEdits.edit_each, [], Event()
    before, lock = times(gallery), imports_module.fcntl.flock

    def edit_each(self, *given):
        made = real(self, *given)
        if not others:  # another request comes before this one has noted what it did
            sent = {"json": {"timezone": "+03:00", "dry_run": False}}
            others.append(Thread(target=ask, args=("POST", path), kwargs=sent))
            others[0].start()
            wait_until(lambda: waits.is_set() or not others[0].is_alive())
        return made

    def locked(file, how):
        if others and file.name.endswith("editing"):
            waits.set()
        lock(file, how)

    monkeypatch.setattr(imports_module.fcntl, "flock", locked)
    monkeypatch.setattr(BulkEdits, "edit_each", edit_each)
    assert ask("POST", path, json={"timezone": "+05:00", "dry_run": False}).status_code == 200
    others[0].join(DEADLINE)
    edits = ask("GET", f"/{one['import_id']}").json()["edits"]
    assert len(edits) == 2
    for edit in reversed(edits):
        assert ask("POST", f"/{one['import_id']}/undo", json={"batch_id": edit["batch_id"]}).status_code == 200
    assert times(gallery) == before


def test_rows_of_several_folders_do_not_share_the_picture_that_came_without_one(ask, begun, picture):
    rows = ["north/1.png,ada", "south/1.png,bob", "north/2.png,cid", "2.png,cid"]
    files = {"t.csv": table("path,label", *rows), "1.png": picture(1), "2.png": picture(2)}
    import_id = begun(files)
    seen = ask("POST", f"/{import_id}/preview").json()
    assert (seen["photos"], seen["missing_names"], seen["unlisted"]) == (4, ["north/1.png", "south/1.png"], 1)
    ask("POST", f"/{import_id}/start")
    assert counts(ended(ask, import_id)["report"])["created"] == 1
    assert set(became(ask, import_id, "failed")) == {"north/1.png", "south/1.png"}
