from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from service.gallery.batcher import Batcher
from service.records import NOBODY, Cause, LoggedQuery, LogPart
from service.storage.queries import Queries
from tests.waiting import DEADLINE

ASKED = LoggedQuery(
    Cause("key-1", "request-1"), ("ab" * 32, "cd" * 32), None, {"cameras": ["日本", "it's"]}, 7, (("i", 0.1 + 0.2),)
)
BY_ITEM = LoggedQuery(NOBODY, (), "x'; DROP TABLE queries;--", {}, 0, ())


@pytest.fixture
def queries(database):
    return Queries(database)


def test_what_is_written_is_read_page_by_page(queries):
    before = datetime.now(UTC).replace(microsecond=0)
    queries.append([ASKED, BY_ITEM])
    queries.append([ASKED])
    assert [logged.asked for logged in queries.page()] == [ASKED, BY_ITEM, ASKED]
    pages = [[logged.seq for logged in queries.page(LogPart(after, 2))] for after in (0, 2, 3)]
    assert pages == [[1, 2], [3], []]
    assert all(before <= logged.time <= datetime.now(UTC) for logged in queries.page())


def test_the_log_is_there_when_the_gallery_is_opened_again(reopen):
    with reopen() as database:
        Queries(database).append([ASKED])
    with reopen() as database:
        assert [logged.asked for logged in Queries(database).page()] == [ASKED]


@pytest.mark.parametrize("change", ["UPDATE queries SET actor = 'else'", "UPDATE queries SET matches = '[]'"])
def test_the_query_log_cannot_be_rewritten(database, queries, change):
    queries.append([ASKED])
    with pytest.raises(IntegrityError, match="append-only"), database.transaction() as connection:
        connection.execute(text(change))
    assert [logged.asked for logged in queries.page()] == [ASKED]


def test_queries_are_written_together_or_not_at_all(queries):
    with pytest.raises(ValueError, match="nan"):
        queries.append([ASKED, replace(ASKED, matches=(("i", float("nan")),))])
    assert queries.page() == []


def test_a_group_commit_of_many_threads_loses_none(queries):
    groups = []

    def write(asked):
        groups.append(len(asked))
        queries.append(asked)
        return [None] * len(asked)

    with Batcher(write, max_batch=100, max_waiting=1_000) as writer:

        def ask(number):
            asked = replace(ASKED, cause=Cause(str(number % 8), str(number)))
            writer.submit(asked).result(timeout=DEADLINE)
            return asked

        with ThreadPoolExecutor(16) as threads:
            answered = list(threads.map(ask, range(400)))
        # What was answered is written already, with the writer still open.
        logged = [one.asked for one in queries.page()]
    assert sorted(logged, key=lambda one: int(one.cause.request_id)) == answered
    assert sum(groups) == 400
