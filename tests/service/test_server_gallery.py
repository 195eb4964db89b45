"""A gallery whose items are found by a server, which goes away and comes back."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

import service.gallery.index
from reid.inference.embedder import Embedder
from service.api.app import create_app
from service.gallery.gallery import Gallery
from service.gallery.index import ServerIndex, collection
from service.gallery.search import SearchOptions
from service.records import Details, IndexUnavailable, ModelMismatch, Upload
from service.settings import Settings
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner
from service.upkeep.reconcile import reconcile, reconcile_work
from service.upkeep.reindex import reindex
from tests.service.rows_server import Engine, Server
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr(service.gallery.index, "PAUSE", 0.01)
    monkeypatch.setattr(service.gallery.index, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def embedder(checkpoint):
    return Embedder.from_checkpoint(checkpoint)[0]


def opened(folder, embedder, server, model="one"):
    database = Database(folder)
    engine = Engine(server, collection(database.gallery_id, model))
    return Gallery(database, embedder, model, ServerIndex(database, engine, model))


@pytest.fixture
def gallery(tmp_path, embedder, server):
    with opened(tmp_path / "gallery", embedder, server) as gallery:
        yield gallery


def upload(data):
    return Upload("photo.png", data, Details())


def enrol(gallery, *photos):
    results = gallery.enrol([upload(data) for data in photos])
    return [result.item for result in results], [result.pending for result in results]


def sources(answer):
    return [match.item.item_id for match in answer.matches]


def test_photos_are_taken_while_the_server_is_away_and_found_when_it_is_back(gallery, server, picture):
    (first,), (pending,) = enrol(gallery, picture(1))
    assert not pending
    assert sources(gallery.query([picture(1)], SearchOptions())) == [first.item_id]
    server.away = True
    with pytest.raises(IndexUnavailable, match="connection refused"):
        gallery.query([picture(1)], SearchOptions())
    (second, again), pending = enrol(gallery, picture(2), picture(1))
    assert (pending, again) == ([True, True], first)
    assert gallery.edit(first.item_id, {"camera": "north"}).details.camera == "north"
    for ask in (lambda: gallery.query_item(second.item_id, SearchOptions()), gallery.worker.size):
        with pytest.raises(IndexUnavailable, match="connection refused"):
            ask()
    assert gallery.index.waiting == 2
    server.away = False
    wait_until(lambda: gallery.index.items == 2)
    assert sources(gallery.query([picture(2)], SearchOptions())) == [second.item_id, first.item_id]
    assert gallery.index.waiting == 0


def test_a_photo_is_enrolled_in_the_batch_of_a_query_that_fails(gallery, server, picture, monkeypatch):
    """The model embeds both at once; the query alone needs the server."""
    jobs = []
    worker = gallery.worker
    monkeypatch.setattr(worker._batcher, "_work", lambda batch: [jobs.append(len(batch)), *worker._work(batch)][1:])

    def go_away_and_wait():  # on the thread that would notice
        server.away = True
        wait_until(lambda: worker.waiting["urgent"] == worker.waiting["bulk"] == 1)

    held = gallery.worker.run(go_away_and_wait)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gallery.query, [picture(1)], SearchOptions())
        (_,), (pending,) = enrol(gallery, picture(2))
        held.result()
        assert jobs == [2]
        assert pending
        with pytest.raises(IndexUnavailable):
            asked.result()


def test_what_is_deleted_is_not_found_whatever_the_server_thinks(gallery, server, picture):
    enrol(gallery, *(picture(n) for n in range(12)))
    everything = sources(gallery.query([picture(0)], SearchOptions(top_k=12)))
    gone = set(everything[:8])
    gallery.store.delete(gone)  # as another process does that ends before the server hears of it
    gallery.index.tend = lambda: False
    answer = gallery.query([picture(0)], SearchOptions(top_k=3))
    assert sources(answer) == everything[8:11], "others take the places of those that are gone"
    by_item = gallery.query_item(everything[8], SearchOptions(top_k=3))
    assert not {*sources(by_item)} & {*gone, everything[8]}
    assert len(by_item.matches) == 3
    assert gallery.index.follow()
    assert gallery.query([picture(0)], SearchOptions()).candidates == 4


def test_a_gallery_goes_to_another_model_though_the_server_goes_away(
    tmp_path, gallery, embedder, server, picture, monkeypatch
):
    items, _ = enrol(gallery, *(picture(n) for n in range(25)))
    gallery.close()
    monkeypatch.setattr(service.gallery.index, "ROWS_AT_ONCE", 10)
    with opened(tmp_path / "gallery", embedder, server, "two") as other:
        assert not other.worker.serves
        server.answers = 2  # of the portions that fill it
        told = []
        reindex(other, lambda done, total: told.append((done, total)))
        assert other.worker.serves
        wait_until(lambda: other.index.items == 25 and not other.index.waiting)
        assert sources(other.query([picture(7)], SearchOptions(top_k=1))) == [items[7].item_id]
        assert [*server.collections] == [collection(other.database.gallery_id, "two")]
        assert server.answers < 0, "the server did not go away"


def test_a_reconciliation_compares_all_rows(gallery, server, picture):
    items, _ = enrol(gallery, *(picture(n) for n in range(12)))
    (kept,) = server.collections.values()
    del kept[items[3].number]
    told = []
    assert reconcile(gallery.index, lambda done, total: told.append((done, total)), mend=False)._asdict() == {
        "rows": 12,
        "missing": 1,
        "ghosts": 0,
        "wrong": 0,
    }
    assert told[-1] == (12, 12)
    with JobRunner(Jobs(gallery.database), {"reconcile": reconcile_work(gallery, gallery.index)}) as runner:
        job = runner.start("reconcile", {})
        wait_until(lambda: runner.jobs.get(job.job_id).state == "done")
        assert runner.jobs.get(job.job_id).result["missing"] == 1
    assert kept.keys() == {item.number for item in items}
    server.away = True
    with pytest.raises(IndexUnavailable):
        gallery.worker.size()
    with pytest.raises(IndexUnavailable, match="connection refused"):
        reconcile(gallery.index, lambda done, total: None)


def test_the_service_says_why_it_cannot_answer(gallery, server, checkpoint, picture):
    settings = Settings(checkpoint=checkpoint, gallery=gallery.folder, allowed_hosts=["testserver"])
    with JobRunner(Jobs(gallery.database), {}) as runner, TestClient(create_app(gallery, runner, settings)) as client:

        def post(path, field, data):
            return client.post(path, files={field: ("photo.png", data)})

        assert post("/v1/items", "images", picture(1)).json()["results"][0]["pending"] is False
        assert client.get("/health/ready").json()["items"] == 1
        server.away = True
        refused = post("/query", "image", picture(1))
        assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
        assert "connection refused" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        taken = post("/v1/items", "images", picture(2))
        assert (taken.status_code, taken.json()["results"][0]["pending"]) == (201, True)
        assert client.get("/health/ready").json()["code"] == "index_unavailable"
        assert client.get("/health/live").status_code == 200
        measured = client.get("/metrics").text
        assert "reid_index_pending 1.0" in measured
        assert "reid_ready 0.0" in measured
        server.away = False
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert post("/query", "image", picture(2)).json()["candidates"] == 2
        assert client.post("/v1/admin/reconcile").json()["code"] == "not_served"


def test_a_photo_embedded_before_a_switch_of_models_is_not_enrolled_after_it(gallery, picture, monkeypatch):
    gallery.models.prepare("two", gallery.embedder.size, {})
    save = gallery.pictures.save

    def switched_meanwhile(copies):
        if gallery.worker.serves:
            gallery.models.switch("two")  # by another process, while the former model works here
        save(copies)

    monkeypatch.setattr(gallery.pictures, "save", switched_meanwhile)
    with pytest.raises(ModelMismatch, match="belongs to model two"):
        enrol(gallery, picture(1))
    assert not gallery.store.contents()
