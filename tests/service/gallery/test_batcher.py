import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from service.gallery import batcher as module
from service.gallery.batcher import Batcher, Busy, Closed
from tests.waiting import DEADLINE


class Held:
    """Work that doubles numbers, and holds every batch at the door until it is let through."""

    def __init__(self):
        self.batches = []
        self.arrived = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)
        self.thread = None

    def __call__(self, jobs):
        self.thread = threading.current_thread()
        self.batches.append(jobs)
        self.arrived.release()
        assert self.let_through.acquire(timeout=DEADLINE)
        return [job * 2 for job in jobs]

    def wait(self):
        """Until the next batch is at the door: from here on, what is submitted waits."""
        assert self.arrived.acquire(timeout=DEADLINE)

    def open(self):
        """For this batch and all to come."""
        self.let_through.release(1_000)


def double(jobs):
    return [job * 2 for job in jobs]


def results(futures):
    return [future.result(DEADLINE) for future in futures]


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def start(held):
    """A batcher, with options of one's own choice, whose owner is held with a job 0."""
    started = []

    def start(**options):
        batcher = Batcher(held, **options)
        started.append(batcher)
        batcher.submit(0)
        held.wait()
        return batcher

    yield start
    held.open()
    for batcher in started:
        batcher.close()


def test_all_that_is_queued_goes_at_once(held, start):
    batcher = start(max_batch=4)
    futures = [batcher.submit(job) for job in range(1, 7)]
    held.open()
    assert results(futures) == [2, 4, 6, 8, 10, 12]
    assert held.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_one_thread_does_it_all(held, start):
    batcher = start()
    own = batcher.run(threading.current_thread)
    held.open()
    assert own.result(DEADLINE) is held.thread
    assert held.thread is not threading.current_thread()


def test_urgent_jobs_go_first_and_bulk_ones_fill_the_batch(held, start):
    batcher = start(max_batch=3)
    futures = [batcher.submit(job, urgent=False) for job in (10, 11, 12)]
    futures += [batcher.submit(job) for job in (1, 2)]
    futures += [batcher.submit(13, urgent=False)]
    held.open()
    assert results(futures) == [20, 22, 24, 2, 4, 26]
    assert held.batches == [[0], [1, 2, 10], [11, 12, 13]]


def test_a_cancelled_job_is_dropped_and_gives_its_place_away(held, start):
    batcher = start(max_batch=2)
    futures = [batcher.submit(job) for job in (1, 2, 3)]
    assert futures[0].cancel()
    held.open()
    assert results(futures[1:]) == [4, 6]
    assert held.batches == [[0], [2, 3]]
    assert futures[0].cancelled()


def test_a_queue_of_cancelled_jobs_makes_no_batch(held, start):
    batcher = start()
    assert all(batcher.submit(job).cancel() for job in (1, 2))
    held.open()
    batcher.close()
    assert held.batches == [[0]]


def test_a_job_that_runs_cannot_be_cancelled(held, start):
    batcher = start()
    future = batcher.submit(1)
    held.let_through.release()
    held.wait()
    assert not future.cancel()
    held.open()
    assert future.result(DEADLINE) == 2


def test_jobs_are_given_up_and_functions_are_not(held, start):
    batcher = start()
    waiting = [batcher.submit(1), batcher.submit(2, urgent=False)]
    before = batcher.run(lambda: "before")
    batcher.give_up()
    for future in waiting:
        with pytest.raises(Closed, match="the service stops"):
            future.result(DEADLINE)
    with pytest.raises(Closed, match="the service stops"):
        batcher.submit(3)
    after = batcher.run(lambda: "after")
    held.open()
    assert results([before, after]) == ["before", "after"]
    assert held.batches == [[0]]


def test_what_waits_is_counted_by_kind(held, start):
    batcher = start()
    batcher.submit(1)
    batcher.run(print)
    for job in (2, 3):
        batcher.submit(job, urgent=False)
    assert batcher.waiting == {"urgent": 1, "bulk": 2, "functions": 1}
    held.open()
    batcher.close()
    assert batcher.waiting == {"urgent": 0, "bulk": 0, "functions": 0}


def test_a_full_queue_is_busy_and_bulk_does_not_fill_the_urgent_one(held, start):
    batcher = start(max_waiting=2)
    bulk = [batcher.submit(job, urgent=False) for job in (1, 2)]
    with pytest.raises(Busy, match="2 jobs are waiting, which is all that may; try again in 1 s"):
        batcher.submit(3, urgent=False)
    urgent = [batcher.submit(job) for job in (4, 5)]
    with pytest.raises(Busy) as caught:
        batcher.submit(6)
    assert caught.value.retry_after == 1
    held.open()
    assert results(bulk + urgent) == [2, 4, 8, 10]
    assert batcher.submit(7).result(DEADLINE) == 14


