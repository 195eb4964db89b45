"""kill -9 of the services, of Milvus and of the database at random moments, while clients enrol, edit, delete and ask.

What was answered stays true: nothing acknowledged is lost, nothing deleted is found, counts reconcile. KILLS is the
number of rounds, and KILLS_SEED chooses others. Each round's figures are printed: `pytest -n 0 -m milvus -s`.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress

import httpx2
import pytest

from tests.service.milvus_servers import MilvusServer
from tests.service.sites import Proxy, Service
from tests.waiting import wait_until

pytestmark = [pytest.mark.milvus, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("KILLS_SEED", "0"))
NO_ANSWER = 90  # seconds: more is a hang
CHECKED = 25  # items of a round that are asked for by their own picture


class Ledger:
    """What clients were told: which pictures are there, and which are gone; what they were not told is open."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = 0
        self.there: dict[int, str] = {}  # the item ids of pictures
        self.gone: set[str] = set()
        self.open_deletions: dict[str, int] = {}
        self.labels: dict[str, set[str | None]] = {}  # that an item may have
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()

    def next(self, count):
        with self.lock:
            self.sent += count
            return list(range(self.sent - count, self.sent))

    def created(self, number, item_id, pending):
        with self.lock:
            self.there[number] = item_id
            self.labels.setdefault(item_id, {None})
            self.counts["pending" if pending else "enrolled"] += 1

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1


