"""The client against a real server, and all that it sends and reads against the OpenAPI description of that server."""

import csv
import io
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import parse_qs

import jsonschema_rs
import numpy as np
import pytest
import uvicorn
from PIL import ExifTags, Image
from pydantic import BaseModel, ValidationError

from service import client as client_module
from service.api.app import create_app
from service.bulk.import_work import import_work
from service.classification import Classification
from service.client import Client, ServiceError
from service.fields import FIELDS
from service.gallery.imports import Imports
from service.opening import load_classifier
from service.review.reviews import Reviews
from service.settings import Settings
from service.storage.jobs import Jobs
from service.upkeep.backup import backup_work
from service.upkeep.check import check_work
from service.upkeep.jobs import JobRunner
from service.wire.schemas import Problem
from tests.waiting import wait_until

# What the client leaves out: the same as /v1/query, and the cookie that is for browsers.
LEFT_OUT = {("POST", "/query"), ("POST", "/v1/session"), ("DELETE", "/v1/session")}
ADMIN_KEY = "a" * 40


class Recorder:
    """An application that keeps what another one was sent and what it answered."""

    def __init__(self, app):
        self.app = app
        self.seen = []

    async def __call__(self, scope, receive, send):
        sent, answered, status = bytearray(), bytearray(), []

        async def hear():
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def tell(message):
            if message["type"] == "http.response.start":
                status.append(message["status"])
            answered.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                seen = (scope["method"], scope["path"], query, headers, bytes(sent), status[0], bytes(answered))
                self.seen.append(seen)  # before the client can go on
            await send(message)

        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode())
        await self.app(scope, hear, tell)


@pytest.fixture
def listen():
    """A function that serves an application on a free port and gives its address."""
    running = []

    def start(app):
        config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_keep_alive=60)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        wait_until(lambda: server.started or not thread.is_alive())
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def endless(job, progress):
    while True:
        progress(0, 1)
        time.sleep(0.01)


@pytest.fixture
def app(gallery, checkpoint, classifier, tmp_path):
    served = {"checkpoint": checkpoint, "gallery": tmp_path, "classifier": classifier}
    settings = Settings(**served, require_keys=True, admin_key=ADMIN_KEY)
    kinds = {"backup": backup_work(gallery.database, gallery.pictures, tmp_path / "backups"), "reindex": endless}
    kinds |= dict.fromkeys(["reconcile", "expire"], lambda job, progress: {})
    kinds["check"] = check_work(gallery.database, gallery.pictures)
    reviews = Reviews(gallery.database, gallery.worker.publish)
    kinds["suggest"] = reviews.work
    kinds["import"] = import_work(gallery, Imports(gallery.database, 2**40, 2**30), 2**30)
    with (
        Classification(*load_classifier(classifier, "cpu"), gallery) as classification,
        JobRunner(Jobs(gallery.database), kinds) as runner,
    ):
        yield create_app(gallery, runner, settings, classification=classification, reviews=reviews)


@pytest.fixture
def recorder(app):
    return Recorder(app)


@pytest.fixture
def client(recorder, listen):
    with Client(listen(recorder), ADMIN_KEY) as made:
        yield made


@pytest.fixture
def northern(client, picture, tmp_path):
    """Three photos, enrolled from bytes, from a file by its path and from an open file."""
    (tmp_path / "photo.png").write_bytes(picture(1))
    said = [{"camera": "north", "label": "ada", "captured_at": datetime(2024, 5, 1 + i, tzinfo=UTC)} for i in range(3)]
    photos = [picture(0), tmp_path / "photo.png", io.BytesIO(picture(2))]
    return [result.item for result in client.enrol(photos, said)]


def test_the_client_starts_without_the_service():
    code = "import sys, service.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx2" in loaded
    assert not {"torch", "torchvision", "timm", "fastapi", "starlette", "faiss", "scipy", "PIL"} & set(loaded)


