"""Edits of many items at once: counted before, and taken back after."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.records import Details, NewKey, Upload
from service.settings import Settings
from service.storage.keys import Keys

ADMIN = "k" * 32
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def ask(gallery, runner):
    """A function that sends a request with the key of an admin, or of a writer of camera north."""
    _, north = Keys(gallery.database).add(NewKey("n", frozenset({"write"}), frozenset({"north"})))
    settings = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key=ADMIN)
    with TestClient(create_app(gallery, runner, settings)) as client:

        def send(method, path, key=ADMIN, **sent):
            headers = {"X-API-Key": north if key == "north" else key, **sent.pop("headers", {})}
            return client.request(method, path, headers=headers, **sent)

        yield send


@pytest.fixture
def items(gallery, picture):
    """Two of camera north, of which the first is named, one of camera south, and one without camera and time."""
    told = [
        Details(camera="north", label="ada", captured_at=NOON, captured_precision="second"),
        Details(camera="north", captured_at=NOON + timedelta(hours=6)),
        Details(camera="south", label="ada", captured_at=NOON + timedelta(days=2)),
        Details(),
    ]
    uploads = [Upload(f"{number}.png", picture(number), one) for number, one in enumerate(told)]
    return [one.item for one in gallery.enrol(uploads)]


def edit(ask, status=200, key=ADMIN, **body):
    answer = ask("POST", "/v1/items/edit", key, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_all_that_pass_are_counted_then_changed_and_changed_back(ask, items, gallery):
    before = gallery.store.find([item.item_id for item in items])
    body = {"filter": {"cameras": ["north"]}, "changes": {"label": "bob", "site": "shore"}, "shift_seconds": -90}
    assert edit(ask, **body) == {"dry_run": True, "items": 2, "changed": 2, "batch_id": None}
    assert gallery.store.find([item.item_id for item in items]) == before, "a dry run changed something"
    edit(ask, 422, **body, dry_run=False)
    assert edit(ask, 409, **body, dry_run=False, expected=3)["detail"].startswith("2 items pass the filter, not 3")
    done = edit(ask, **body, dry_run=False, expected=2)
    first, second, *others = gallery.store.find([item.item_id for item in items])
    assert [(one.details.label, one.details.site) for one in (first, second)] == 2 * [("bob", "shore")]
    assert (first.details.captured_at, first.details.captured_precision) == (NOON - timedelta(seconds=90), "second")
    assert others == before[2:]
    assert ids(ask("GET", "/v1/items?labels=bob")) == [first.item_id, second.item_id]
    # The search follows: it filters by what is said now.
    found = ask("POST", "/v1/query", data={"item_id": first.item_id, "sites": ["shore"]}).json()
    assert [match["item_id"] for match in found["matches"]] == [second.item_id]

    taken_back = ask("POST", "/v1/items/edit/undo", json={"batch_id": done["batch_id"], "dry_run": True}).json()
    assert (taken_back["items"], taken_back["changed"], taken_back["batch_id"]) == (2, 2, None)
    undone = ask("POST", "/v1/items/edit/undo", json={"batch_id": done["batch_id"]}).json()
    after = gallery.store.find([item.item_id for item in items])
    assert [one.details for one in after] == [one.details for one in before]
    again = ask("POST", "/v1/items/edit/undo", json={"batch_id": done["batch_id"]})
    assert (again.status_code, "were changed since" in again.json()["detail"]) == (409, True)
    ask("POST", "/v1/items/edit/undo", json={"batch_id": undone["batch_id"]})
    assert ids(ask("GET", "/v1/items?labels=bob")) == [first.item_id, second.item_id]


def test_what_was_changed_since_keeps_a_step_and_what_was_deleted_does_not(ask, items, gallery):
    chosen = [item.item_id for item in items]
    done = edit(ask, item_ids=[*chosen, "gone"], changes={"site": "shore"}, dry_run=False)
    assert (done["items"], done["changed"]) == (4, 4)
    gallery.delete(chosen[3:])
    gallery.edit(chosen[0], {"site": "hill"})
    refused = ask("POST", "/v1/items/edit/undo", json={"batch_id": done["batch_id"]})
    assert refused.status_code == 409 and chosen[0] in refused.json()["detail"]
    gallery.edit(chosen[0], {"site": "shore"})
    assert ask("POST", "/v1/items/edit/undo", json={"batch_id": done["batch_id"]}).json()["changed"] == 3
    assert {item.details.site for item in gallery.store.find(chosen)} == {None}
    assert ask("POST", "/v1/items/edit/undo", json={"batch_id": "none"}).status_code == 404


def test_a_key_for_a_camera_changes_its_items_alone(ask, items, gallery):
    every = {"filter": {}, "changes": {"site": "shore"}}
    assert edit(ask, key="north", **every)["items"] == 2
    assert edit(ask, key="north", item_ids=[items[2].item_id], changes={"site": "shore"})["items"] == 0
    assert edit(ask, 403, key="north", **{**every, "changes": {"camera": "south"}})["code"] == "forbidden"
    done = edit(ask, **every, dry_run=False, expected=4)
    assert ask("POST", "/v1/items/edit/undo", "north", json={"batch_id": done["batch_id"]}).status_code == 404


def test_what_cannot_be_meant_is_refused(ask, subtests):
    for body in [
        {"filter": {}},
        {"filter": {}, "item_ids": ["x"], "shift_seconds": 1},
        {"changes": {"site": "a"}},
        {"filter": {}, "changes": {"key": "a"}},
        {"filter": {}, "changes": {"site": ""}},
        {"filter": {}, "shift_seconds": 1.5},
        {"filter": {"camera": ["north"]}, "shift_seconds": 1},
    ]:
        with subtests.test(body=body):
            edit(ask, 422, **body)


def test_a_time_that_would_leave_the_calendar_and_a_name_that_cannot_be_seen_change_nothing(ask, items, gallery):
    gallery.edit(items[0].item_id, {"captured_at": datetime(9999, 12, 1, tzinfo=UTC)})
    told = edit(ask, 409, filter={}, shift_seconds=90 * 86_400, dry_run=False, expected=4)
    assert items[0].item_id in told["detail"]
    assert edit(ask, 422, filter={}, changes={"site": " "})["code"] == "unusable_text"
    assert gallery.store.get(items[1].item_id).details == items[1].details


def test_lists_are_newest_first_on_wish_and_of_those_with_or_without_label(ask, items, gallery):
    chosen = [item.item_id for item in items]
    first = ask("GET", "/v1/items?order=newest&limit=3")
    assert ids(first) == chosen[:0:-1]
    assert ids(ask("GET", f"/v1/items?order=newest&limit=3&cursor={first.json()['next_cursor']}")) == chosen[:1]
    assert ids(ask("GET", "/v1/items?named=false")) == [chosen[1], chosen[3]]
    assert ids(ask("GET", "/v1/items?named=true&order=newest", "north")) == [chosen[0]]
    media = items[0].medium.sha256
    assert ids(ask("GET", f"/v1/items?media={media}&order=newest")) == chosen[:1]
    assert ids(ask("GET", f"/v1/items?media={media}&named=false")) == []
    assert edit(ask, filter={}, named=False, changes={"label": "eve"})["items"] == 2


def test_the_days_of_the_photos_are_counted(ask, items, gallery):
    gallery.edit(items[3].item_id, {"captured_at": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)})
    days = {day["day"]: day["items"] for day in ask("GET", "/v1/days").json()["days"]}
    assert days == {"1969-12-31": 1, "2024-05-01": 2, "2024-05-03": 1}
    assert ask("GET", "/v1/days?named=true", "north").json() == {"days": [{"day": "2024-05-01", "items": 1}]}


def test_what_has_the_same_key_is_done_once(ask, items, gallery):
    """As by somebody whose service was killed before it could answer."""
    whole = {"filter": {"cameras": ["north"]}, "shift_seconds": 3600, "dry_run": False, "expected": 2}
    some = {"item_ids": [items[2].item_id], "shift_seconds": 3600, "dry_run": False}

    def sent(body, key, caller=ADMIN):
        answer = ask("POST", "/v1/items/edit", caller, json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert sent({**whole, "dry_run": True}, "a")["changed"] == 2
    first, other = sent(whole, "a"), sent(some, "a")
    assert sent(whole, "a") == first and sent(some, "a") == other
    now = [item.details.captured_at for item in gallery.store.find([item.item_id for item in items[:3]])]
    assert now == [item.details.captured_at + timedelta(hours=1) for item in items[:3]]
    # Another key, and another caller, mean another hour.
    assert len({first["batch_id"], sent(whole, "b")["batch_id"], sent(whole, "a", "north")["batch_id"]}) == 3
    now = [item.details.captured_at for item in gallery.store.find([item.item_id for item in items[:3]])]
    assert now[0] == items[0].details.captured_at + timedelta(hours=3)
    assert ask("POST", "/v1/items/edit/undo", json={"batch_id": other["batch_id"]}).json()["changed"] == 1