class Crowd:
    """Clients of all kinds, each a thread, until they are told to end."""

    def __init__(self, address, ledger, picture, seed):
        self._address, self._ledger, self._picture = address, ledger, picture
        self._ending = threading.Event()
        acts = [self._enrol, self._enrol, self._delete, self._edit, self._query]
        self._threads = [threading.Thread(target=self._go, args=(act, seed + n)) for n, act in enumerate(acts)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _go(self, act, seed):
        chance = random.Random(seed)
        while not self._ending.is_set():
            try:
                with httpx2.Client(base_url=self._address, timeout=NO_ANSWER) as http:
                    act(http, chance)
            except httpx2.TimeoutException:
                self._ledger.fault(f"{act.__name__}: no answer within {NO_ANSWER} s")
            except httpx2.TransportError:
                self._ledger.count("unknown")
            except Exception as error:
                self._ledger.fault(f"{act.__name__}: {error!r}")
                return
            time.sleep(chance.uniform(0, 0.05))

    def _told(self, answer, *expected):
        """Whether an answer says what happened."""
        if answer.status_code >= 500:
            self._ledger.count("unknown")
            if answer.status_code != 503:
                self._ledger.fault(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
            return False
        if answer.status_code == 409 and "belongs to model" in answer.text:
            return False
        assert answer.status_code in expected, answer.text
        return True

    def _enrol(self, http, chance):
        numbers = self._ledger.next(chance.choice([1, 1, 1, 4]))
        files = [("images", (f"{number}.png", self._picture(number))) for number in numbers]
        data = {"metadata": json.dumps([{"key": f"k{number}"} for number in numbers])}
        headers = {"Idempotency-Key": f"{SEED}-{numbers[0]}"}
        for _ in range(chance.choice([1, 3])):  # some ask again, by the same key
            try:
                answer = http.post("/v1/items", files=files, data=data, headers=headers)
            except httpx2.TransportError as error:
                if isinstance(error, httpx2.TimeoutException):
                    raise
                self._ledger.count("unknown")
                time.sleep(0.3)
                continue
            if self._told(answer, 200, 201):
                for number, result in zip(numbers, answer.json()["results"], strict=True):
                    assert result["result"] in ("created", "existing"), result
                    self._ledger.created(number, result["item"]["item_id"], result["pending"])
                return
            time.sleep(0.3)

    def _some(self, chance):
        with self._ledger.lock:
            doomed = self._ledger.open_deletions
            items = [item for item in self._ledger.there.items() if item[1] not in doomed]
        return chance.choice(items) if len(items) > 5 else (None, None)

    def _delete(self, http, chance):
        number, item_id = self._some(chance)
        if item_id is None:
            return
        with self._ledger.lock:
            self._ledger.open_deletions[item_id] = number
        answer = http.delete(f"/v1/items/{item_id}")
        if self._told(answer, 204):
            with self._ledger.lock:
                del self._ledger.open_deletions[item_id], self._ledger.there[number]
                self._ledger.gone.add(item_id)
                self._ledger.counts["deleted"] += 1

    def _edit(self, http, chance):
        _, item_id = self._some(chance)
        if item_id is None:
            return
        label = f"l{chance.randrange(10)}"
        with self._ledger.lock:
            self._ledger.labels[item_id].add(label)
        answer = http.patch(f"/v1/items/{item_id}", json={"label": label})
        if answer.status_code == 404:
            with self._ledger.lock:
                doomed = item_id in self._ledger.gone or item_id in self._ledger.open_deletions
            assert doomed, f"{item_id} was acknowledged and is lost"
        elif self._told(answer, 200):
            with self._ledger.lock:
                self._ledger.labels[item_id] = {label}  # no other client edits
                self._ledger.counts["edited"] += 1

    def _query(self, http, chance):
        number, item_id = self._some(chance)
        if item_id is None:
            return
        with self._ledger.lock:
            gone = set(self._ledger.gone)
        answer = http.post("/v1/query", files={"image": ("q.png", self._picture(number))}, data={"top_k": 10})
        if self._told(answer, 200):
            found = [match["item_id"] for match in answer.json()["matches"]]
            self._ledger.count("queried")
            if back := gone & set(found):
                self._ledger.fault(f"deleted before the query and found: {back}")


class Site:
    """A database (or none, for SQLite), a Milvus server, and services over one gallery."""

    def __init__(self, folder, kind, postgresql, services):
        self.postgresql = postgresql
        self.milvus = MilvusServer(kind, folder / kind)
        settings = {"REID_ENGINE": "milvus", "REID_MILVUS_URI": self.milvus.uri}
        if postgresql is not None:
            settings["REID_DATABASE"] = postgresql.new()
            self._schema = settings["REID_DATABASE"].rpartition("%3D")[2]
        self.logs = [folder / f"{n}.log" for n in range(services)]
        self.services = [Service(folder / "gallery", log, **settings) for log in self.logs]
        self.checkpoints = [None] * services
        self.proxy = Proxy([service.port for service in self.services])

    def start(self, number, checkpoint, path="/health/ready"):
        self.checkpoints[number] = checkpoint
        self.services[number].start(checkpoint)
        self.services[number].wait(path)

    def victims(self):
        named = {"milvus": self.milvus, **{f"service {n}": service for n, service in enumerate(self.services)}}
        return named if self.postgresql is None else {**named, "database": self.postgresql}

    def revive(self, victim):
        if isinstance(victim, Service):
            if self.postgresql is not None:  # as when the lease of a dead process has ended
                self.postgresql.run("UPDATE jobs SET leased_until = 0", self._schema)
            victim.start(self.checkpoints[self.services.index(victim)])
        else:
            victim.start()

    def end(self):
        self.proxy.close()
        for service in self.services:
            service.kill()
        self.milvus.kill()


@pytest.fixture
def site(tmp_path, request):
    sites = []

    def make(kind, shared, services):
        postgresql = request.getfixturevalue("mortal_postgresql") if shared else None
        sites.append(Site(tmp_path / f"site {len(sites)}", kind, postgresql, services))
        sites[-1].milvus.start()
        return sites[-1]

    yield make
    for made in sites:
        made.end()


def get(address, path, **options):
    """The answer, or None while there is none."""
    with suppress(httpx2.TransportError):
        answer = httpx2.get(f"{address}{path}", timeout=NO_ANSWER, **options)
        if answer.is_success:
            return answer
    return None


def settled(service):
    """Whether a service is ready, and its index has followed all."""
    answer = get(service.address, "/health/ready") and get(service.address, "/metrics")
    return answer is not None and "\nreid_index_pending 0.0\n" in answer.text


def listed(address):
    items, cursor = [], None
    while True:
        page = get(address, "/v1/items", params={"limit": 100, **({"cursor": cursor} if cursor else {})}).json()
        items += page["items"]
        if not (cursor := page["next_cursor"]):
            return items


def ended(address, job):
    """A job when it has ended, whatever was killed meanwhile."""

    def look():
        answer = get(address, f"/v1/jobs/{job}")
        return answer and answer.json()["state"] not in ("queued", "running") and answer.json()

    return wait_until(look, f"job {job} does not end")


def check(site, ledger, picture, chance):
    """Hold what the clients were told against what there is."""
    address = site.services[0].address
    items = listed(address)
    there = {item["item_id"]: item for item in items}
    keys = [item["key"] for item in items]
    assert len(set(keys)) == len(keys)
    for item_id, number in list(ledger.open_deletions.items()):
        if item_id not in there:  # it did happen
            ledger.gone.add(item_id)
            del ledger.there[number]
    ledger.open_deletions.clear()
    assert not set(ledger.there.values()) - there.keys(), "acknowledged, and lost"
    assert not ledger.gone & there.keys(), "deleted, and listed"
    for item_id in ledger.there.values():
        assert there[item_id]["label"] in ledger.labels[item_id]
        ledger.labels[item_id] = {there[item_id]["label"]}
    for item in items:  # of which no client was told
        ledger.there.setdefault(int(item["key"][1:]), item["item_id"])
        ledger.labels.setdefault(item["item_id"], {item["label"]})
    for service in site.services:
        assert get(service.address, "/health/ready").json()["items"] == len(items)
    for number in chance.sample(sorted(ledger.there), min(CHECKED, len(ledger.there))):
        service = chance.choice(site.services)
        asked = {"files": {"image": ("q.png", picture(number))}, "data": {"top_k": 10}}
        answer = httpx2.post(f"{service.address}/v1/query", timeout=NO_ANSWER, **asked).json()
        found = [match["item_id"] for match in answer["matches"]]
        assert (found[0], answer["candidates"]) == (ledger.there[number], len(items))
        assert not ledger.gone & set(found), "deleted, and found"
    job = httpx2.post(f"{address}/v1/admin/reconcile", timeout=NO_ANSWER)
    compared = ended(address, job.json()["job_id"])
    assert compared["result"] == {"rows": len(items), "missing": 0, "ghosts": 0, "wrong": 0}, compared
    for log in site.logs:
        assert "Traceback" not in log.read_text(), log.read_text()[-8000:]


def kill_some(site, chance, crowd_of):
    """Kill one or two while clients are at work, start them again; the names, and seconds until all is well."""
    named = site.victims()
    names = chance.sample(sorted(named), 2 if chance.random() < 0.2 else 1)
    with crowd_of():
        time.sleep(chance.uniform(0.3, 2.5))
        for name in names:
            named[name].kill()
        time.sleep(chance.uniform(0, 2))
        began = time.monotonic()
        for name in sorted(names):  # the database first
            site.revive(named[name])
        time.sleep(chance.uniform(0.3, 1.5))
    return names, began


def reindex(site, chance, crowd_of, new):
    """Re-index to another model by the first service, killing some meanwhile; others serve the former until its end."""
    first = site.services[0]
    first.kill()
    site.start(0, new, "/health/live")
    ready = f"{first.address}/health/ready"  # which it never is, since the gallery belongs to the other model
    wait_until(lambda: httpx2.get(ready, timeout=NO_ANSWER).json()["code"] != "starting")
    job = httpx2.post(f"{first.address}/v1/admin/reindex", timeout=NO_ANSWER).json()["job_id"]
    names, began = kill_some(site, chance, crowd_of)
    for _ in range(3):
        told = ended(first.address, job)
        if told["state"] == "done":
            break
        print(f"  re-index said: {told['error']}", flush=True)  # noqa: T201
        job = httpx2.post(f"{first.address}/v1/admin/reindex", timeout=NO_ANSWER).json()["job_id"]
    assert told["state"] == "done", told
    for number in range(1, len(site.services)):
        site.services[number].kill()
        site.start(number, new)
    return names, began


def play(site, rounds, picture, models, seed):
    """Some rounds on one site; every third kills during a re-index."""
    chance, ledger, used = random.Random(seed), Ledger(), 0
    for number in range(len(site.services)):
        site.start(number, models[used])
    for round_ in range(rounds):
        before = Counter(ledger.counts)

        def crowd_of(round_=round_):
            return Crowd(site.proxy.address, ledger, picture, 1000 * seed + 10 * round_)

        if round_ % 3 == 1:
            used = 1 - used
            names, began = reindex(site, chance, crowd_of, models[used])
        else:
            names, began = kill_some(site, chance, crowd_of)
        for service in site.services:
            wait_until(lambda service=service: settled(service), f"{names}: a service does not recover")
        seconds = time.monotonic() - began
        told = dict(ledger.counts - before)
        kind = "re-index" if round_ % 3 == 1 else "at work"
        print(f"round {seed}.{round_} {kind}: killed {names}, well after {seconds:.1f} s, {told}", flush=True)  # noqa: T201
        check(site, ledger, picture, chance)
        assert not ledger.faults, ledger.faults


SITES = {
    "lite, PostgreSQL, two services": ("milvus-lite", True, 2, 0.5),
    "lite, SQLite": ("milvus-lite", False, 1, 0.25),
    "Milvus, PostgreSQL, one service": ("milvus", True, 1, 0.25),
}


@pytest.mark.parametrize("name", SITES)
def test_what_was_acknowledged_outlives_kills(site, picture, checkpoint, another_checkpoint, name):
    kind, shared, services, share = SITES[name]
    rounds = max(1, round(ROUNDS * share))
    models, seed = (checkpoint, another_checkpoint), 100 * SEED + list(SITES).index(name)
    play(site(kind, shared, services), rounds, picture, models, seed)
