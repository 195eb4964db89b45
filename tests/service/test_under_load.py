"""What holds under load: many clients of a real service, which is killed or stopped at some moment.

Each client owns some of the photos, so that it knows what the gallery must hold of them.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from time import sleep

import httpx2
import numpy as np
import pytest
from sqlalchemy import text

from reid.config import ReidConfig
from reid.data.images import decode
from reid.inference.checkpoint import load_model, save_model
from service.gallery.pictures import PICTURES_FOLDER
from service.gallery.search import SearchOptions
from service.loading import BACKUPS_FOLDER
from service.opening import open_gallery
from service.records import Filter, LogPart
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.store import Store
from service.upkeep.backup import backup_work
from service.upkeep.jobs import JobRunner
from service.upkeep.reindex import reindex_work
from tests.service.starting import Command
from tests.waiting import DEADLINE, wait_until

ALL = 1000  # more matches than there are items
SHARED = range(10)  # photos that all clients enrol and none changes
LABELS = ["plain", "Åsa", "x'; DROP TABLE items;--"]
CAMERAS = [None, "north", "日本"]


@contextmanager
def served(folder, checkpoint):
    """The command on a free port: the process, its address, and the file of its log."""
    log = folder.parent / "log"
    log.write_text("")
    given = ["--port", "0", "--device", "cpu", "--checkpoint", str(checkpoint), "--gallery", str(folder)]
    process = Command("service.serve", given, {**os.environ, "REID_LOG_FORMAT": "text"}, log)
    try:
        wait_until(lambda: process.poll() is not None or address_in(log))
        yield process, address_in(log), log
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def address_in(log):
    found = re.search(r"http://\S+:\d+", log.read_text())
    return found and found.group()


def name_of(photo):
    return f"{photo}.png"


@dataclass
class Client:
    """Changes its own photos at random, one request at a time, and knows what must be true of them."""

    number: int
    picture: object
    draw: random.Random
    said: dict = field(default_factory=dict)  # {photo: (label, camera, key)} as acknowledged
    asked: dict | None = None  # the same after a change that is not answered yet
    ids: dict = field(default_factory=dict)
    deleted: set = field(default_factory=set)
    shared: set = field(default_factory=set)
    jobs: set = field(default_factory=set)
    answers: dict = field(default_factory=dict)  # matches by request id

    def __post_init__(self):
        self.unused = count(1_000_000 * (self.number + 1))

    def work(self, address):
        """Change and ask until the service is gone."""
        with httpx2.Client(base_url=address, timeout=DEADLINE) as http, suppress(httpx2.TransportError):
            while True:
                wanted = [self.enrol, self.enrol, self.query, self.query, self.edit, self.edit, self.delete]
                actions = [*wanted * 3, self.delete_matching, self.start_job]
                action = self.draw.choice(actions if self.said else [self.enrol, self.start_job])
                action(http)

    def change(self, after, send):
        """Send a request after which the photos are to be `after`; returns its answer, or None if it was refused."""
        self.asked = after
        answer = send()
        self.asked = None
        if answer.status_code == 503:  # then nothing may have changed
            assert answer.json()["code"] in ("model_mismatch", "busy")
            return None
        assert answer.status_code in (200, 201, 202, 204), answer.text
        self.said = after
        return answer

    def enrol(self, http):
        new = [next(self.unused) for _ in range(self.draw.randint(1, 8))]
        others = [*self.draw.sample(sorted(self.said), min(len(self.said), 1)), self.draw.choice(SHARED), new[0]]
        photos = new + self.draw.sample(others, self.draw.randint(0, len(others)))
        words = {n: self.words(n) for n in new}
        metadata = [dict(zip(("label", "camera", "key"), words.get(n, (None,) * 3), strict=True)) for n in photos]
        files = [("images", (name_of(n), self.picture(n))) for n in photos]
        form = {"metadata": json.dumps(metadata)}
        there = {*self.said}
        answer = self.change({**self.said, **words}, lambda: http.post("/v1/items", files=files, data=form))
        if answer:
            for n, result in zip(photos, answer.json()["results"], strict=True):
                if n in SHARED:
                    self.shared.add(n)
                    continue
                assert (result["result"] == "created") == (n not in there)
                assert self.ids.setdefault(n, result["item"]["item_id"]) == result["item"]["item_id"]
                there.add(n)

    def words(self, photo):
        label = f"{self.draw.choice(LABELS)} {self.number}"
        return label, self.draw.choice(CAMERAS), f"key {photo}" if photo % 2 else None

    def edit(self, http):
        photo = self.draw.choice(sorted(self.said))
        label, camera, key = self.words(photo)
        send = {"label": label, "camera": camera}
        after = {**self.said, photo: (label, camera, key)}
        self.change(after, lambda: http.patch(f"/v1/items/{self.ids[photo]}", json=send))

    def delete(self, http):
        photo = self.draw.choice(sorted(self.said))
        after = {n: words for n, words in self.said.items() if n != photo}
        if self.change(after, lambda: http.delete(f"/v1/items/{self.ids[photo]}")):
            self.deleted.add(self.ids.pop(photo))

    def delete_matching(self, http):
        label = self.said[self.draw.choice(sorted(self.said))][0]
        gone = {n for n, words in self.said.items() if words[0] == label}
        wanted = {"filter": {"labels": [label]}}
        assert http.post("/v1/items/delete", json=wanted).json()["items"] == len(gone)
        wanted |= {"dry_run": False, "expected": len(gone)}
        after = {n: words for n, words in self.said.items() if n not in gone}
        if self.change(after, lambda: http.post("/v1/items/delete", json=wanted)):
            self.deleted |= {self.ids.pop(n) for n in gone}

    def query(self, http):
        photo = self.draw.choice(sorted(self.said))
        files = {"image": (name_of(photo), self.picture(photo))}
        answer = self.change(self.said, lambda: http.post("/query", files=files, data={"top_k": ALL}))
        if answer:
            matches = [(match["item_id"], match["score"]) for match in answer.json()["matches"]]
            self.answers[answer.headers["X-Request-ID"]] = matches
            found = {item_id for item_id, _ in matches}
            assert found >= set(self.ids.values())
            assert not found & self.deleted

    def start_job(self, http):
        kind = self.draw.choice(["backup", "reindex"])
        answer = http.post(f"/v1/admin/{kind}")
        assert answer.status_code in (202, 409)
        if answer.status_code == 202:
            self.jobs.add(answer.json()["job_id"])

    def compare(self, items):
        """Hold the items of the own photos, by photo, against what was acknowledged, and learn from them."""
        found = {n: (item.details.label, item.details.camera, item.details.key) for n, item in items.items()}
        assert found in ([self.said] if self.asked is None else [self.said, self.asked])
        for n, item in items.items():
            assert self.ids.setdefault(n, item.item_id) == item.item_id
        self.said, self.asked = found, None
        self.deleted |= {self.ids.pop(n) for n in [*self.ids] if n not in found}


def make_clients(number, picture, seed):
    return [Client(n, picture, random.Random(seed + n)) for n in range(number)]


@pytest.fixture
def other_model(checkpoint, tmp_path):
    """The same weights with other features, which is another model."""
    run = shutil.copytree(checkpoint, tmp_path / "other")
    model, described = load_model(run, ReidConfig)
    options = described.config.eval.model_copy(update={"features": "sa"})
    config = described.config.model_copy(update={"eval": options})
    save_model(run / "model.safetensors", model, replace(described, config=config))
    return run


def check(folder, checkpoint, clients):
    """Open the gallery, let its jobs end, and compare all that it holds with what the clients know."""
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.inspected.result()  # which takes the pictures that a kill left without item
        work = {
            "backup": backup_work(gallery.database, gallery.pictures, folder / BACKUPS_FOLDER),
            "reindex": reindex_work(gallery),
        }
        with JobRunner(Jobs(gallery.database), work) as runner:

            def ended():
                return {job.state for job in runner.jobs.page(None, ALL)} <= {"done", "failed"}

            wait_until(ended)
            if not gallery.worker.serves:
                runner.start("reindex", {})
                wait_until(ended)
            jobs = runner.jobs.page(None, 10**6)
        assert [job.error for job in jobs if job.state != "done"] == []
        assert {job.job_id for job in jobs} >= set.union(*(client.jobs for client in clients))
        picture = clients[0].picture
        items = gallery.store.page(Filter(), limit=10**6)
        photos = {int(item.medium.source.removesuffix(".png")): item for item in items}
        assert len(photos) == len(items) < ALL
        assert {*photos} & {*SHARED} >= set.union(*(client.shared for client in clients))
        for client in clients:
            client.compare({n: item for n, item in photos.items() if n // 1_000_000 == client.number + 1})
        assert sum(len(client.said) for client in clients) + len({*photos} & {*SHARED}) == len(items)
        sent = [picture(n) for n in photos]
        assert [item.medium.sha256 for item in items] == [hashlib.sha256(data).hexdigest() for data in sent]
        check_pictures(folder, gallery.store)
        for item, data in zip(items, sent, strict=True):
            assert decode(gallery.pictures.read(item.medium.sha256)).tobytes() == decode(data).tobytes()
        check_vectors(gallery, items, sent)
        check_logs(gallery, items, clients)
    checked = folder.parent / "checked"
    checked.mkdir(exist_ok=True)
    for backup in [*(folder / BACKUPS_FOLDER).glob("*")]:
        check_backup(backup)
        backup.rename(checked / backup.name)
    assert {path.name for path in checked.iterdir()} == {job.result["folder"] for job in jobs if job.kind == "backup"}


def check_pictures(folder, store):
    kept = [path.name for path in (folder / PICTURES_FOLDER).glob("??/*")]
    assert sorted(kept) == sorted(f"{sha256}.webp" for sha256 in store.contents())


def check_vectors(gallery, items, sent):
    """Vectors and answers are those of the photos as they were sent."""
    rows = [*gallery.store.rows(gallery.model_id)]
    assert [row.number for row in rows] == [item.number for item in items]
    if items:
        vectors = np.concatenate([gallery.embedder.embed([decode(data)]) for data in sent])
        np.testing.assert_allclose(np.stack([row.vector for row in rows]), vectors, atol=1e-5)
        answer = gallery.query([sent[0]], SearchOptions(top_k=ALL))
        scores = {match.item.number: match.score for match in answer.matches}
        assert sorted(scores) == [item.number for item in items]
        np.testing.assert_allclose([scores[item.number] for item in items], vectors @ vectors[0], atol=1e-5)


def check_logs(gallery, items, clients):
    """The operation log tells how the gallery came to be, the query log all that was answered."""
    told = {}
    for operation in gallery.store.operations(LogPart(limit=10**6)):
        if operation.kind == "item.delete":
            del told[operation.target]
        elif operation.kind.startswith("item"):
            assert (operation.target in told) == (operation.kind == "item.edit")
            told[operation.target] = (operation.after["number"], operation.after["label"], operation.after["camera"])
    assert told == {item.item_id: (item.number, item.details.label, item.details.camera) for item in items}
    logged = {query.asked.cause.request_id: query.asked for query in gallery.queries.page(LogPart(limit=10**6))}
    for client in clients:
        for request_id, matches in client.answers.items():
            assert [*logged[request_id].matches] == matches


def check_backup(folder):
    with Database(folder) as database:
        assert database.read(text("PRAGMA integrity_check")) == [("ok",)]
        check_pictures(folder, Store(database))
        assert {job.state for job in Jobs(database).page(None, 10**6)} <= {"done", "cancelled"}


def kill_rounds(folder, models, picture, rounds, seed):
    """Kill the service under load, again and again, each time with one of the models, and look at what is left."""
    draw = random.Random(seed)
    clients = make_clients(5, picture, seed)
    for round_ in range(rounds):
        model = draw.choice(models) if round_ else models[0]
        with served(folder, model) as (process, address, _), ThreadPoolExecutor(len(clients)) as pool:
            working = [pool.submit(client.work, address) for client in clients]
            if not round_:  # there is something to lose, however slow the machine
                wait_until(lambda: any(client.said for client in clients))
            sleep(draw.uniform(0, 4))  # only chooses the moment
            process.kill()
        for worked in working:
            worked.result()
        if round_ % 2:  # first the real service finds what was left, and its jobs go on
            with served(folder, model) as (_, address, _):
                wait_until(lambda: not open_jobs(address))
        check(folder, model, clients)


def open_jobs(address):
    found = httpx2.get(f"{address}/v1/jobs", timeout=DEADLINE).json()["jobs"]
    return [job for job in found if job["state"] in ("queued", "running")]


@pytest.mark.slow
def test_a_kill_under_load_loses_nothing(checkpoint, other_model, picture, tmp_path):
    kill_rounds(tmp_path / "gallery", [checkpoint, other_model], picture, rounds=2, seed=1)


@pytest.mark.slow
def test_many_kills_under_load_lose_nothing(checkpoint, other_model, picture, tmp_path):
    kill_rounds(tmp_path / "gallery", [checkpoint, other_model], picture, rounds=15, seed=2)


@pytest.mark.slow
def test_a_signal_under_load_loses_nothing(checkpoint, picture, tmp_path):
    """The clients take care that each answer is good or a refusal; the gallery is compared with what they know."""
    clients, draw = make_clients(5, picture, 3), random.Random(3)
    with served(tmp_path / "gallery", checkpoint) as (process, address, log), ThreadPoolExecutor(5) as pool:
        working = [pool.submit(client.work, address) for client in clients]
        sleep(draw.uniform(1, 3))  # only chooses the moment
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        for worked in working:
            worked.result()
        assert log.read_text().splitlines()[-1] == "stopped"
    check(tmp_path / "gallery", checkpoint, clients)
