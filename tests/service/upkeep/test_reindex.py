"""A re-index gives a gallery to another model, all of it or nothing, and goes on where it was ended."""

import io
import multiprocessing
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from sqlalchemy import update

import service.upkeep.reindex
from reid.config import ReidConfig
from reid.data.images import decode
from reid.data.preprocessing import AS_SHOWN
from reid.inference.checkpoint import load_model, save_model
from service.engines.memory import MemoryEngine
from service.gallery.batcher import Busy
from service.gallery.gallery import Gallery
from service.gallery.index import LocalIndex
from service.gallery.rendering import render
from service.gallery.search import SearchOptions
from service.opening import open_gallery
from service.records import Cause, Details, ModelMismatch, Upload
from service.storage import tables
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.models import Models
from service.storage.store import EVERYTHING, Store
from service.upkeep.check import check, told
from service.upkeep.jobs import JobRunner
from service.upkeep.reindex import reindex, reindex_work
from tests.waiting import DEADLINE, wait_until

SIZE = 8
process = multiprocessing.get_context("fork")  # a child that need not import anything anew


def nothing(done, total):
    pass


class Projection:
    """A model that is a random projection of the pixels, the same for each seed."""

    size, features, flip_test, decoding, resized = SIZE, "sa", False, AS_SHOWN, (4, 4)

    def __init__(self, seed):
        self.matrix = np.random.default_rng(seed).standard_normal((3 * 4 * 4, SIZE))
        self.embedded = 0

    def prepare(self, image):
        return torch.from_numpy(np.asarray(image.resize((4, 4)), np.float64).transpose(2, 0, 1) - 127)

    def embed_prepared(self, images):
        self.embedded += len(images)
        return np.stack([self.vector(image) for image in images])

    def vector(self, image):
        drawn = image.numpy().ravel() @ self.matrix
        return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def model_id(seed):
    return f"model-{seed}"


def opened(folder, seed, decoders=None):
    """A gallery that the model of this seed serves, or is to serve."""
    database = Database(folder)
    index = LocalIndex(database, MemoryEngine(), model_id(seed))
    return Gallery(database, Projection(seed), model_id(seed), index, decoders=decoders)


class DecoderOfAFork:
    """Renders photos itself: a fork has none of the threads of the decoders that the tests share."""

    def render(self, share, data, order):
        return render(data, order)

    def close(self):
        pass


def vectors(store, seed):
    """What is stored of a model, by the name of the photo."""
    rows = {row.number: row.vector for row in store.rows(model_id(seed))}
    items = store.get_many(list(rows))
    return {int(items[number].medium.source): vector for number, vector in rows.items()}


def afresh(number, seed):
    model = Projection(seed)
    return model.vector(model.prepare(decode(picture(number))))


def require_exact(found, numbers, seed):
    assert sorted(found) == sorted(numbers)
    for number, vector in found.items():
        np.testing.assert_array_equal(vector, afresh(number, seed))


@pytest.fixture
def folder(tmp_path):
    """A gallery of 40 photos that belongs to model 0."""
    with opened(tmp_path / "gallery", 0) as gallery:
        gallery.enrol([Upload(str(n), picture(n), Details()) for n in range(40)])
    return tmp_path / "gallery"


def test_a_gallery_of_another_model_is_served_after_a_reindex(folder):
    with opened(folder, 1) as gallery:
        assert not gallery.worker.serves
        for refused in (
            lambda: gallery.query([picture(1)], SearchOptions()),
            lambda: gallery.enrol([Upload("new", picture(99), Details())]),
        ):
            with pytest.raises(ModelMismatch, match="belongs to model model-0, but model model-1 is loaded"):
                refused()
        steps = []
        result = reindex(gallery, lambda done, total: steps.append((done, total)), Cause("ada", "r1"))
        assert result == {"model_id": "model-1", "items": 40, "left_out": []}
        assert steps == [(0, 40), (32, 40), (40, 40)]
        assert gallery.worker.serves
        require_exact(vectors(gallery.store, 1), range(40), 1)
        assert vectors(gallery.store, 0) == {}
        answer = gallery.query([picture(7)], SearchOptions(top_k=3))
        assert (answer.candidates, answer.matches[0].item.medium.source) == (40, "7")
        cosines = sorted((afresh(7, 1) @ afresh(n, 1) for n in range(40)), reverse=True)
        np.testing.assert_allclose([match.score for match in answer.matches], cosines[:3], atol=1e-5)
        [enrolled] = gallery.enrol([Upload("new", picture(99), Details())])
        assert enrolled.created
        switched = [entry for entry in gallery.store.operations() if entry.kind == "model.switch"]
        assert [(entry.actor, entry.request_id) for entry in switched] == [("ada", "r1")]
    with opened(folder, 1) as gallery:
        assert gallery.worker.size() == 41
    with opened(folder, 0) as gallery:
        assert not gallery.worker.serves


