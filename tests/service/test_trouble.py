"""What a running service does with many clients, with slow ones, and when its disk or another process is in the way."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from queue import Queue
from threading import Barrier
from time import monotonic

import httpx2
import numpy as np
import pytest

from reid.data.images import decode
from reid.inference.embedder import Embedder
from service.gallery.decoders import MOST
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.store import Store
from service.upkeep.jobs import JobRunner
from tests.service.under_way import begin
from tests.waiting import DEADLINE, wait_until

LIMITED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root, whom permissions bind as all others


def listens(address):
    host, port = address.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=DEADLINE).close()
    except OSError:
        return False
    return True


def enrol(address, data):
    return httpx2.post(f"{address}/v1/items", files={"images": ("a.png", data)}, timeout=DEADLINE)


def query(address, data):
    return httpx2.post(f"{address}/query", files={"image": ("a.png", data)}, timeout=DEADLINE)


def contents(folder):
    """The photos of a gallery that nobody serves, after their pictures were compared with them."""
    with Database(folder) as database:
        kept = Store(database).contents()
    assert {path.name for path in (folder / "pictures").glob("??/*")} == {f"{one}.webp" for one in kept}
    return kept


@pytest.mark.slow
def test_every_answer_is_that_of_some_moment(serve, checkpoint, picture):
    """32 clients query while 4 enrol and 2 delete; a photo is enrolled once and may then be deleted."""
    sent = [picture(n) for n in range(200)]
    vectors = Embedder.from_checkpoint(checkpoint, device="cpu")[0].embed([decode(data) for data in sent])
    doomed, together = Queue(), Barrier(38)
    photo_of, added, removed = {}, {}, {}  # the latter two: when the request was sent, and when it was answered

    def timed(send):
        before = monotonic()
        return send(), (before, monotonic())

    def enrol(http, first):
        for start in range(first, len(sent), 20):
            photos = range(start, start + 5)
            files = [("images", ("a.png", sent[n])) for n in photos]
            answer, span = timed(lambda files=files: http.post("/v1/items", files=files))
            assert answer.status_code == 201
            for n, result in zip(photos, answer.json()["results"], strict=True):
                item_id = result["item"]["item_id"]
                photo_of[item_id], added[item_id] = n, span
                if n % 2:
                    doomed.put(item_id)

    def delete(http, _):
        for _ in range(len(sent) // 4):
            item_id = doomed.get(timeout=DEADLINE)
            answer, removed[item_id] = timed(lambda item_id=item_id: http.delete(f"/v1/items/{item_id}"))
            assert answer.status_code == 204

    def query(http, n):
        files = {"image": ("a.png", sent[n])}
        answer, span = timed(lambda: http.post("/query", files=files, data={"top_k": 1000}))
        assert answer.status_code == 200, answer.text
        return n, answer.json(), span

    def query_on(http, first):
        answers = []
        while not all(change.done() for change in changing):
            answers.append(query(http, (first + len(answers)) % len(sent)))
        return answers

    def client(act, first):
        with httpx2.Client(base_url=address, timeout=DEADLINE) as http:
            together.wait(DEADLINE)
            return act(http, first)

    _, address = serve()
    with ThreadPoolExecutor(38) as pool:
        changing = [pool.submit(client, enrol, 5 * n) for n in range(4)]
        changing += [pool.submit(client, delete, n) for n in range(2)]
        querying = [pool.submit(client, query_on, n) for n in range(32)]
        for changed in changing:
            changed.result()
        answers = [answer for asked in querying for answer in asked.result()]
        with httpx2.Client(base_url=address, timeout=DEADLINE) as http:
            answers.append(query(http, 0))
    assert len(added) == 200
    assert len(removed) == 100
    never = (np.inf, np.inf)
    for n, answer, (asked, answered) in answers:
        scores = {match["item_id"]: match["score"] for match in answer["matches"]}
        spans = [(item_id, added[item_id], removed.get(item_id, never)) for item_id in added]
        surely = {item_id for item_id, new, gone in spans if new[1] < asked and answered < gone[0]}
        possibly = {item_id for item_id, new, gone in spans if new[0] < answered and asked < gone[1]}
        assert surely <= scores.keys() <= possibly
        assert answer["candidates"] == len(scores) == len(answer["matches"])
        expected = [vectors[photo_of[item_id]] @ vectors[n] for item_id in scores]
        np.testing.assert_allclose([*scores.values()], expected, atol=1e-5)
    assert len(scores) == 100


def test_requests_under_way_are_answered_before_the_end(serve, picture, tmp_path):
    process, address = serve()
    enrol(address, picture(0))
    under_way = [begin(address, "/v1/items", {"images": ("a.png", picture(n))}) for n in range(1, 5)]
    under_way += [begin(address, "/query", {"image": ("a.png", picture(0))}) for _ in range(4)]
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not listens(address))
    process.send_signal(signal.SIGTERM)
    answers = []
    for connection, rest in under_way:
        connection.send(rest)
        answers.append(connection.getresponse().status)
    assert answers == [201] * 4 + [200] * 4
    _, shown = process.communicate(timeout=DEADLINE)
    assert (process.returncode, shown) == (0, "stopped\n")
    assert len(contents(tmp_path / "gallery")) == 5


@pytest.mark.slow
def test_a_client_that_stalls_does_not_keep_the_service_from_its_end(serve, picture, tmp_path):
    process, address = serve()
    enrol(address, picture(0))
    connection, _ = begin(address, "/v1/items", {"images": ("a.png", picture(1))})
    process.send_signal(signal.SIGTERM)
    refused = connection.getresponse()
    assert (refused.status, json.loads(refused.read())["code"]) == (503, "stopping")
    _, shown = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert re.fullmatch(r"Cancel 1 running task[^\n]*\nstopped\n", shown)
    assert len(contents(tmp_path / "gallery")) == 1


def test_uploads_cut_short_leave_nothing_behind(serve, picture, tmp_path):
    process, address = serve()
    enrol(address, picture(0))

    def files_open():
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    # Each process that reads photos has a socket here, and they start one by one.
    children = Path(f"/proc/{process.pid}/task")
    readers = min(os.cpu_count() or 1, MOST) + 1
    wait_until(lambda: sum(len(one.read_text().split()) for one in children.glob("*/children")) == readers)
    before = files_open()
    large = picture(1, 1000, 1000)  # more than is kept in memory
    for data in [picture(2), large] * 10:
        connection, _ = begin(address, "/v1/items", {"images": ("a.png", data)})
        connection.close()
    wait_until(lambda: files_open() <= before)
    assert enrol(address, picture(3)).status_code == 201
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=DEADLINE)
    assert (process.returncode, shown) == (0, "stopped\n")
    assert len(contents(tmp_path / "gallery")) == 2


def test_a_second_process_is_refused(serve, command, picture, tmp_path):
    _, address = serve()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture(1))
    for module, *arguments in (["service.serve"], ["service.enrol", str(tmp_path / "photos")]):
        second = command(module, *arguments)
        _, shown = second.communicate(timeout=DEADLINE)
        assert second.returncode == 1
        name = module.replace("service.", "reid-")
        assert shown == f"{name}: error: {tmp_path / 'gallery'}: another process has this gallery open\n"
    assert enrol(address, picture(1)).json()["results"][0]["result"] == "created"


@contextmanager
def read_only(*folders):
    """Files and folders that nobody may write to."""
    paths = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture
def bound():
    """The prefix of a command whom permissions bind, whoever runs the test."""
    if os.geteuid():
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("permissions do not bind root, and there is no setpriv")
    return LIMITED


def test_a_folder_that_cannot_be_written(serve, command, picture, bound, tmp_path):
    gallery = tmp_path / "gallery"
    process, address = serve(prefix=bound)
    enrol(address, picture(1))
    with read_only(gallery / "pictures"):  # while the service runs
        refused = enrol(address, picture(2))
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_failed")
        assert query(address, picture(1)).status_code == 200
    assert enrol(address, picture(2)).status_code == 201
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=DEADLINE)
    assert re.fullmatch(r"request \w+: \S+: could not be written \(Permission denied\).*\nstopped\n", shown)
    with read_only(gallery):
        refused = command("service.serve", "--port", "0", prefix=bound)
        _, shown = refused.communicate(timeout=DEADLINE)
        assert refused.returncode == 1
        reason = "not a folder that can be written (Permission denied)"
        assert shown == f"reid-serve: error: {gallery}: {reason}\n"
    assert len(contents(gallery)) == 2


def test_a_full_disk_is_a_503_and_loses_nothing(serve, picture, tmp_path):
    """No file may grow for a while."""
    process, address = serve()
    (result,) = enrol(address, picture(1)).json()["results"]
    item = f"{address}/v1/items/{result['item']['item_id']}"
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
    for answer in (
        enrol(address, picture(2)),
        httpx2.patch(item, json={"label": "A"}, timeout=DEADLINE),
        httpx2.delete(item, timeout=DEADLINE),
        httpx2.post(f"{address}/v1/admin/backup", timeout=DEADLINE),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_failed")
    (match,) = query(address, picture(1)).json()["matches"]  # though it cannot be logged
    assert match["item_id"] == result["item"]["item_id"]
    ready = httpx2.get(f"{address}/health/ready", timeout=DEADLINE)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert re.fullmatch(
        r"queries are not logged: /\S+: cannot be read or written \(.*\); nothing was changed", *ready.json()["reasons"]
    )
    assert "\nreid_unlogged_queries_total 1.0\n" in httpx2.get(f"{address}/metrics", timeout=DEADLINE).text
    assert httpx2.get(item, timeout=DEADLINE).json() == result["item"]
    assert httpx2.get(f"{item}/image", timeout=DEADLINE).status_code == 200
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    assert [match["item_id"] for match in query(address, picture(1)).json()["matches"]] == [result["item"]["item_id"]]
    assert httpx2.get(f"{address}/health/ready", timeout=DEADLINE).json()["status"] == "ready"
    assert httpx2.patch(item, json={"label": "A"}, timeout=DEADLINE).json()["label"] == "A"
    assert enrol(address, picture(2)).status_code == 201
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=DEADLINE)
    *lines, last = shown.splitlines()
    assert last == "stopped"
    assert all(re.match(r"(request \w+|queries are answered and not logged): /\S+: ", line) for line in lines)
    assert len(lines) == 5
    assert len(contents(tmp_path / "gallery")) == 2


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a disk of 80 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be made here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(path):
    """Append to a file until the disk is full."""
    with suppress(OSError), open(path, "ab", buffering=0) as large:
        while True:
            large.write(bytes(2**16))
    with suppress(OSError), open(path, "ab", buffering=0) as large:
        large.write(bytes(4096))


def test_a_disk_that_is_full_is_searched_and_emptied_over_http(serve, picture, small_disk):
    _, address = serve("--gallery", str(small_disk / "gallery"))
    ids = [enrol(address, picture(n)).json()["results"][0]["item"]["item_id"] for n in range(5)]
    reserve = small_disk / "gallery" / "reserve"
    assert reserve.stat().st_size == 24 * 2**20
    fill(small_disk / "large")
    assert shutil.disk_usage(small_disk).free == 0
    for _ in range(300):  # until what SQLite has of room in its file is used up
        assert query(address, picture(0)).status_code == 200
        ready = httpx2.get(f"{address}/health/ready", timeout=DEADLINE).json()
        if len(ready["reasons"]) == 2:
            break
    assert (ready["status"], ready["reasons"][0].split(" on ")[0]) == ("degraded", "0 MiB are free")
    assert enrol(address, picture(9)).status_code == 503
    for item_id in ids[:4]:
        assert httpx2.delete(f"{address}/v1/items/{item_id}", timeout=DEADLINE).status_code == 204
        fill(small_disk / "large")  # somebody else takes what becomes free
    assert [match["item_id"] for match in query(address, picture(4)).json()["matches"]] == ids[4:]
    (small_disk / "large").unlink()
    assert httpx2.delete(f"{address}/v1/items/{ids[4]}", timeout=DEADLINE).status_code == 204
    assert reserve.stat().st_size == 24 * 2**20, "taken again"
    assert enrol(address, picture(9)).status_code == 201


def test_a_job_whose_end_could_not_be_written_is_run_again(gallery, monkeypatch):
    for module in ("service.upkeep.jobs", "service.storage.jobs"):
        monkeypatch.setattr(f"{module}.LEASE", timedelta(seconds=0.1))
    jobs, errors, write = Jobs(gallery.database), [OSError("disk full")], Jobs.end

    def end(*arguments):
        if errors:
            raise errors.pop()
        write(jobs, *arguments)

    monkeypatch.setattr(jobs, "end", end)
    with JobRunner(jobs, {"backup": lambda job, progress: {}}) as runner:
        job = runner.start("backup", {})
        wait_until(lambda: jobs.get(job.job_id).state == "done")
    assert not errors
