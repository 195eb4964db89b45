"""A review over HTTP: it is started, asks, is answered by several people, and ends in a catalogue."""

import csv
import io
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import access, problems
from service.api.catalogue import catalogue
from service.api.identities import identities_router
from service.api.jobs import jobs
from service.api.review import review
from service.records import Cause, Details, Filter, Medium, NewItem, NewKey, Region
from service.review.reviews import Reviews
from service.storage.database import Database
from service.storage.decisions import NewDecision, reviewer_errors
from service.storage.identities import Identities
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.models import Models
from service.storage.store import Store
from service.upkeep.jobs import JobRunner
from tests.waiting import wait_until

SIZE, INDIVIDUALS, PHOTOS = 16, 8, 40


def pictures(count=PHOTOS, start=0, **details):
    """Photos of a few individuals, whose vectors tell them apart most of the time, and who each shows."""
    rng = np.random.default_rng(start)
    means = np.random.default_rng(99).normal(size=(INDIVIDUALS, SIZE))
    shown = rng.integers(0, INDIVIDUALS, count)
    vectors = (means[shown] + 0.6 * rng.normal(size=(count, SIZE))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    said = {"camera": "gate"} | details
    return [
        (NewItem(Medium(f"{start + n:064x}", 640, 480, f"{n}.jpg"), vector, Details(**said)), int(who))
        for n, (vector, who) in enumerate(zip(vectors, shown, strict=True))
    ]


class Site:
    """A gallery without a model, and the routes of its review."""

    def __init__(self, folder):
        self.database = Database(folder)
        Models(self.database).bind("m", SIZE, {})
        self.store, self.truth = Store(self.database), {}
        self.reviews = Reviews(self.database)
        self.runner = JobRunner(Jobs(self.database), {"suggest": self.reviews.work})
        gallery = SimpleNamespace(
            database=self.database, store=self.store, worker=SimpleNamespace(publish=lambda: True), model_id="m"
        )
        self.keys = Keys(self.database)
        self.app = FastAPI()
        access.install(self.app, self.keys.find, require_keys=True)
        problems.install(self.app)
        self.app.include_router(review(gallery, self.runner, self.reviews))
        self.app.include_router(identities_router(gallery))
        self.app.include_router(catalogue(gallery, self.reviews))
        self.app.include_router(jobs(self.runner, "m"))

    def enrol(self, photos):
        items = [one.item for one in self.store.enrol([new for new, _ in photos])]
        self.truth |= {item.item_id: who for item, (_, who) in zip(items, photos, strict=True)}
        return items

    def client(self, name, scopes=("write",), cameras=None):
        _, secret = self.keys.add(NewKey(name, frozenset(scopes), None if cameras is None else frozenset(cameras)))
        return TestClient(self.app, base_url="http://localhost", headers={"X-API-Key": secret})

    def start(self, client, **wanted):
        answer = client.post("/v1/review/start", json={"gold": 0, **wanted})
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["job_id"]
        wait_until(lambda: self.runner.jobs.get(job_id).state not in ("queued", "running"))
        job = self.runner.jobs.get(job_id)
        assert job.state == "done", job.error
        return job.result

    def true_answer(self, question):
        same = self.truth[question["a"]["item_id"]] == self.truth[question["b"]["item_id"]]
        return {"question_id": question["question_id"], "answer": "same" if same else "different"}

    def groups(self):
        """The items of each identity as the store shows them, and as they truly are."""
        shown, truth = {}, {}
        for item in self.store.page(Filter(), limit=10_000):
            shown.setdefault(item.identity_id or item.item_id, set()).add(item.item_id)
            truth.setdefault(self.truth[item.item_id], set()).add(item.item_id)
        return sorted(map(sorted, shown.values())), sorted(map(sorted, truth.values()))

    def close(self):
        self.runner.close()
        self.database.close()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "gallery")
    yield site
    site.close()


def ask(client):
    answer = client.get("/v1/review/next")
    assert answer.status_code == 200, answer.text
    return answer.json()["question"]