def test_the_model_that_serves_finds_nothing_to_do(folder):
    with opened(folder, 0) as gallery:
        before = gallery.store.operations()
        assert reindex(gallery, nothing) == {"model_id": "model-0", "items": 40, "left_out": []}
        assert gallery.embedder.embedded == 0
        assert gallery.store.operations() == before
        assert gallery.worker.size() == 40


def test_a_model_that_nobody_asked_for_is_not_switched_to(folder):
    """The service was killed before it got to the job, and was started with a third model."""
    with opened(folder, 1) as gallery:
        job = Jobs(gallery.database).create("reindex", {"model_id": model_id(1)})
    with opened(folder, 2) as gallery, JobRunner(jobs := Jobs(gallery.database), {"reindex": reindex_work(gallery)}):
        failed = ended(jobs, job.job_id)
        assert (failed.state, failed.error) == (
            "failed",
            "asked for model model-1, but model model-2 is loaded now; ask again",
        )
        assert gallery.models.active.model_id == model_id(0)


def test_deleting_and_editing_go_on_meanwhile(folder, monkeypatch):
    monkeypatch.setattr(service.upkeep.reindex, "PHOTOS_AT_ONCE", 4)
    with opened(folder, 1) as gallery:
        items = gallery.store.page(EVERYTHING, limit=100)
        ahead = [item.item_id for item in (items[1], items[6], items[39])]

        def change(done, total):
            if done == 4:
                assert len(gallery.delete(ahead)) == 3
                gallery.edit(items[2].item_id, {"camera": "north"})
                gallery.edit(items[30].item_id, {"label": "ada"})

        reindex(gallery, change)
        require_exact(vectors(gallery.store, 1), sorted(set(range(40)) - {1, 6, 39}), 1)
        answer = gallery.query([picture(2)], SearchOptions(EVERYTHING, 1))
        assert (answer.candidates, answer.matches[0].item.details.camera) == (37, "north")


