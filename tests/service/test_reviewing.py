"""Reviews by running services: killed while people answer, and two of them over one queue."""

import random
import threading
from contextlib import suppress
from itertools import cycle

import httpx2
import pytest

from tests.service.sites import Service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

PEOPLE, ROUNDS, NO_ANSWER = 3, 3, 60


def ask(service, method, path, **sent):
    answer = httpx2.request(method, f"{service.address}{path}", timeout=NO_ANSWER, **sent)
    assert answer.is_success, answer.text
    return answer.json()


def enrol(service, picture, count):
    files = [("images", (f"{number}.png", picture(number))) for number in range(count)]
    return [one["item"]["item_id"] for one in ask(service, "POST", "/v1/items", files=files)["results"]]


def start_review(service):
    job = ask(service, "POST", "/v1/review/start", json={"gold": 0, "error": 0})
    wait_until(lambda: ask(service, "GET", f"/v1/jobs/{job['job_id']}")["state"] == "done")


def kept(service):
    """All decisions that a service tells, by their ids."""
    return {one["decision_id"]: one for one in ask(service, "GET", "/v1/decisions?limit=1000")["decisions"]}


def answer_until_killed(service, item_ids, told, seed):
    """Say of random items whether they are the same until nobody answers; note what was acknowledged."""
    chance = random.Random(seed)
    with suppress(httpx2.TransportError), httpx2.Client(base_url=service.address, timeout=NO_ANSWER) as http:
        while True:
            a, b = sorted(chance.sample(item_ids, 2))
            sent = {"a": a, "b": b, "answer": chance.choice(["same", "different", "unsure"])}
            answer = http.post("/v1/decisions", json={"decisions": [sent]})
            if answer.is_success:
                told.extend((decision_id, sent) for decision_id in answer.json()["decision_ids"][:1])


def test_a_kill_of_the_service_loses_no_answer_that_it_acknowledged(tmp_path, checkpoint, picture):
    service = Service(tmp_path / "gallery", tmp_path / "log")
    told = []
    try:
        service.start(checkpoint)
        service.wait()
        item_ids = enrol(service, picture, 12)
        start_review(service)
        for turn in range(ROUNDS):
            before = len(told)
            people = [
                threading.Thread(target=answer_until_killed, args=(service, item_ids, told, PEOPLE * turn + one))
                for one in range(PEOPLE)
            ]
            for one in people:
                one.start()
            wait_until(lambda: len(told) > before + 10 + 7 * turn)  # noqa: B023
            service.kill()
            for one in people:
                one.join()
            service.start(checkpoint)
            service.wait()
            there = kept(service)
            for decision_id, sent in told:
                one = there[decision_id]
                assert {one["a"], one["b"]} == {sent["a"], sent["b"]} and one["answer"] == sent["answer"]
            # What holds is told, though each pair was decided by the last answer alone.
            assert ask(service, "GET", "/v1/review/status")["answers"] >= 1
    finally:
        service.kill()


def test_two_services_ask_nobody_the_same_and_count_an_answer_once(tmp_path, checkpoint, picture, shared_url):
    services = [Service(tmp_path / "gallery", tmp_path / f"{name}.log", REID_DATABASE=shared_url) for name in "ab"]
    try:
        for one in services:
            one.start(checkpoint)
        for one in services:
            one.wait()
        enrol(services[0], picture, 16)
        start_review(services[0])
        open_questions = [ask(one, "GET", "/v1/review/next")["question"] for one in (*services, *services)]
        ends = [question[side]["item_id"] for question in open_questions for side in "ab"]
        assert len(set(ends)) == len(ends), "each item is asked about once at a time, whichever service asks"
        for other, question in zip(cycle(reversed(services)), open_questions, strict=False):
            sent = {"decisions": [{"question_id": question["question_id"], "answer": "different"}]}
            first, again = (ask(one, "POST", "/v1/decisions", json=sent) for one in (other, other))
            assert first["decision_ids"] == again["decision_ids"]
        assert [ask(one, "GET", "/v1/review/status")["answers"] for one in services] == [4, 4]
        assert kept(services[0]) == kept(services[1])
        services[0].kill()
        later = ask(services[1], "GET", "/v1/review/next")["question"]
        assert later["question_id"] not in {question["question_id"] for question in open_questions}
    finally:
        for one in services:
            one.kill()