def decide(client, *decisions, status=201, **more):
    answer = client.post("/v1/decisions", json={"decisions": list(decisions), **more})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_answers_lead_to_the_true_individuals_and_the_status_says_so(site):
    site.enrol(pictures())
    ada, bob = site.client("ada"), site.client("bob")
    assert ada.get("/v1/review/next").json()["detail"].startswith("no review was started")
    assert site.start(ada)["groups"] == PHOTOS
    before = ada.get("/v1/review/status").json()
    assert before["settled"] < 0.5
    for turn in range(400):
        client = (ada, bob)[turn % 2]
        if (question := ask(client)) is None:
            break
        decide(client, site.true_answer(question))
    else:
        pytest.fail("it never ends")
    shown, truth = site.groups()
    assert shown == truth
    after = ada.get("/v1/review/status").json()
    assert not any(after["filter"].values())
    site.start(ada, filter={"exclude_cameras": ["no"], "exclude_attributes.import": "a"})
    said = {name: value for name, value in ada.get("/v1/review/status").json()["filter"].items() if value}
    assert said == {"exclude_cameras": ["no"], "exclude_attributes.import": ["a"]}
    assert after["low"] <= len(truth) <= after["high"]
    assert (after["groups"], after["settled"], after["conflicts"], after["answers"]) == (len(truth), 1, 0, turn)
    listed = ada.get("/v1/identities", params={"sort": "photos"}).json()
    assert sorted((one["photos"] for one in listed["identities"]), reverse=True) == [
        one["photos"] for one in listed["identities"]
    ]
    assert {one["photos"] for one in listed["identities"]} == {len(one) for one in truth if len(one) > 1}


def test_nobody_is_asked_what_another_is_being_asked(site):
    site.enrol(pictures())
    ada, bob = site.client("ada"), site.client("bob")
    site.start(ada)
    seen = set()
    for turn in range(12):
        question = ask((ada, bob)[turn % 2])
        ends = {question["a"]["item_id"], question["b"]["item_id"]}
        assert not ends & seen
        seen |= ends


def test_a_question_counts_once_however_often_it_is_answered(site):
    site.enrol(pictures())
    ada = site.client("ada")
    site.start(ada)
    question = ask(ada)
    first = decide(ada, site.true_answer(question))
    assert decide(ada, site.true_answer(question))["decision_ids"] == first["decision_ids"]
    a, b, c = (item.item_id for item in site.store.page(Filter(), limit=3))
    asked = {"decisions": [{"a": a, "b": b, "answer": "same"}, {"a": b, "b": c, "answer": "unsure"}]}
    headers = {"Idempotency-Key": "one"}
    ids = [ada.post("/v1/decisions", json=asked, headers=headers).json()["decision_ids"] for _ in range(2)]
    assert ids[0] == ids[1]
    page = ada.get("/v1/decisions", params={"basis": "visual"}).json()["decisions"]
    assert len(page) == 3
    decide(ada, {"a": b, "b": a, "answer": "different"})  # the same person thinks better of it
    page = ada.get("/v1/decisions").json()["decisions"]
    assert [one["superseded"] for one in page] == [False, True, False, False]
    assert site.store.get(a).identity_id is None


def test_an_answer_that_comes_several_times_at_once_counts_once(site):
    site.enrol(pictures())
    ada = site.client("ada")
    site.start(ada)
    for _ in range(3):
        given = site.true_answer(ask(ada))
        with ThreadPoolExecutor(6) as threads:
            done = list(threads.map(lambda given: decide(ada, given)["decision_ids"], [given] * 6))
        assert len({decision_id for ids in done for decision_id in ids}) == 1
    assert len(ada.get("/v1/decisions", params={"basis": "visual"}).json()["decisions"]) == 3


def test_steps_are_previewed_and_taken_back(site):
    a, b, *_ = (item.item_id for item in site.enrol(pictures()))
    ada = site.client("ada")
    preview = decide(ada, {"a": a, "b": b, "answer": "same"}, dry_run=True)
    assert (preview["dry_run"], preview["moved"][0]["items"], site.store.get(a).identity_id) == (True, 2, None)
    done = decide(ada, {"a": a, "b": b, "answer": "same"})
    assert site.store.get(a).identity_id == site.store.get(b).identity_id == done["moved"][0]["identity_id"]
    undone = ada.post("/v1/decisions/undo", json={"batch_id": done["batch_id"]})
    assert undone.status_code == 201
    assert site.store.get(a).identity_id is None
    again = ada.post("/v1/decisions/undo", json={"batch_id": done["batch_id"]})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("decisions", "status", "told"),
    [
        ([{"a": "A", "b": "nobody", "answer": "same"}], 404, "no item 'nobody'; nothing was decided"),
        ([{"a": "A", "b": "A", "answer": "same"}], 409, "with itself"),
        (
            [{"a": "A", "b": "B", "answer": "same"}, {"a": "B", "b": "A", "answer": "different"}],
            409,
            "both 'same' and 'different'; nothing was decided",
        ),
        ([{"question_id": "x", "answer": "same"}], 404, "no question 'x'"),
        ([{"question_id": "x", "a": "A", "b": "B", "answer": "same"}], 422, "expected question_id, or both a and b"),
        ([{"a": "A", "b": "B", "answer": "maybe"}], 422, "answer"),
        ([], 422, "at least 1"),
        ([{"a": "A", "b": "B", "answer": "same"}] * 5001, 422, "at most 5000"),
    ],
)
def test_what_cannot_be_decided_is_told_and_changes_nothing(site, decisions, status, told):
    a, b, *_ = (item.item_id for item in site.enrol(pictures(4)))
    ids = {"A": a, "B": b}
    wanted = [{key: ids.get(value, value) for key, value in one.items()} for one in decisions]
    ada = site.client("ada")
    answer = ada.post("/v1/decisions", json={"decisions": wanted})
    assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text
    assert ada.get("/v1/decisions").json()["decisions"] == []


