"""Reviews of several processes, of which each may be killed at any moment."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reid.naming.decisions import Decision
from reid.naming.groups import group_items
from service.records import ALL_SCOPES, Caller, Cause, Conflict, Details, Filter, Medium, NewItem
from service.review.reviews import KIND, GivenAnswer, Reviews
from service.review.scope import Plan
from service.storage.database import Database
from service.storage.decisions import Decisions
from service.storage.jobs import Jobs
from service.storage.models import Models
from service.storage.store import Store
from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[3]
SIZE, INDIVIDUALS = 16, 10
ADA, BOB = (Caller(name, ALL_SCOPES) for name in ("ada", "bob"))


def photos(count, model="m", seed=0):
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(ord(model)).normal(size=(INDIVIDUALS, SIZE))
    shown = np.random.default_rng(5).integers(0, INDIVIDUALS, count)
    vectors = (means[shown] + 0.5 * rng.normal(size=(count, SIZE))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), shown.tolist()


def fill(database, count=50):
    """Items of ten individuals; whom each truly shows."""
    Models(database).bind("m", SIZE, {})
    vectors, shown = photos(count)
    new = [
        NewItem(Medium(f"{n:064x}", 64, 64, f"{n}.jpg"), vector, Details(camera="gate"))
        for n, vector in enumerate(vectors)
    ]
    items = [one.item.item_id for one in Store(database).enrol(new)]
    return dict(zip(items, shown, strict=True))


def start(database, reviews):
    jobs = Jobs(database)
    jobs.create(KIND, Plan(gold=0).as_json())
    job = jobs.claim()
    jobs.end(job.job_id, "done", reviews.work(job, lambda done, total: None))


def answer(reviews, caller, asked, truth):
    same = truth[asked.a] == truth[asked.b]
    given = [GivenAnswer("same" if same else "different", asked.question_id)]
    return reviews.answer(given, caller, Cause(caller.actor), None, False)


def require_view_of_decisions(database):
    """Hold what items show to what all decisions say from scratch."""
    everything = Decisions(database).page(limit=100_000)
    items = Store(database).page(Filter(), limit=10_000)
    rows = {item.item_id: row for row, item in enumerate(items)}
    numbers = {one.number: place for place, one in enumerate(everything)}
    given = [
        Decision(rows[one.a], rows[one.b], one.answer, one.basis, one.actor, numbers.get(one.supersedes))
        for one in everything
    ]
    labels = group_items(len(items), given)
    shown = {item.item_id: item.identity_id or item.item_id for item in items}
    for item, label in zip(items, labels, strict=True):
        assert shown[item.item_id] == shown[items[label].item_id]
    assert len(set(shown.values())) == len(set(labels.tolist()))


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_two_processes_share_one_queue(request, tmp_path, place):
    url = request.getfixturevalue("shared_url") if place == "postgresql" else None
    with Database(tmp_path / "gallery", url) as one:
        truth = fill(one)
        # A file has one process: there the two share what it has open.
        with Database(tmp_path / "gallery", url) if url else one as other:
            first, second = Reviews(one), Reviews(other)
            start(one, first)
            asked, seen = {}, set()
            for turn in range(8):
                caller, reviews = ((ADA, first), (BOB, second))[turn % 2]
                question, _ = reviews.next(caller)
                assert not {question.a, question.b} & seen
                seen |= {question.a, question.b}
                asked[question.question_id] = caller, reviews, question
            for caller, reviews, question in asked.values():
                answer(reviews, caller, question, truth)
            assert first.status()["groups"] == second.status()["groups"]
            for turn in range(20):
                caller, reviews = ((ADA, first), (BOB, second))[turn % 2]
                answer(reviews, caller, reviews.next(caller)[0], truth)
            assert first.status()["groups"] == second.status()["groups"] < 45
            require_view_of_decisions(one)


def test_another_model_keeps_the_decisions_and_asks_anew(tmp_path):
    with Database(tmp_path / "gallery") as database:
        truth = fill(database)
        reviews = Reviews(database)
        start(database, reviews)
        for _ in range(20):
            answer(reviews, ADA, reviews.next(ADA)[0], truth)
        before, decided = reviews.status(), Decisions(database).page()
        models = Models(database)
        models.prepare("n", SIZE, {})
        vectors, _ = photos(50, "n", 1)
        items = Store(database).page(Filter())
        models.add("n", {item.number: vector for item, vector in zip(items, vectors, strict=True)})
        models.switch("n")
        until = time.monotonic() + DEADLINE
        while reviews.status()["model_id"] != "n" and time.monotonic() < until:
            time.sleep(0.01)
        after = reviews.status()
        assert (after["model_id"], after["groups"], after["answers"]) == ("n", before["groups"], 20)
        assert Decisions(database).page() == decided
        assert reviews.next(ADA)[0].model_id == "n"


def test_a_review_that_cannot_go_on_says_why_and_does_once_it_can(tmp_path):
    with Database(tmp_path / "gallery") as database:
        fill(database)
        start(database, Reviews(database))
        store = Store(database)
        store.delete([item.item_id for item in store.page(Filter())])
        reviews = Reviews(database)
        for _ in range(2):
            with pytest.raises(Conflict, match="^the review cannot go on: no item passes the filter; expected some"):
                reviews.next(ADA)
        fill(database)
        assert reviews.next(ADA) is not None


ANSWERING = """
import os, random, sys
from pathlib import Path
from service.records import Cause, ALL_SCOPES, Caller
from service.review.reviews import GivenAnswer, Reviews
from service.storage.database import Database
from service.storage.identities import Identities
from service.storage.store import Store
from service.fields import Filter

folder, url, acknowledged, seed = sys.argv[1:]
rng = random.Random(int(seed))
with Database(Path(folder), url or None) as database, open(acknowledged, "a") as file:
    reviews, identities = Reviews(database), Identities(database)
    ids = [item.item_id for item in Store(database).page(Filter())]
    steps = []
    while True:
        if steps and rng.random() < 0.2:
            done = identities.undo(steps.pop(rng.randrange(len(steps))))
        else:
            given = [GivenAnswer(rng.choice(["same", "different"]), None, *rng.sample(ids, 2))]
            done = reviews.answer(given, Caller("ada", ALL_SCOPES), Cause("ada"), None, False)
            if not done.decision_ids:
                continue
            steps.append(done.batch_id)
        print(*done.decision_ids, sep="\\n", file=file, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_a_kill_while_people_answer_loses_no_answer_that_was_acknowledged(request, tmp_path, place):
    url = request.getfixturevalue("shared_url") if place == "postgresql" else None
    folder, acknowledged = tmp_path / "gallery", tmp_path / "acknowledged"
    with Database(folder, url) as database:
        fill(database, 20)
    rng, before = random.Random(0), 0
    for turn in range(4):
        arguments = [sys.executable, "-c", ANSWERING, str(folder), url or "", str(acknowledged), str(turn)]
        with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE) as child:
            wanted, until = before + rng.randrange(3, 40), time.monotonic() + DEADLINE
            while len(told := acknowledged.read_text().split() if acknowledged.exists() else []) < wanted:
                assert child.poll() is None, child.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
        told, before = acknowledged.read_text().split(), len(told)
        with Database(folder, url) as database:
            kept = {one.decision_id for one in Decisions(database).page(limit=100_000)}
            assert set(told) <= kept, json.dumps(sorted(set(told) - kept))
            assert len(kept) <= len(told) + 1 + turn, "of each process at most the last is not acknowledged"
            require_view_of_decisions(database)