def test_every_operation_is_reached_as_the_description_has_it(app, recorder, client, picture, monkeypatch, tmp_path):
    """All methods, with all that they can be given; the server then saw every operation and every field of it."""
    monkeypatch.setattr(client_module, "SECONDS_BETWEEN_LOOKS", 0.01)
    said = {"key": "k", "captured_at": datetime(2024, 5, 1, tzinfo=UTC), "attributes": {"NAME": "red"}}
    every = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": datetime(2025, 1, 1, tzinfo=UTC)}
    for field in FIELDS:
        if field.kind == "name":
            said[field.name] = "ada" if field.name == "label" else "north"
            every |= zip(field.asked, ([said[field.name]], ["south"]), strict=True)
        elif field.kind == "attributes":
            every |= zip(field.asked, ({"NAME": ["red"]}, {"NAME": ["blue"]}), strict=True)
    first, second = client.enrol([picture(0), picture(1), b"no image"], [said, {}, {}])[:2]
    item_id = first.item.item_id
    told = [
        client.query(picture(0), box=(0, 0, 20, 30), top_k=3, min_score=0.5, group_by="label", **every),
        client.query(item_id=item_id),
        client.classify(picture(0), b"no image", top_k=2),
        client.item(item_id),
        client.edit(second.item.item_id, **{**said, "key": "l", "latitude": -28.0, "longitude": 32.1}),
        client.delete_items([item_id]),
        client.delete_matching(expected=1, **every),
        client.session(),
        client.live(),
        client.ready(),
        client.check(),
        client.expire(dry_run=True),
        client.backup(),
        client.reconcile(),
        client.reindex(),
    ]
    with pytest.raises(ServiceError, match="409 conflict: timezone is for a time whose zone is unknown"):
        client.edit(item_id, timezone="Africa/Johannesburg")
    with pytest.raises(ServiceError, match="422 .*timezone moves the time that captured_at takes the place of"):
        client.edit(item_id, timezone="Africa/Johannesburg", captured_at=None)
    told += [client.cancel(told[-1].job_id), client.wait(told[-1].job_id), client.wait(told[-2].job_id)]
    assert [job.state for job in told[-2:]] == ["cancelled", "done"]
    assert [item.key for item in client.items(**every)] == ["k", "l"]
    assert [item.key for item in client.items(media=first.item.media, order="newest", named=True)] == ["k"]
    assert client.days(named=True, **every) == {date(2024, 5, 1): 2}
    counted = client.edit_matching({"site": "north"}, 60, expected=2, named=True, **every)
    assert (counted.dry_run, counted.items, counted.changed) == (True, 2, 2)
    edited = client.edit_items([item_id], {"site": "here", "origin": None}, dry_run=False)
    told += [counted, edited, client.undo_edit(edited.batch_id, dry_run=True), client.undo_edit(edited.batch_id)]
    classified, unusable = told[2].results
    assert [prediction.class_name in client.classes() for prediction in classified.predictions] == [True, True]
    assert (unusable.predictions, unusable.error.code) == ([], "unknown_format")
    assert [(one.name, one.items) for one in client.cameras(**every)] == [("north", 2)]
    assert [(one.name, one.items) for one in client.labels(**every)] == [("ada", 2)]
    row, _ = csv.DictReader(io.StringIO(client.catalogue("wildbook", "Tragelaphus angasii", **every)))
    assert (row["Encounter.genus"], row["MarkedIndividual.individualID"]) == ("Tragelaphus", "ada")
    facts, disk = client.model(), client.disk()
    assert (facts.model_id, facts.engine.items) == (client.ready().model_id, client.ready().items)
    assert 0 < disk.free < disk.total
    assert [job.kind for job in client.jobs()] == ["reindex", "reconcile", "backup", "expire", "check"]
    key = client.add_key("gate", ["read"], cameras=["north"], requests_per_minute=60)
    told.append(key)
    client.revoke_key(key.key_id)
    assert [key.revoked_at is None for key in client.list_keys()] == [False]
    assert [operation.kind for operation in client.operations()][:2] == ["key.revoke", "key.create"]
    assert [len(query.images) for query in client.logged_queries()] == [0, 1]
    lately = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": datetime(2999, 1, 1, tzinfo=UTC)}
    lately["actor"] = client.session().actor
    assert [one.kind for one in client.operations(**lately, kind="key.create", order="oldest")] == ["key.create"]
    assert len(list(client.logged_queries(**lately))) == 2
    pictures = [client.image(item_id, whole=True), client.thumbnail(item_id), client.thumbnail(item_id, small=True)]
    pictures.append(client.attention(item_id))
    assert [Image.open(io.BytesIO(data)).format for data in pictures] == ["PNG", "JPEG", "JPEG", "PNG"]
    assert client.attention_of(picture(0), box=(0, 0, 20, 30)) == pictures[-1]
    assert "reid_requests_total" in client.metrics()
    told += review_everything(client, item_id, second.item.item_id)
    told += keep_a_shortlist(client, item_id)
    told += search_by_link(client, picture(5), {**said, "key": "m"})
    told += import_files(client, tmp_path, picture)
    client.delete(item_id)
    told.append(client.erase([item_id]))
    assert told[-1].gallery["operations"] >= 2 and "erased" in [operation.target for operation in client.operations()]

    description = strict(app.openapi())
    expected = {
        (method.upper(), path): fields(description, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    }
    sent = {}
    for method, path, query, headers, body, status, answer in recorder.seen:
        template = template_of(description, method, path)
        operation = description["paths"][template][method.lower()]
        content = operation["responses"][str(status)].get("content", {}).get("application/json")
        if content:
            validator(description, content["schema"]).validate(json.loads(answer))
        sent.setdefault((method, template), set()).update(query, {"idempotency-key"} & headers.keys(), names_in(body))
    assert expected.keys() - sent.keys() == LEFT_OUT
    cursors = {"cursor"}  # sent where there is a second page; see below
    wrong = {at: (expected[at] - cursors) ^ (sent[at] - cursors) for at in sent}
    # To delete by ids and by filter exclude each other, and the items of this test fill one page.
    assert not {at: names for at, names in wrong.items() if names}
    for answer in told:
        assert isinstance(answer, BaseModel) and type(answer).__name__ in description["components"]["schemas"]


def review_everything(client, first, second):
    """All that is asked and answered about who is who, of two items of one identity; what was answered."""
    review, identities = client.review, client.identities
    plan = {"error": 0, "neighbours": 5, "gold": 0, "speed": 0, "burst": 9}
    job = client.wait(
        review.start(plan | dict.fromkeys(("photos", "tracks", "sides", "names"), False), cameras=["north"]).job_id
    )
    assert job.state == "done"
    assert review.next() is None, "all is one already"
    near = review.neighbours([first], 1, cameras=["north"])
    assert [one.item_id for one in near[first]] == [second]
    [asked] = review.decide([(first, second, "different")])
    told = [review.status(), *review.decisions("visual"), asked]
    assert client.item(second).label is None, "who named it thinks better of it"
    told.append(review.undo(asked.batch_id))
    assert (client.item(second).label, review.conflicts()) == ("ada", [])
    identity_id = client.item(first).identity_id
    parted = identities.split(identity_id, [second], "anne")
    assert [found.name for found in identities.list("an", "newest")] == ["anne"]
    edited = identities.edit(identity_id, name="anna", aliases=["a"], notes="n", attributes={"sex": "f"})
    merged = identities.merge(parted.identity_id, identity_id)
    told += [parted, edited, identities.get(identity_id), merged, identities.unmerge(parted.identity_id, dry_run=True)]
    told += [identities.create("eve"), review.undo(merged.batch_id, dry_run=True)]
    return told


def keep_a_shortlist(client, item_id):
    """All that is done with a shortlist; what was answered."""
    lists = client.shortlists
    made = lists.create("For Monday", [item_id], notes="?")
    assert [head.items for head in lists.list()] == [1]
    told = [made, lists.add(made.shortlist_id, [item_id])]
    told.append(lists.edit(made.shortlist_id, name="For Tuesday", notes="!", entries=[(item_id, "left ear")]))
    told.append(lists.get(made.shortlist_id))
    assert "left ear" in lists.table(made.shortlist_id)
    assert "data:image/jpeg;base64," in lists.report(made.shortlist_id)
    lists.delete(made.shortlist_id)
    return told


def search_by_link(client, photo, said):
    """All that is done with a subject that is kept; what was answered."""
    subjects = client.subjects
    subject = subjects.add(photo, box=(1, 2, 10, 20))
    assert subject.photos[0].box == (1, 2, 10, 20)
    told = [subjects.get(subject.subject_id), client.query(subject_id=subject.subject_id)]
    assert Image.open(io.BytesIO(subjects.photo(subject.subject_id))).size == (20, 30)
    placed = subjects.enrol(subject.subject_id, timezone="UTC", latitude=-28.0, longitude=32.1).results[0].item
    assert placed.longitude == 32.1
    client.delete(placed.item_id)
    enrolled = subjects.enrol(subject.subject_id, [None], **said)
    assert (enrolled.results[0].item.key, enrolled.results[0].item.box) == ("m", None)
    (box,) = client.enrol_boxes(enrolled.results[0].item.item_id, [{"box": (1, 2, 10, 20), "label": "bob"}])
    assert (box.item.label, box.item.box, box.item.camera) == ("bob", (1, 2, 10, 20), enrolled.results[0].item.camera)
    client.delete(box.item.item_id)
    client.delete(enrolled.results[0].item.item_id)
    subjects.delete(subject.subject_id)
    return [subject, *told, enrolled]


def import_files(client, folder, picture):
    """All that is done with an import; what was answered."""
    imports, files = client.imports, [folder / f"{number}.png" for number in (20, 21)]
    for number, file in zip((20, 21), files, strict=True):
        file.write_bytes(picture(number))
    every = {
        "name": "May",
        "timezone": "UTC",
        "dates": "day-first",
        "camera_from": "folder",
        "table": "",
        "columns": {},
    }
    every |= {"include": ["*"], "exclude": ["x*"], "again": True, "update": False, "said": {"site": "here"}}
    made = imports.create(**every)
    assert imports.send(made.import_id, *files) == []
    assert [file.received for file in imports.files(made.import_id, missing=False)] == [
        file.stat().st_size for file in files
    ]
    told = [made, imports.edit(made.import_id, **every), imports.file(made.import_id, "20.png")]
    told += [imports.preview(made.import_id), imports.start(made.import_id, incomplete=True)]
    told.append(imports.wait(made.import_id))
    assert (told[-1].state, told[-1].report.created, [one.state for one in imports.list()]) == ("done", 2, ["done"])
    photos = [*imports.photos(made.import_id, "created", "failed")]
    assert [photo.name for photo in photos] == ["20.png", "21.png"]
    client.delete_items([photo.item_id for photo in photos], dry_run=False)
    told.append(imports.place_in(made.import_id, "+02:00"))
    assert told[-1].items == 0, "which have no time"
    with pytest.raises(ServiceError, match="404"):
        imports.undo(made.import_id, "none")
    with pytest.raises(ServiceError, match="409"):
        imports.remove_file(made.import_id, "20.png")
    for act in (imports.cancel, imports.retry):
        with pytest.raises(ServiceError, match="409"):
            act(made.import_id)
    imports.delete(made.import_id)
    return told


def strict(description):
    """A copy in which no answer may have a field that is not described."""
    copy = json.loads(json.dumps(description))
    for schema in copy["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return copy


def validator(description, schema):
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": description["components"]}, validate_formats=True
    )


def template_of(description, method, path):
    """The path as the description has it."""
    if path in description["paths"]:
        return path
    fits = [
        template
        for template, operations in description["paths"].items()
        if method.lower() in operations and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
    assert len(fits) == 1, (method, path)
    return fits[0]


def fields(description, operation):
    """The names of the parameters and of the fields of the body."""
    found = {one["name"] for one in operation.get("parameters", []) if one["in"] != "path"}
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/octet-stream":
            continue
        schema = description["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        found |= schema["properties"].keys()
        names = ("attributes.NAME", "exclude_attributes.NAME")
        found |= {name for name in names if any(re.search(one, name) for one in schema.get("patternProperties", ()))}
    return found


def names_in(body):
    if body.startswith(b"\x89PNG"):  # a part of a file
        return set()
    if body.startswith(b"{"):
        return set(json.loads(body))
    if b"Content-Disposition" in body:
        return {name.decode() for name in re.findall(rb'form-data; name="([^"]+)"', body)}
    return set(parse_qs(body.decode()))


def test_filters_are_those_of_the_service(client, picture):
    photos = [picture(i) for i in range(4)]
    start = datetime(2024, 5, 1, tzinfo=UTC)
    said = [
        {"camera": "north", "label": "ada", "captured_at": start, "site": "a", "attributes": {"coat": "red", "n": 3}},
        {"camera": "north", "label": "bob", "captured_at": start + timedelta(days=1), "viewpoint": "left"},
        {"camera": "south", "label": "ada", "captured_at": start + timedelta(days=2), "attributes": {"coat": "a&=b"}},
        {},
    ]
    ids = [result.item.item_id for result in client.enrol(photos, said)]
    for filters, passing in [
        ({}, {0, 1, 2, 3}),
        ({"cameras": ["north"]}, {0, 1}),
        ({"exclude_cameras": ["north"]}, {2, 3}),
        ({"exclude_cameras": []}, {0, 1, 2, 3}),
        ({"labels": ["ada", "bob"]}, {0, 1, 2}),
        ({"since": start + timedelta(days=1)}, {1, 2}),
        ({"until": start + timedelta(days=1)}, {0}),
        ({"sites": ["a", "b"]}, {0}),
        ({"exclude_sites": "a"}, {1, 2, 3}),
        ({"viewpoints": ["left"], "exclude_origins": ["drone"]}, {1}),
        ({"attributes": {"coat": ["red", "a&=b"]}}, {0, 2}),
        ({"attributes": {"n": ["3"]}}, set()),
        ({"exclude_attributes": {"coat": ["a&=b"]}}, {0, 1, 3}),
    ]:
        answer = client.query(photos[3], **filters)
        assert {ids.index(match.item_id) for match in answer.matches} == passing
        assert {ids.index(item.item_id) for item in client.items(**filters)} == passing
        assert client.delete_matching(**filters).items == len(passing)
    for nothing, name in [({"cameras": []}, "cameras"), ({"attributes": {"coat": []}}, "attributes.coat")]:
        with pytest.raises(ValueError, match=rf"^{name} \[\]: expected at least one"):
            client.query(photos[0], **nothing)
    with pytest.raises(
        TypeError, match="^no filter is called camera; expected some of labels, exclude_labels, cameras"
    ):
        client.query(photos[0], camera=["north"])
    assert client.delete_matching(dry_run=False, expected=1, cameras=["south"]).items == 1
    assert client.delete_items([ids[0], "nobody"], dry_run=False).items == 1
    assert {item.item_id for item in client.items()} == {ids[1], ids[3]}


def test_boxes_become_items_and_are_asked_about(recorder, client, picture, monkeypatch):
    monkeypatch.setattr(client_module, "ITEMS_AT_ONCE", 3)
    boxes = [(1, 2, 10, 11), {"box": (5.5, 6, 10, 20.2), "label": "bob"}]
    said = [{"label": "ada", "boxes": boxes}, {}, {"boxes": [(15, 0, 6, 5), (math.nan, 0, 1, 1)]}]
    results = client.enrol([picture(0), picture(1), picture(2)], said)
    assert [(one.index, one.result, one.box) for one in results] == [
        (0, "created", (1, 2, 10, 11)),
        (0, "created", (5.5, 6, 10, 20.2)),
        (1, "created", None),
        (2, "error", (15, 0, 6, 5)),
        (2, "error", None),
    ]
    assert [one.error.code for one in results[3:]] == ["unusable_box", "unusable_box"]
    ada, bob, whole = (one.item for one in results[:3])
    assert [(item.box, item.label) for item in (ada, bob)] == [((1, 2, 10, 11), "ada"), ((5, 6, 11, 21), "bob")]
    assert (whole.box, whole.label) == (None, None)
    assert Counter(method for method, *_ in recorder.seen)["POST"] == 2
    assert list(client.items(media=ada.media)) == [ada, bob]
    assert client.query(picture(0), box=(5, 6, 11, 21)).matches[0].item_id == bob.item_id
    for numbers in (np.int64, np.float32):  # as detectors give them
        box = tuple(map(numbers, (5, 6, 11, 21)))
        assert client.query(picture(0), box=box).matches[0].item_id == bob.item_id
    with pytest.raises(ValueError, match=r"^box \[\]: expected x, y, width and height"):
        client.query(picture(0), box=[])
    fused = client.query(picture(0), picture(1), box=[(1, 2, 10, 11), None])
    assert {match.item_id for match in fused.matches} == {ada.item_id, bob.item_id, whole.item_id}
    assert client.query(item_id=ada.item_id, top_k=1).matches[0].item_id != ada.item_id
    sizes = [Image.open(io.BytesIO(client.image(bob.item_id, whole=one))).size for one in (False, True)]
    assert sizes == [(11, 21), (20, 30)]
    assert client.attention_of(picture(0), box=(5, 6, 11, 21)) == client.attention(bob.item_id)
    with pytest.raises(ServiceError, match="422 unusable_box: photo: box 15,0,6,5 is not within the picture of 20x30"):
        client.query(picture(0), box=(15, 0, 6, 5))


def test_many_photos_go_out_in_portions_and_come_back_in_pages(recorder, client, picture, monkeypatch):
    monkeypatch.setattr(client_module, "FILES_AT_ONCE", 3)
    monkeypatch.setattr(client_module, "MAX_PAGE", 2)
    photos = [picture(i) for i in range(7)]
    said = [{"key": f"k{i}"} for i in range(7)]
    photos[4] = b"no image"
    results = client.enrol(photos, said)
    assert [result.index for result in results] == list(range(7))
    assert [result.result == "error" for result in results] == [i == 4 for i in range(7)]
    assert results[4].error.code == "unknown_format"
    assert [item.key for item in client.items()] == [f"k{i}" for i in range(7) if i != 4]
    keys = [headers["idempotency-key"] for method, _, _, headers, *_ in recorder.seen if method == "POST"]
    assert len(keys) == len(set(keys)) == 3
    pages = [query for method, _, query, *_ in recorder.seen if method == "GET"]
    assert [len(query.get("cursor", [])) for query in pages] == [0, 1, 1]
    monkeypatch.setattr(client_module, "BYTES_AT_ONCE", len(photos[0]) + 10)
    assert {result.result for result in client.enrol(photos[:3])} == {"existing"}
    assert Counter(method for method, *_ in recorder.seen)["POST"] == 6


def test_places_and_the_offset_of_times_are_said_and_changed(client):
    """A camera's clock without zone is placed on the way in or later; 06:41 stays 06:41."""
    said = Image.Exif()
    said.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:05:03 06:41:09"
    photos = []
    for shade in range(3):
        written = io.BytesIO()
        Image.new("RGB", (32, 32), (80 * shade, 0, 0)).save(written, "JPEG", exif=said)
        photos.append(written.getvalue())
    here = {"latitude": -28.0, "longitude": 32.1}
    metadata = [{"timezone": "Africa/Johannesburg", **here}, {}, {"captured_at": "2026-05-03T06:41:09.5+05:45"}]
    placed, zoneless, stated = (result.item for result in client.enrol(photos, metadata))
    assert placed.captured_at.isoformat() == "2026-05-03T06:41:09+02:00"
    assert (placed.captured_precision, placed.latitude, placed.longitude) == ("second", -28, 32.1)
    assert stated.captured_at.isoformat() == client.item(stated.item_id).captured_at.isoformat()
    assert stated.captured_at.isoformat() == "2026-05-03T06:41:09.500000+05:45" and stated.captured_precision is None
    assert (zoneless.captured_at.hour, zoneless.captured_precision) == (6, "second, zone unknown")
    moved = client.edit(zoneless.item_id, timezone="-03:30", **here)
    assert (moved.captured_at.isoformat(), moved.captured_precision) == ("2026-05-03T06:41:09-03:30", "second")
    assert moved.longitude == 32.1
    assert client.edit(moved.item_id, latitude=None, longitude=None).latitude is None
    with pytest.raises(ServiceError, match=r"409 conflict: timezone .* is 2026-05-03T06:41:09-03:30, whose zone is kn"):
        client.edit(moved.item_id, timezone="Asia/Tokyo")
    for wrong, field in (
        ({"latitude": 91, "longitude": 0}, "latitude"),
        ({"latitude": 1}, "latitude and longitude together"),
        ({"timezone": "Mars"}, "expected a time zone such as Africa/Johannesburg"),
        ({"timezone": "UTC", "captured_at": datetime(2026, 5, 3, tzinfo=UTC)}, "captured_at says its zone itself"),
    ):
        with pytest.raises(ServiceError, match=f"422 invalid_request: .*{field}"):
            client.edit(moved.item_id, **wrong)


def test_metadata_that_cannot_be_are_refused_before_anything_is_sent(recorder, client, picture):
    with pytest.raises(ValueError, match="1 metadata for 2 photos"):
        client.enrol([picture(0), picture(1)], [{}])
    with pytest.raises(ValidationError, match="colour"):
        client.enrol([picture(0), picture(1)], [{}, {"colour": "red"}])
    assert recorder.seen == []


def test_a_problem_becomes_an_error_with_all_that_it_says(recorder, client, northern):
    with pytest.raises(ServiceError, match=r"^422 invalid_request: body.top_k: ") as caught:
        client.query(item_id=northern[0].item_id, top_k=0)
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    assert [error.field for error in caught.value.errors] == ["body.top_k"]
    assert json.loads(recorder.seen[-1][-1])["request_id"] == caught.value.request_id
    for call in (client.item, client.delete, client.image, client.job, client.revoke_key):
        for name in ("nobody", "a/b", "..", "ä?#"):
            with pytest.raises(ServiceError, match="404 not_found"):
                call(name)
    assert len(list(client.items())) == 3


def test_a_wrong_key_and_no_key(client, listen, app):
    address = str(client._http.base_url)
    for key in (None, "wrong"):
        with Client(address, key) as other, pytest.raises(ServiceError, match="401 unauthorized"):
            other.session()


class Scripted:
    """An application that answers with one status after the other, each with the same headers and body."""

    def __init__(self, *statuses, headers=(), body=b""):
        self.statuses = list(statuses)
        self.headers = headers
        self.body = body
        self.sent = []

    async def __call__(self, scope, receive, send):
        sent = b""
        while True:
            message = await receive()
            sent += message["body"]
            if not message["more_body"]:
                break
        self.sent.append((scope["method"], sent))
        await send({"type": "http.response.start", "status": self.statuses.pop(0), "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


BUSY = [(b"retry-after", b"0")]
LIVE = b'{"status": "live", "a_later_field": 1}'


def test_a_busy_service_is_asked_again_but_not_for_ever(listen):
    for status in (503, 429):
        app = Scripted(status, status, 200, headers=BUSY, body=LIVE)
        with Client(listen(app)) as client:
            assert client.live().status == "live"
        assert len(app.sent) == 3
    app = Scripted(*[503] * 9, headers=BUSY)
    with Client(listen(app)) as client, pytest.raises(ServiceError, match="503 unknown"):
        client.live()
    assert len(app.sent) == client_module.TRIES


@pytest.mark.parametrize("headers", [[], [(b"retry-after", b"61")], [(b"retry-after", b"Wed, 21 Oct 2015 07:28 GMT")]])
def test_a_service_that_does_not_say_when_to_come_again_is_not_asked_again(listen, headers):
    app = Scripted(503, 200, headers=headers)
    with Client(listen(app)) as client, pytest.raises(ServiceError):
        client.live()
    assert len(app.sent) == 1


def test_a_service_that_starts_is_waited_for_whatever_is_asked(listen, monkeypatch):
    told = Problem(title="Service Unavailable", status=503, detail="d", code="starting", request_id="r", errors=[])
    refused = told.model_dump_json().encode()
    app = Scripted(*[503] * 9, 204, headers=BUSY, body=refused)
    with Client(listen(app)) as client:
        client.delete("x")
    assert len(app.sent) == 10
    app = Scripted(*[503] * 9, headers=BUSY, body=refused)
    clock = iter(range(0, 100, 25))  # seconds: at the beginning, and after each answer
    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep))
    with Client(listen(app)) as client, pytest.raises(ServiceError, match="503 starting"):
        client.live()
    assert len(app.sent) == 3  # after 25, 50 and 75 s


def test_a_repeated_enrolment_is_the_same_request(listen, picture):
    app = Scripted(503, 201, headers=BUSY, body=b'{"model_id": "m", "results": []}')
    recorder = Recorder(app)
    with Client(listen(recorder)) as client:
        client.enrol([io.BytesIO(picture(0))])
    first, second = recorder.seen
    assert first[3]["idempotency-key"] == second[3]["idempotency-key"]
    assert picture(0) in first[4] and picture(0) in second[4]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.delete("x"),
        lambda client: client.delete_matching(),
        lambda client: client.backup(),
        lambda client: client.add_key("k", ["read"]),
    ],
)
def test_what_does_harm_twice_is_sent_once(listen, call):
    app = Scripted(503, 200, headers=BUSY)
    with Client(listen(app)) as client, pytest.raises(ServiceError):
        call(client)
    assert len(app.sent) == 1


def test_an_answer_of_something_in_between_is_an_error_too(listen):
    app = Scripted(502, body=b"<html>Bad Gateway</html>")
    with Client(listen(app)) as client, pytest.raises(ServiceError, match="502 unknown: <html>Bad Gateway"):
        client.live()


def test_nobody_there_is_a_connection_error():
    with Client("http://127.0.0.1:1") as client, pytest.raises(ConnectionError, match=r"http://127.0.0.1:1"):
        client.live()


def test_no_answer_in_time_is_a_timeout(listen):
    waiting = threading.Event()

    async def silent(scope, receive, send):
        while not waiting.is_set():
            message = await receive()
            if message["type"] == "http.disconnect":
                return

    with Client(listen(silent), timeout=0.2) as client, pytest.raises(TimeoutError, match="no answer within 0.2 s"):
        client.live()
    waiting.set()