def test_an_item_deleted_while_it_was_asked_about_may_be_answered(site):
    site.enrol(pictures())
    ada, bob = site.client("ada"), site.client("bob")
    site.start(ada)
    question = ask(ada)
    gone = question["a"]["item_id"]
    site.store.delete([gone])
    decide(bob, {"a": gone, "b": question["b"]["item_id"], "answer": "same"}, status=404)
    decide(ada, {"question_id": question["question_id"], "answer": "same"})
    assert ask(ada) is not None


def test_a_key_for_some_cameras_sees_and_answers_its_own_alone(site):
    site.enrol(pictures(30))
    mine = {item.item_id for item in site.enrol(pictures(30, start=1000, camera="yard"))}
    ada, eve = site.client("ada"), site.client("eve", cameras=["yard"])
    assert eve.post("/v1/review/start", json={}).status_code == 403
    site.start(ada)
    for _ in range(5):
        question = ask(eve)
        assert {question["a"]["item_id"], question["b"]["item_id"]} <= mine
        assert set(question["a"]["pictures"]) | set(question["b"]["pictures"]) <= mine
        of_eve = [item for item in site.store.page(Filter(), limit=100) if item.item_id in mine]
        for side in (question["a"], question["b"]):
            group = [one for one in of_eve if one.identity_id == side["identity_id"] is not None]
            assert side["size"] == (len(group) or 1)
        moved = decide(eve, site.true_answer(question))["moved"]
        assert all(len(one["item_ids"]) == one["items"] and set(one["item_ids"]) <= mine for one in moved)
    assert eve.get("/v1/review/status").status_code == 403
    ada.post("/v1/identities", json={"name": "Kali"})
    assert ada.post("/v1/identities", json={"name": "kali", "dry_run": True}).json()["similar"] != []
    assert eve.post("/v1/identities", json={"name": "kali", "dry_run": True}).json()["similar"] == []
    strange = next(item_id for item_id in site.truth if item_id not in mine)
    decide(eve, {"a": strange, "b": min(mine), "answer": "same"}, status=404)
    done = decide(ada, {"a": strange, "b": min(mine), "answer": "same"})
    assert eve.post("/v1/decisions/undo", json={"batch_id": done["batch_id"]}).status_code == 403
    assert eve.post("/v1/identities", json={"name": "mine", "item_ids": [min(mine)]}).status_code == 403
    identity_id = site.store.get(strange).identity_id
    [shown] = [one for one in eve.get("/v1/identities").json()["identities"] if one["identity_id"] == identity_id]
    assert shown["photos"] < len([one for one in site.store.page(Filter()) if one.identity_id == identity_id])
    assert eve.patch(f"/v1/identities/{identity_id}", json={"name": "mine"}).status_code == 403
    assert site.client("reader", scopes=["read"]).get("/v1/review/next").status_code == 403