def test_busy_says_how_long_the_queue_takes_at_the_last_pace(held, start, monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: seconds[0])
    batcher = start(max_waiting=4)
    for job in (1, 2, 3):
        batcher.submit(job)
    held.let_through.release()
    held.wait()
    seconds[0] += 6  # the time that these three take: 2 s each
    batcher.submit(4)
    held.let_through.release()
    held.wait()
    retry_after = []
    for urgent in (True, False):
        for job in range(4):
            batcher.submit(job, urgent=urgent)
        with pytest.raises(Busy) as caught:
            batcher.submit(5, urgent=urgent)
        retry_after.append(caught.value.retry_after)
    assert retry_after == [8, 16]  # bulk waits for the urgent ones too


def test_one_bad_job_fails_alone():
    def work(jobs):
        return [ValueError(f"{job} is odd") if job % 2 else job for job in jobs]

    with Batcher(work) as batcher:
        futures = [batcher.submit(job) for job in range(4)]
        assert [future.result(DEADLINE) for future in futures[::2]] == [0, 2]
        for job in (1, 3):
            with pytest.raises(ValueError, match=f"{job} is odd"):
                futures[job].result(DEADLINE)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), SystemExit("no way out")])
def test_work_that_fails_fails_its_batch_and_the_thread_lives_on(error):
    def work(jobs):
        if -1 in jobs:
            raise error
        return jobs

    entered, leave = threading.Event(), threading.Event()
    with Batcher(work) as batcher:
        batcher.run(lambda: (entered.set(), leave.wait(DEADLINE)))
        assert entered.wait(DEADLINE)
        failing = [batcher.submit(job) for job in (1, -1, 2)]
        leave.set()
        for future in failing:
            with pytest.raises(type(error), match=str(error)):
                future.result(DEADLINE)
        assert batcher.submit(3).result(DEADLINE) == 3


@pytest.mark.parametrize("answers", [[], [1, 2]])
def test_a_wrong_number_of_answers_leaves_nobody_waiting(answers):
    with (
        Batcher(lambda jobs: answers) as batcher,
        pytest.raises(ValueError, match=f"1 jobs got {len(answers)} answers, expected one each"),
    ):
        batcher.submit(1).result(DEADLINE)


def test_functions_run_in_order_between_batches(held, start):
    batcher = start(max_batch=2)
    done = []
    futures = [batcher.submit(job) for job in (1, 2, 3)]
    last = [Future()]

    def first():
        done.append(("first", len(held.batches)))
        last[0] = batcher.run(lambda: done.append(("queued by first", len(held.batches))))

    batcher.run(first)
    batcher.run(lambda: done.append(("second", len(held.batches))))
    held.open()
    results(futures)
    last[0].result(DEADLINE)
    # Both go ahead of the next batch; what comes while they run waits for one batch.
    assert done == [("first", 1), ("second", 1), ("queued by first", 2)]


def test_a_function_gives_its_result_or_its_error_to_the_caller():
    with Batcher(double) as batcher:
        assert batcher.run(lambda: "found").result(DEADLINE) == "found"
        with pytest.raises(KeyError, match="lost"):
            batcher.run(lambda: {}["lost"]).result(DEADLINE)
        assert batcher.submit(1).result(DEADLINE) == 2


def test_a_cancelled_function_does_not_run(held, start):
    batcher = start()
    ran = []
    assert batcher.run(lambda: ran.append(1)).cancel()
    held.open()
    batcher.close()
    assert ran == []


def test_closing_finishes_what_is_queued_and_takes_nothing_more(held, start):
    batcher = start(max_batch=2)
    batcher.run(batcher.close)
    futures = [batcher.submit(job, urgent=job < 3) for job in (1, 2, 3, 4)]
    futures.append(batcher.run(lambda: 99))
    held.let_through.release()
    held.wait()  # the next batch is at the door, and functions go ahead of it: the batcher is closed
    for refused in (lambda: batcher.submit(5), lambda: batcher.run(print)):
        with pytest.raises(Closed, match="the batcher is closed"):
            refused()
    assert not any(future.done() for future in futures[:4])
    held.open()
    batcher.close()
    assert not held.thread.is_alive()
    assert [future.result(0) for future in futures] == [2, 4, 6, 8, 99]
    batcher.close()  # once more is no harm


def test_the_owner_itself_may_close():
    batcher = Batcher(double)
    batcher.run(batcher.close).result(DEADLINE)
    with pytest.raises(Closed):
        batcher.submit(1)
    batcher.close()


def test_every_job_of_many_threads_is_answered_once():
    seen = []

    def work(jobs):
        seen.extend(jobs)
        return double(jobs)

    start = threading.Barrier(16)
    with Batcher(work, max_batch=8, max_waiting=1_000) as batcher:

        def submit(thread):
            start.wait(DEADLINE)
            jobs = range(thread, 1_000, 16)
            futures = [batcher.submit(job, urgent=job % 3 > 0) for job in jobs]
            return list(zip(jobs, results(futures), strict=True))

        with ThreadPoolExecutor(16) as threads:
            answered = [pair for pairs in threads.map(submit, range(16)) for pair in pairs]
    assert sorted(answered) == [(job, job * 2) for job in range(1_000)]
    assert sorted(seen) == list(range(1_000))