def test_a_reindex_that_ended_goes_on_where_it_was(folder, monkeypatch):
    monkeypatch.setattr(service.upkeep.reindex, "PHOTOS_AT_ONCE", 4)

    def end(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with opened(folder, 1) as gallery:
        with pytest.raises(KeyboardInterrupt):
            reindex(gallery, end)
        assert not gallery.worker.serves
        assert gallery.embedder.embedded == 12
        require_exact(vectors(gallery.store, 0), range(40), 0)
    with opened(folder, 0) as gallery:  # the former model still serves
        assert gallery.query([picture(3)], SearchOptions()).matches[0].item.medium.source == "3"
        gallery.enrol([Upload("40", picture(40), Details())])
    steps = []
    with opened(folder, 1) as gallery:
        reindex(gallery, lambda done, total: steps.append((done, total)))
        assert gallery.embedder.embedded == 29
        require_exact(vectors(gallery.store, 1), range(41), 1)
    assert (steps[0], steps[-1]) == ((12, 41), (41, 41))


def test_items_whose_pictures_cannot_be_read_are_left_out_and_named(folder, caplog):
    with opened(folder, 1) as gallery:
        items = gallery.store.page(EVERYTHING, limit=100)
        lost, damaged = items[3], items[8]
        gallery.pictures.path(lost.medium.sha256).unlink()
        gallery.pictures.path(damaged.medium.sha256).write_bytes(b"RIFF")
        gone = [lost.item_id, damaged.item_id]
        assert reindex(gallery, nothing) == {"model_id": "model-1", "items": 40, "left_out": gone}
        assert [record.getMessage().split(":")[0] for record in caplog.records] == [f"item {one}" for one in gone]
        assert gallery.worker.serves and gallery.worker.size() == 38
        require_exact(vectors(gallery.store, 1), set(range(40)) - {3, 8}, 1)
        require_exact(vectors(gallery.store, 0), [3, 8], 0)  # the old ones are kept, and not searched
        assert gone[0] not in found(gallery, picture(3))
        assert reindex(gallery, nothing)["left_out"] == gone
        gallery.enrol([Upload(str(n), picture(n), Details()) for n in (3, 8)])  # which puts the pictures back
        assert reindex(gallery, nothing)["left_out"] == []
        assert gallery.worker.size() == 40 and found(gallery, picture(3))[0] == gone[0]


def test_a_gallery_without_its_pictures_keeps_its_model(folder):
    shutil.rmtree(folder / "pictures")
    with opened(folder, 1) as gallery:
        with pytest.raises(ValueError, match=r"^40 items have no vector of model model-1: \w+"):
            reindex(gallery, nothing)
        assert not gallery.worker.serves
        require_exact(vectors(gallery.store, 0), range(40), 0)


def test_damaged_vectors_are_named_and_made_anew(folder):
    with opened(folder, 0) as gallery:
        first, second, *_ = gallery.store.page(EVERYTHING, limit=3)
        with gallery.database.transaction() as connection:
            for item, harm in ((first, bytes(4 * SIZE)), (second, np.eye(SIZE, dtype="<f4")[0].tobytes())):
                connection.execute(update(tables.vectors).where(owned(item)).values(vector=harm))
    with opened(folder, 0) as gallery:  # it starts, without what cannot be compared
        assert gallery.worker.size() == 39
        result = check(gallery.database, gallery.pictures, nothing)
        assert result["damaged_vectors"] == [first.item_id, second.item_id]
        assert (result["vectors"], result["missing"], result["damaged"], result["damage"]) == (40, [], [], None)
        assert "2 items have a damaged vector; a re-index mends it" in told(result)[0]
        reindex(gallery, nothing)
        require_exact(vectors(gallery.store, 0), range(40), 0)
        assert gallery.embedder.embedded == 2 and gallery.worker.size() == 40
        assert found(gallery, picture(0))[0] == first.item_id
        assert told(check(gallery.database, gallery.pictures, nothing)) == []


def owned(item):
    return tables.vectors.c.owner_number == item.number


def found(gallery, data):
    return [match.item.item_id for match in gallery.query([data], SearchOptions(top_k=40)).matches]


def test_a_queue_that_is_full_is_waited_for(folder, monkeypatch):
    with opened(folder, 1) as gallery:
        embed, refusals = gallery.worker.embed, iter(range(50))

        def refuse_at_times(image):
            if next(refusals, 1) % 2 == 0:
                raise Busy(256, 0)
            return embed(image)

        monkeypatch.setattr(gallery.worker, "embed", refuse_at_times)
        reindex(gallery, nothing)
        require_exact(vectors(gallery.store, 1), range(40), 1)


def test_queries_meet_the_old_model_or_all_vectors_of_the_new_one(folder):
    """Whoever is answered while the model changes is answered from the whole gallery."""
    with opened(folder, 1) as gallery, ThreadPoolExecutor(5) as pool:

        def ask(_):
            while True:
                try:
                    return gallery.query([picture(5)], SearchOptions(top_k=1)).candidates
                except ModelMismatch:
                    assert not stopped

        stopped = False
        answers = pool.map(ask, range(4))
        try:
            reindex(gallery, nothing)
        except BaseException:
            stopped = True
            raise
        assert list(answers) == [40] * 4


def test_two_trained_models_give_what_embedding_afresh_gives(checkpoint, tmp_path):
    model, described = load_model(checkpoint, ReidConfig)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run" / "model.safetensors", model, described)
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        gallery.enrol([Upload(str(n), picture(n), Details()) for n in range(10)])
    with open_gallery(tmp_path / "gallery", tmp_path / "run", "cpu") as gallery:
        reindex(gallery, nothing)
        expected = gallery.embedder.embed([decode(picture(n)) for n in range(10)])
        stored = np.stack([row.vector for row in gallery.store.rows(gallery.model_id)])
        np.testing.assert_allclose(stored, expected, atol=1e-6)
    with open_gallery(tmp_path / "new", tmp_path / "run", "cpu") as other:
        other.enrol([Upload(str(n), picture(n), Details()) for n in range(10)])
        enrolled = np.stack([row.vector for row in other.store.rows(other.model_id)])
        np.testing.assert_allclose(stored, enrolled, atol=1e-6)


def ended(jobs, job_id):
    wait_until(lambda: jobs.get(job_id).state not in ("queued", "running"))
    return jobs.get(job_id)


def reindex_by_a_job(folder, seed, steps, ready):
    """A child: start or go on with a re-index for the model of a seed, until it is killed.

    It is ready for that once the re-index has told of its progress so many times, or ends.
    """
    service.upkeep.reindex.PHOTOS_AT_ONCE = 1
    with opened(folder, seed, DecoderOfAFork()) as gallery:

        def work(job, progress):
            told = count(1)

            def tell(done, total):
                progress(done, total)
                if next(told) == steps:
                    ready.set()

            try:
                return reindex_work(gallery)(job, tell)
            finally:
                ready.set()

        if not steps:
            ready.set()
        with JobRunner(Jobs(gallery.database), {"reindex": work}) as runner:
            if all(job.state in ("done", "failed", "cancelled") for job in runner.jobs.page(None, 1)):
                runner.start("reindex", {})
            time.sleep(DEADLINE)


def kill_rounds(folder, rounds, seed):
    """Kill a process that re-indexes, again and again; returns how many kills met a job at work, and its models."""
    draw = random.Random(seed)
    served, met = 0, 0
    for _ in range(rounds):
        with Database(folder) as database:
            before = Models(database).count_missing(model_id(served + 1))
        ready = process.Event()
        child = process.Process(target=reindex_by_a_job, args=(folder, served + 1, draw.randint(0, 42), ready))
        child.start()
        assert ready.wait(DEADLINE)
        time.sleep(draw.random() * 0.02)  # only chooses the moment within a step
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with Database(folder) as database:
            store, models = Store(database), Models(database)
            missing = models.count_missing(model_id(served + 1))
            assert missing <= before
            new = vectors(store, served + 1)
            require_exact(new, new, served + 1)
            assert len(new) == 40 - missing
            if models.active.model_id == model_id(served):
                require_exact(vectors(store, served), range(40), served)
                met += 0 < missing < 40
            else:
                assert models.active.model_id == model_id(served + 1)
                assert missing == 0
                former = vectors(store, served)  # a kill may have left some, which the next switch drops
                require_exact(former, former, served)
                served += 1
    with Database(folder) as database:
        missing = Models(database).count_missing(model_id(served + 1))
    with opened(folder, served + 1) as gallery:
        with JobRunner(Jobs(gallery.database), {"reindex": reindex_work(gallery)}) as runner:
            [job] = runner.jobs.page(None, 1)
            if job.state != "running":
                assert ended(runner.jobs, job.job_id).state == "done"
                job = runner.start("reindex", {})
            assert ended(runner.jobs, job.job_id).state == "done"
        assert gallery.embedder.embedded == missing
        assert gallery.worker.serves
        require_exact(vectors(gallery.store, served + 1), range(40), served + 1)
        assert not any(len(vectors(gallery.store, former)) for former in range(served + 1))
    return met, served


def test_a_kill_loses_no_vector_and_the_next_start_goes_on(folder):
    kill_rounds(folder, rounds=2, seed=1)


@pytest.mark.slow
def test_a_hundred_kills_lose_no_vector(folder):
    met, served = kill_rounds(folder, rounds=100, seed=2)
    assert met
    assert served