def test_what_time_and_place_say_is_not_asked(site):
    new, who = pictures(1)[0]
    boxes = [Region(0, 0, 100, 100), Region(300, 0, 100, 100), Region(310, 10, 100, 100)]
    vectors = [one.vector for one, _ in pictures(3, start=50)]
    regions = [(NewItem(new.medium, vector, new.details, box), who) for vector, box in zip(vectors, boxes, strict=True)]
    first, second, third = (item.item_id for item in site.enrol(regions))
    site.enrol(pictures(5, start=500))
    ada = site.client("ada")
    site.start(ada)
    told = ada.get("/v1/decisions", params={"basis": "context"}).json()["decisions"]
    assert {frozenset((one["a"], one["b"])) for one in told} == {frozenset((first, x)) for x in (second, third)}
    assert {one["answer"] for one in told} == {"different"}
    site.start(ada, photos=False)
    told = ada.get("/v1/decisions", params={"basis": "context"}).json()["decisions"]
    assert [one["answer"] for one in told if not one["superseded"]] == ["withdrawn"] * 2
    site.start(ada)
    told = ada.get("/v1/decisions", params={"basis": "context"}).json()["decisions"]
    held = [one["answer"] for one in told if not one["superseded"] and one["answer"] != "withdrawn"]
    assert held == ["different"] * 2


def test_what_people_see_outweighs_what_time_and_place_say(site):
    new = pictures(2, captured_at=datetime(2025, 1, 1, tzinfo=UTC))
    a, b = (item.item_id for item in site.enrol(new))
    ada = site.client("ada")
    site.start(ada, burst=5)
    assert site.store.get(a).identity_id == site.store.get(b).identity_id is not None
    done = decide(ada, {"a": a, "b": b, "answer": "different"})
    assert site.store.get(a).identity_id is None
    site.start(ada, burst=5)
    assert site.store.get(a).identity_id is None
    ada.post("/v1/decisions/undo", json={"batch_id": done["batch_id"]})
    assert site.store.get(a).identity_id == site.store.get(b).identity_id is not None


def test_photos_that_come_later_join_the_review(site):
    site.enrol(pictures(20))
    ada = site.client("ada")
    site.start(ada)
    assert ada.get("/v1/review/status").json()["items"] == 20
    site.enrol(pictures(10, start=700))
    wait_until(lambda: ada.get("/v1/review/status").json()["items"] == 30)


def test_a_service_that_starts_again_goes_on_with_the_review(site, tmp_path):
    site.enrol(pictures())
    ada = site.client("ada")
    site.start(ada)
    for _ in range(5):
        decide(ada, site.true_answer(ask(ada)))
    before, truth = ada.get("/v1/review/status").json(), site.truth
    site.reviews._session = None  # as another process begins
    wait_until(lambda: ada.get("/v1/review/status").status_code == 200)
    after = ada.get("/v1/review/status").json()
    assert (after["groups"], after["answers"], after["job_id"]) == (before["groups"], 5, before["job_id"])
    assert site.truth == truth


def test_gold_questions_tell_how_reliable_reviewers_are(site):
    site.enrol(pictures())
    ada, bob = site.client("ada"), site.client("bob")
    site.start(ada)
    for _ in range(15):
        decide(ada, site.true_answer(ask(ada)))
    site.start(ada, gold=0.5)
    rng = random.Random(0)
    site.reviews._random = rng
    for _ in range(24):
        question = ask(bob)
        decide(bob, {"question_id": question["question_id"], "answer": rng.choice(["same", "different"])})
    told = ada.get("/v1/decisions", params={"limit": 1000, "basis": "gold"}).json()["decisions"]
    assert len(told) > 5
    with site.database.transaction() as connection:
        errors = reviewer_errors(connection)
    assert all(error > 0.02 for error in errors.values())
    assert len(errors) == 1, "nobody is tested by his own answers"


def test_conflicts_are_listed_with_where_the_group_is_weakest(site):
    a, b, c, *_ = (item.item_id for item in site.enrol(pictures(5)))
    ada, bob = site.client("ada"), site.client("bob")
    for client, pair in ((ada, (a, b)), (bob, (a, b)), (ada, (b, c))):
        decide(client, {"a": pair[0], "b": pair[1], "answer": "same"})
    done = decide(ada, {"a": a, "b": c, "answer": "different"})
    assert done["conflicts"] == [{"a": min(a, c), "b": max(a, c)}]
    [told] = ada.get("/v1/review/conflicts").json()["conflicts"]
    assert told["weakest"] == [{"a": min(b, c), "b": max(b, c)}]
    assert set(told["part"]) in ({c}, {a, b})
    detail = ada.get(f"/v1/identities/{told['identity_id']}").json()
    assert (len(detail["items"]), len(detail["decisions"]), len(detail["conflicts"])) == (3, 4, 1)


def test_identities_are_made_named_merged_and_split(site):
    items = site.enrol(pictures(8))
    a, b, c, d, e, *_ = (item.item_id for item in items)
    ada = site.client("ada")

    def post(path, status=201, **body):
        answer = ada.post(f"/v1/identities{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    preview = post("", name="Åsa", item_ids=[a, b], dry_run=True)
    assert preview["moved"][0]["items"] == 2
    assert ada.get("/v1/identities").json()["total"] == 0
    one = post("", name="Åsa", item_ids=[a, b])["identity_id"]
    other = post("", name="A\u030aSA", item_ids=[c, d])
    assert other["similar"] == [one], "offered as a duplicate"
    other = other["identity_id"]
    assert post("", status=409, name="Åsa")["detail"].startswith("name 'Åsa' belongs to identity")
    assert "shows 'Åsa'" in post("", status=409, name="new", item_ids=[a])["detail"]
    assert post("", status=404, name="new", item_ids=["x"])["detail"] == "no item 'x'"
    assert "itself" in post(f"/{one}/merge", status=409, into=one)["detail"]
    merged = post(f"/{other}/merge", into=one)
    [shown] = ada.get("/v1/identities", params={"q": "åsa"}).json()["identities"]
    assert (shown["photos"], shown["aliases"], shown["cover"]) == (4, ["A\u030aSA"], a)
    assert ada.get(f"/v1/identities/{other}").json()["merged_into"] == one
    assert ada.get(f"/v1/identities/{one}").json()["merged"] == [{"identity_id": other, "name": "A\u030aSA"}]
    assert post(f"/{other}/unmerge", dry_run=True)["moved"][0]["item_ids"] == [c, d]
    ada.post("/v1/decisions/undo", json={"batch_id": merged["batch_id"]})
    assert {site.store.get(item).details.label for item in (c, d)} == {"A\u030aSA"}
    assert ada.get(f"/v1/identities/{one}").json()["merged"] == []
    parted = post(f"/{one}/split", item_ids=[a], name="eva")
    assert [site.store.get(item).details.label for item in (a, b)] == ["eva", "Åsa"]
    assert "would leave it" in post(f"/{parted['identity_id']}/split", status=409, item_ids=[a])["detail"]
    changed = ada.patch(f"/v1/identities/{one}", json={"name": "Anna", "notes": "shy", "attributes": {"sex": "f"}})
    assert (changed.json()["name"], changed.json()["notes"], changed.json()["aliases"]) == ("Anna", "shy", ["Åsa"])
    assert ada.patch(f"/v1/identities/{one}", json={"name": None}).status_code == 422
    assert ada.get("/v1/identities/nobody").status_code == 404
    assert site.store.get(e).identity_id is None
    pages = [ada.get("/v1/identities", params={"limit": 2, "cursor": at}).json() for at in (0, 2)]
    assert [[one["name"] for one in page["identities"]] for page in pages] == [["Anna", "eva"], ["A\u030aSA"]]
    assert [page["next_cursor"] for page in pages] == [2, None]


def test_individuals_are_sorted_as_people_do_it_and_told_by_the_clock_of_their_photos(site):
    site.enrol(pictures(1, label="N10", captured_at=datetime.fromisoformat("2026-05-03T23:41:00+02:00")))
    site.enrol(
        pictures(1, 50, label="n2", captured_at=datetime.fromisoformat("2026-05-04T00:41:00+03:00"))
    )  # the same moment elsewhere
    [last] = site.enrol(pictures(1, 60, label="N2b", captured_at=datetime.fromisoformat("2026-05-04T00:00:00Z")))
    site.enrol(pictures(1, 70, label="N02"))
    ada = site.client("ada")

    def listed(**wanted):
        return ada.get("/v1/identities", params=wanted).json()

    told = {one["name"]: one for one in listed()["identities"]}
    assert list(told) == ["N02", "n2", "N2b", "N10"] or list(told) == ["n2", "N02", "N2b", "N10"]
    assert [told[name]["last_seen"] for name in ("N10", "n2", "N2b", "N02")] == [
        "2026-05-03T23:41:00+02:00",
        "2026-05-04T00:41:00+03:00",
        "2026-05-04T00:00:00Z",
        None,
    ]
    # What a corrected label leaves of a name is listed where it is wanted, and comes back with its photo.
    site.store.edit(last.item_id, {"label": "N3"})
    with_photos = listed(empty=False)
    assert [one["name"] for one in with_photos["identities"]][-2:] == ["N3", "N10"] and with_photos["total"] == 4
    assert listed()["total"] == 5
    site.store.edit(last.item_id, {"label": "N2b"})
    assert "N2b" in [one["name"] for one in listed(empty=False)["identities"]]


def test_the_catalogue_is_told_as_far_as_a_key_may_know(site):
    gate = [item.item_id for item in site.enrol(pictures(3))]
    [yard] = [item.item_id for item in site.enrol(pictures(1, 50, camera="yard"))]
    ada, keeper = site.client("ada"), site.client("keeper", ("read",), ["gate"])
    ada.post("/v1/identities", json={"name": "Åsa", "item_ids": [gate[0], yard]})

    def table(client, **wanted):
        answer = client.get("/v1/catalogue", params=wanted)
        assert answer.status_code == 200, answer.text
        is_for_people = wanted.get("format") != "wildbook"
        assert answer.content.startswith(b"\xef\xbb\xbf") == is_for_people, (
            "the mark that Excel needs, and Wildbook not"
        )
        return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))

    every = table(ada)
    assert [(row["item_id"], row["name"], bool(row["certainty"])) for row in every] == [
        *((gate[0], "Åsa", True), (gate[1], "", False), (gate[2], "", False), (yard, "Åsa", True)),
    ]
    assert [row["item_id"] for row in table(ada, cameras="yard")] == [yard]
    assert (
        [(row["item_id"], row["name"], row["decided_by"]) for row in table(keeper)]
        == [
            (gate[0], "Åsa", ""),  # who joined it to an item of another camera is not told
            *((item_id, "", "") for item_id in gate[1:]),
        ]
    )
    [named, *_] = table(ada, format="wildbook", species="Tragelaphus angasii")
    assert (named["Encounter.genus"], named["MarkedIndividual.individualID"]) == ("Tragelaphus", "Åsa")
    refused = ada.get("/v1/catalogue", params={"format": "wildbook", "species": "nyala"})
    assert refused.status_code == 422 and "genus and epithet" in refused.json()["detail"]


def test_the_catalogue_suggests_whom_unsettled_items_may_be_found_to_show_and_names_nobody_by_it(site):
    site.enrol([*pictures(), *pictures(10, 500, camera="yard")])
    ada, keeper = site.client("ada"), site.client("keeper", ("read",), ["gate"])

    def table(client, **wanted):
        answer = client.get("/v1/catalogue", params=wanted)
        assert answer.status_code == 200, answer.text
        return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))

    refused = ada.get("/v1/catalogue", params={"likely": True})
    assert refused.status_code == 409 and "no review was started" in refused.json()["detail"]
    site.start(ada, error=0)
    for _ in range(30):
        decide(ada, site.true_answer(ada.get("/v1/review/next").json()["question"]))
    without, rows = table(ada), table(ada, likely=True)
    told = [row for row in rows if row["likely"]]
    assert told and not any(row["likely"] or row["likely_probability"] for row in without)
    assert [row | {"likely": "", "likely_probability": ""} for row in rows] == without
    known = {row["individual"] for row in rows} - {""}
    for row in told:
        assert row["likely"] in known - {row["individual"]}
        assert 0.05 < float(row["likely_probability"]) <= 1
    assert all(row["individual"] or row["decided_by"] == "" for row in told)
    # A key for some cameras hears of individuals that have photos there alone.
    seen = table(keeper, likely=True)
    theirs = {row["individual"] for row in seen} - {""}
    assert {row["likely"] for row in seen} - {""} <= theirs
    # What is answered meanwhile needs no suggestion.
    first = max(told, key=lambda row: float(row["likely_probability"]))
    of_them = next(row["item_id"] for row in rows if row["individual"] == first["likely"])
    decide(ada, {"a": first["item_id"], "b": of_them, "answer": "same"})
    [now] = [row for row in table(ada, likely=True) if row["item_id"] == first["item_id"]]
    assert now["individual"] and now["likely"] != now["individual"]
    wildbook = {"format": "wildbook", "species": "Tragelaphus angasii", "likely": True}
    refused = ada.get("/v1/catalogue", params=wildbook)
    assert refused.status_code == 422 and "likely is of format table" in refused.json()["detail"]


def test_who_starts_a_review_may_watch_it_and_nobody_else_but_an_admin(site):
    site.enrol(pictures(4))
    ada, bob, boss = site.client("ada"), site.client("bob"), site.client("boss", ("admin",))
    location = ada.post("/v1/review/start", json={}).headers["Location"]
    assert [client.get(location).status_code for client in (ada, bob, boss)] == [200, 404, 200]
    assert [client.get("/v1/jobs").status_code for client in (ada, boss)] == [403, 200]


def test_who_tells_apart_what_the_machine_joined_takes_that_back(site):
    a, b = (item.item_id for item in site.enrol(pictures(2)))
    Identities(site.database).decide([NewDecision(a, b, "same", "machine")], Cause("machine"), source="machine")
    ada = site.client("ada")

    def joins():
        return [one["superseded"] for one in ada.get("/v1/decisions?basis=machine").json()["decisions"]]

    assert joins() == [False]
    done = decide(ada, {"a": b, "b": a, "answer": "different"})
    assert (joins(), site.store.get(a).identity_id, done["conflicts"]) == ([True], None, [])
    ada.post("/v1/decisions/undo", json={"batch_id": done["batch_id"]})
    assert joins() == [True, False]
    assert site.store.get(a).identity_id == site.store.get(b).identity_id is not None


def named_look_alikes(site, names):
    """An individual of two photos for each name; all look alike. Their ids by name."""
    random = np.random.default_rng(0)
    vectors = 1 + 0.02 * random.normal(size=(2 * len(names), SIZE))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    new = [
        (NewItem(Medium(f"{n:064x}", 64, 64, f"{n}.jpg"), vector, Details(label=names[n // 2], camera="gate")), n // 2)
        for n, vector in enumerate(vectors)
    ]
    items = site.enrol(new)
    return {name: [item.item_id for item in items[2 * n : 2 * n + 2]] for n, name in enumerate(names)}


def all_asked(site, client):
    """The names of both sides of all questions that can be asked at once."""
    found = []
    while question := ask(client):
        found.append({question["a"]["label"], question["b"]["label"]})
    return found


def test_individuals_of_different_names_are_told_apart_unless_a_person_says_same(site):
    names = [f"no {n}" for n in range(14)] + ["\u00c5sa", "A\u030aSA "[:-1]]
    named = named_look_alikes(site, names)
    ada = site.client("ada")
    found = site.start(ada, error=0.5)
    assert (found["groups"], found["low"], found["high"]) == (16, 15, 16), "two of the names may be one"
    assert all_asked(site, ada) == [{"\u00c5sa", "A\u030aSA"}], "that is asked, and nothing else"
    found = site.start(ada, names=False)
    assert found["low"] < 15 and len(all_asked(site, ada)) > 2
    site.start(ada)
    one, other = named["no 0"][0], named["no 1"][1]
    done = decide(ada, {"a": one, "b": other, "answer": "same"})
    assert {site.store.get(item).details.label for item in named["no 0"] + named["no 1"]} == {"no 0"}
    assert (done["conflicts"], ada.get("/v1/review/status").json()["low"]) == ([], 14)
    ada.post("/v1/decisions/undo", json={"batch_id": done["batch_id"]})
    status = ada.get("/v1/review/status").json()
    assert (status["low"], status["high"], status["conflicts"]) == (15, 16, 0)


def test_a_name_given_during_a_review_counts_for_the_next_question(site):
    named = named_look_alikes(site, ["ada", "bob"])
    unnamed = [item.item_id for item in site.enrol([(one[0], 9) for one in pictures(2, 700)])]
    ada = site.client("ada")
    decide(ada, {"a": unnamed[0], "b": unnamed[1], "answer": "same"})
    site.start(ada)
    assert ada.get("/v1/review/status").json()["low"] == 2
    identity_id = site.store.get(unnamed[0]).identity_id
    assert ada.patch(f"/v1/identities/{identity_id}", json={"name": "eva"}).status_code == 200
    assert ada.get("/v1/review/status").json()["low"] == 3
    assert all_asked(site, ada) == []
    eva = ada.post(f"/v1/identities/{identity_id}/merge", json={"into": site.store.get(named["bob"][0]).identity_id})
    assert eva.status_code == 201
    assert ada.get("/v1/review/status").json()["low"] == 2


def test_a_burst_joins_no_individuals_of_different_names(site):
    new = [
        one for n in (1, 2) for one in pictures(3, 300 * n, camera=f"{n}", captured_at=datetime(2025, 1, n, tzinfo=UTC))
    ]
    one, two, three, four, five, six = (item.item_id for item in site.enrol(new))
    ada = site.client("ada")
    for name, item in (("ada", one), ("bob", three), ("eva", five)):
        ada.post("/v1/identities", json={"name": name, "item_ids": [item]})
    for _ in range(2):  # and what follows is the same when it is looked at again
        site.start(ada, burst=5)
        assert [site.store.get(item).details.label for item in (one, two, three)] == ["ada", None, "bob"]
        assert [site.store.get(item).details.label for item in (four, five, six)] == ["eva"] * 3
    site.start(ada, burst=5, names=False)
    assert len({site.store.get(item).identity_id for item in (one, two, three)}) == 1


def test_what_comes_twice_in_one_request_counts_once(site):
    site.enrol(pictures())
    ada = site.client("ada")
    site.start(ada)
    question = ask(ada)
    a, b = (question[side]["item_id"] for side in "ab")
    answers = [{"question_id": question["question_id"], "answer": "different"}] * 2
    assert len(decide(ada, *answers, {"a": b, "b": a, "answer": "different"})["decision_ids"]) == 1
    others = sorted(site.truth.keys() - {a, b})[:2]
    pairs = [dict(zip("ab", ends, strict=True)) for ends in (others, others[::-1], others)]
    for answer in ("different", "same", "unsure"):  # each in the place of the one before
        assert len(decide(ada, *({**pair, "answer": answer} for pair in pairs))["decision_ids"]) == 1
    told = ada.get("/v1/decisions").json()["decisions"]
    assert [one["answer"] for one in told if not one["superseded"]] == ["different", "unsure"]


def test_nobody_is_asked_about_an_item_that_is_gone(site):
    site.enrol(pictures())
    ada = site.client("ada")
    site.start(ada)
    site.reviews._session._took = 3600  # it takes no notice of what came or went for hours
    deleted = set()
    for _ in range(5):
        question = ask(ada)
        ends = {question[side]["item_id"] for side in "ab"}
        assert not ends & deleted and question["a"]["item"] and question["b"]["item"]
        site.store.delete(ends)
        deleted |= ends


@pytest.mark.parametrize(
    ("path", "sent", "status", "told"),
    [
        ("", {"item_ids": ["A", "A"]}, 422, "expected a name, or at least two different item_ids"),
        ("/ADA/split", {"item_ids": ["A"], "name": "Ada"}, 409, "is what identity"),
        ("/ADA/split", {"item_ids": ["A", "B", "C"]}, 409, "all 3 items of identity"),
        ("/ADA/split", {"item_ids": []}, 422, "at least 1 item"),
        ("/ADA/merge", {"into": "ADA"}, 409, "cannot be merged into itself"),
        ("/ADA/unmerge", {}, 409, "is not merged into another"),
    ],
)
def test_what_cannot_become_of_identities_is_told_and_changes_nothing(site, path, sent, status, told):
    a, b, c, *_ = (item.item_id for item in site.enrol(pictures(4)))
    ada = site.client("ada")
    made = ada.post("/v1/identities", json={"name": "Ada", "item_ids": [a, b, c]}).json()["identity_id"]
    ids = {"A": a, "B": b, "C": c, "ADA": made}
    before = ada.get(f"/v1/identities/{made}").json(), ada.get("/v1/decisions").json()
    wanted = {
        key: [ids.get(one, one) for one in value] if isinstance(value, list) else ids.get(value, value)
        for key, value in sent.items()
    }
    answer = ada.post(f"/v1/identities{path.replace('ADA', made)}", json=wanted)
    assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text
    assert (ada.get(f"/v1/identities/{made}").json(), ada.get("/v1/decisions").json()) == before


def test_an_alias_that_a_list_cannot_show_is_refused(site):
    ada = site.client("ada")
    made = ada.post("/v1/identities", json={"name": "Ada"}).json()["identity_id"]
    answer = ada.patch(f"/v1/identities/{made}", json={"aliases": ["Bea", "a\u202eb"]})
    assert answer.status_code == 422 and "U+202E" in answer.json()["detail"]
    assert ada.get(f"/v1/identities/{made}").json()["aliases"] == []


@pytest.mark.parametrize(
    "wrong", [{"burst": False}, {"error": True}, {"neighbours": "20"}, {"names": 1}, {"speed": "1"}]
)
def test_a_review_is_not_started_with_what_is_no_number_or_no_yes_or_no(site, wrong):
    refused = site.client("ada").post("/v1/review/start", json=wrong)
    assert refused.status_code == 422
    assert next(iter(wrong)) in refused.json()["detail"]
